"""Floors of blocks and stages: the least time at the measured ceilings.

The floor of a block is max(multiply-adds / peak at the precision used, bytes / bandwidth), where the bytes
are its weights once, and what it reads from and writes to other blocks. It presumes that everything in a
block is fused, that nothing but multiply-adds takes time, and that all cores work all the time.

The layered floor is the sum of the same over a block's layers, each of which reads its inputs from and
writes its outputs to the smallest cache that holds them. It is no bound, but says what fusing a block would
be worth.
"""

from __future__ import annotations

from dataclasses import dataclass

from stenosis_trt.bench.roofline.blocks import BlockWork
from stenosis_trt.bench.roofline.ceilings import Ceilings
from stenosis_trt.engine.backends.cpu.candidates import BFLOAT16, Arithmetic

_WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class NetworkPrecision:
    """Precision that a network runs in.

    Attributes:
        name: "fp32", "bf16", "fp16" or "int8".
        rest: precision of what an INT8 network leaves unquantised.
        int8_share: share of its multiply-adds that are INT8; 0 for other precisions.
    """

    name: str
    rest: str = "fp32"
    int8_share: float = 0.0

    @property
    def width(self) -> int:
        """Bytes of a weight or an activation."""
        return _WIDTHS[self.name]

    def seconds(self, multiply_adds: float, ceilings: Ceilings) -> float:
        """Time of multiply-adds at their peak.

        A precision that no runtime has here, such as FP16 on most CPUs, is computed in FP32.
        """
        rest = self.rest if self.name == "int8" else self.name
        slow = ceilings.peaks.get(rest, ceilings.peaks["fp32"]).best
        fast = ceilings.peaks.get("int8", ceilings.peaks["fp32"]).best
        return multiply_adds * (self.int8_share / fast + (1.0 - self.int8_share) / slow)


@dataclass(frozen=True)
class BlockFloor:
    """Floor of a block, or of a stage, for one study.

    Attributes:
        name: of the block.
        multiply_adds: of one study.
        moved_bytes: least traffic of one study.
        compute_ms, memory_ms: at the peak, and at the bandwidth of the level that the bytes fit into.
        layered_ms: the layered floor.
    """

    name: str
    multiply_adds: int
    moved_bytes: int
    compute_ms: float
    memory_ms: float
    layered_ms: float

    @property
    def floor_ms(self) -> float:
        """The least time."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def limit(self) -> str:
        """What the floor is of: "compute" or "memory"."""
        return "compute" if self.compute_ms >= self.memory_ms else "memory"


def block_floor(block: BlockWork, batch: int, precision: NetworkPrecision, ceilings: Ceilings) -> BlockFloor:
    """Floor of a block for a batch of inputs."""
    moved = (block.weights + batch * (block.inputs + block.outputs)) * precision.width
    layered = 0.0
    for layer in block.layers:
        traffic = (layer.weights + batch * (layer.inputs + layer.outputs)) * precision.width
        layered += max(
            precision.seconds(batch * layer.multiply_adds, ceilings), traffic / ceilings.bandwidth(traffic)
        )
    return BlockFloor(
        block.name,
        batch * block.multiply_adds,
        moved,
        precision.seconds(batch * block.multiply_adds, ceilings) * 1e3,
        moved / ceilings.bandwidth(moved) * 1e3,
        layered * 1e3,
    )


def moved_floor(name: str, moved: int, bytes_a_second: float) -> BlockFloor:
    """Floor of a stage that only moves bytes, such as preprocessing."""
    milliseconds = moved / bytes_a_second * 1e3
    return BlockFloor(name, 0, moved, 0.0, milliseconds, milliseconds)


def network_precision(arithmetic: Arithmetic, int8_share: float | None) -> NetworkPrecision:
    """Return the precision of a network.

    Args:
        arithmetic: what computes it.
        int8_share: share of the multiply-adds that the pack's INT8 file computes in INT8; None if unknown,
            which is taken for all of them.
    """
    rest = "bf16" if arithmetic.floats == BFLOAT16 else "fp32"
    share = 1.0 if int8_share is None else int8_share
    return NetworkPrecision(arithmetic.name, rest, share if arithmetic.precision == "int8" else 0.0)
