"""Roofline of one network: its profile by block, and the floor of each block."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.roofline.blocks import BlockWork, network_blocks
from stenosis_trt.bench.roofline.ceilings import Ceilings, Rate
from stenosis_trt.bench.roofline.floors import BlockFloor, NetworkPrecision, block_floor, network_precision
from stenosis_trt.bench.roofline.matching import Assignment, assign_nodes
from stenosis_trt.bench.roofline.profiles import ProfiledInputs, Run, profile_onnxruntime, profile_openvino
from stenosis_trt.bench.statistics.medians import median_interval
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import OPENVINO, Execution

Float32Array = npt.NDArray[np.float32]


_RUNS = 9
_TRUSTED_MS = 0.3
"""Shortest time of a block that a rate is computed from."""


@dataclass(frozen=True)
class NetworkProfile:
    """A network as the product runs it.

    Attributes:
        name: of the model in the pack.
        runs_by: what computes it, in words.
        precision: that it runs in.
        execution: how its inputs are spread over the cores.
        batch: inputs of the study.
        blocks: its work.
        assignment: time of each block.
        runs: the profile.
    """

    name: str
    runs_by: str
    precision: NetworkPrecision
    execution: Execution
    batch: int
    blocks: tuple[BlockWork, ...]
    assignment: Assignment
    runs: tuple[Run, ...]

    @property
    def total_ms(self) -> float:
        """Median over the runs of the sum over all nodes."""
        return statistics.median(sum(node.milliseconds for node in run) for run in self.runs)

    def floors(self, ceilings: Ceilings) -> tuple[BlockFloor, ...]:
        """Floor of each block."""
        return tuple(block_floor(block, self.batch, self.precision, ceilings) for block in self.blocks)


@dataclass(frozen=True)
class BlockPoint:
    """A block, measured and at its floor.

    Attributes:
        name: of the block.
        median_ms, low_ms, high_ms: time of one study with its interval.
        floor: its floor.
        operators: share of its time by the runtime's operator.
    """

    name: str
    median_ms: float
    low_ms: float | None
    high_ms: float | None
    floor: BlockFloor
    operators: dict[str, float]

    @property
    def ratio(self) -> float:
        """Time over floor; 0 for a block that the runtime folded into others."""
        return self.median_ms / self.floor.floor_ms if self.floor.floor_ms else 0.0


def profile_network(
    backend: CpuBackend, name: str, batch: Float32Array, seconds: float, folder: Path
) -> NetworkProfile:
    """Profile a network as the backend of the product runs it.

    Args:
        backend: of the product.
        name: of the model.
        batch: its inputs of one study (N, C, H, W).
        seconds: duration of the profile, about.
        folder: for temporary files.

    Raises:
        PackError: shapes cannot be inferred from the graph.
    """
    choice, spec = backend.choices[name], backend.pack.models[name]
    variant = spec.variants.get("int8")
    share = None if variant is None else variant.metrics.get("quantised_share")
    size = backend.inference(name, len(batch)).part
    parts = tuple(batch[first : first + size] for first in range(0, len(batch), size))
    inputs = ProfiledInputs(parts, choice.execution(len(batch)), _RUNS, seconds)
    data = backend.pack.read_model(name)
    if choice.arithmetic.runtime == OPENVINO:
        profiled = profile_openvino(data, inputs, choice.arithmetic.floats)
    else:
        profiled = profile_onnxruntime(data, inputs, folder)
    blocks = network_blocks(backend.pack, name)
    precision = network_precision(choice.arithmetic, share)
    assignment = assign_nodes(profiled, blocks)
    return NetworkProfile(
        name, str(choice.arithmetic), precision, inputs.execution, len(batch), blocks, assignment, profiled
    )


def block_points(profile: NetworkProfile, ceilings: Ceilings) -> tuple[BlockPoint, ...]:
    """Each block of a network with its time and its floor, in graph order."""
    points = []
    for block, floor in zip(profile.assignment.blocks, profile.floors(ceilings), strict=True):
        whole = sum(block.operators.values())
        shares = {name: value / whole for name, value in block.operators.items()} if whole else {}
        points.append(BlockPoint(block.name, *median_interval(block.milliseconds), floor, shares))
    return tuple(points)


def raise_peaks(ceilings: Ceilings, profiles: Iterable[NetworkProfile]) -> Ceilings:
    """Return ceilings that no block of the profiles exceeds.

    On a busy machine a network may run at a better moment than the probes did. Networks in INT8 are left out:
    which of a block's layers are INT8 is not known here.
    """
    peaks = dict(ceilings.peaks)
    for profile in profiles:
        precision = profile.precision.name
        if precision not in peaks or precision == "int8":
            continue
        for block, found in zip(profile.blocks, profile.assignment.blocks, strict=True):
            shortest = min(found.milliseconds, default=0.0)
            if shortest < _TRUSTED_MS:
                continue
            rate = profile.batch * block.multiply_adds / shortest * 1e3
            if rate > peaks[precision].best:
                by = f"{profile.runs_by}, block {block.name} of {profile.name}"
                peaks[precision] = Rate(by, (*peaks[precision].rounds, rate))
    return replace(ceilings, peaks=peaks)
