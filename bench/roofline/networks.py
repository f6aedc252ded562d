"""Roofline of one network: its profile by block, and the floor of each block."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.roofline.blocks import BlockWork, pack_blocks
from stenosis_trt.bench.roofline.ceilings import Ceilings, Rate
from stenosis_trt.bench.roofline.floors import BlockFloor, NetworkPrecision, block_floor, parse_runs_by
from stenosis_trt.bench.roofline.matching import Assignment, assign_nodes
from stenosis_trt.bench.roofline.profiles import Run, profile_onnxruntime, profile_openvino
from stenosis_trt.bench.statistics.medians import median_interval
from stenosis_trt.engine.packs.pack import Pack

Float32Array = npt.NDArray[np.float32]

PART = 16
"""Inputs of one call of a runtime: the largest batch of the CPU backend."""


_TRUSTED_MS = 0.3
"""Shortest time of a block that a rate is computed from."""


@dataclass(frozen=True)
class NetworkProfile:
    """A network as the product runs it.

    Attributes:
        name: of the model in the pack.
        runtime: what runs it.
        precision: that it runs in.
        batch: inputs of the study.
        blocks: its work.
        assignment: time of each block.
        runs: the profile.
    """

    name: str
    runtime: str
    precision: NetworkPrecision
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


@dataclass(frozen=True)
class ProfileSettings:
    """Threads of a runtime, runs to keep, and the folder for temporary files."""

    threads: int
    runs: int
    folder: Path


def profile_network(
    pack: Pack, name: str, batch: Float32Array, runs_by: str, precision: str, settings: ProfileSettings
) -> NetworkProfile:
    """Profile a network of a pack as the product runs it.

    Args:
        pack: with its FP32 models.
        name: of the model.
        batch: its inputs of one study (N, C, H, W).
        runs_by, precision: see `floors.parse_runs_by`.
        settings: of the profile.

    Raises:
        PackError: shapes cannot be inferred from the graph.
        ValueError: nothing here profiles the runtime.
    """
    spec = pack.models[name]
    variant = spec.variants.get("int8")
    share = None if variant is None else variant.metrics.get("quantised_share")
    runtime, runs_in = parse_runs_by(runs_by, precision, share)
    blocks = pack_blocks(pack, name)
    stored = runs_in.name in spec.variants
    data = pack.read_variant(name, runs_in.name) if stored else pack.read_model(name)
    parts = [batch[first : first + PART] for first in range(0, len(batch), PART)]
    if runtime == "onnxruntime":
        runs = profile_onnxruntime(data, parts, settings.threads, settings.runs, settings.folder)
    elif runtime == "openvino":
        runs = profile_openvino(data, parts, settings.threads, settings.runs, runs_in.name)
    else:
        raise ValueError(f"Nothing here profiles {runtime}.")
    return NetworkProfile(name, runtime, runs_in, len(batch), blocks, assign_nodes(runs, blocks), runs)


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
                by = f"{profile.runtime}, block {block.name} of {profile.name}"
                peaks[precision] = Rate(by, (*peaks[precision].rounds, rate))
    return replace(ceilings, peaks=peaks)
