"""Options of the GPU backend, and the plans that it uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stenosis_trt.engine.trt.flavours import FLAVOURS

if TYPE_CHECKING:
    from stenosis_trt.engine.plans.sidecar import RuntimeTarget
    from stenosis_trt.engine.plans.store import StoredPlan

SLOT_BYTES = 32 << 20
"""Enough for most studies: 15 sagittal and 30 axial slices of 512² take 24 MB."""
_MAX_IDLE_SECONDS = 86400.0
"""Upper bound of `keep_warm_seconds`: one day."""


@dataclass(frozen=True)
class GpuOptions:
    """Options of the GPU backend.

    Attributes:
        flavour: flavour of TensorRT; None for one that has plans.
        build_missing_plans: build plans that are missing.
        graphs: capture launches into CUDA graphs.
        high_priority: use a stream of high priority.
        memory_ceiling_bytes: limit of device memory; None for all free memory.
        keep_warm_seconds: run dummy work after this idle time, so that the GPU does not clock down between
            studies; None to let it idle.
        slot_bytes: initial size of each of the two study slots on the device.

    Raises:
        ValueError: the flavour is unknown, or `keep_warm_seconds` is out of range.
    """

    flavour: str | None = None
    build_missing_plans: bool = False
    graphs: bool = True
    high_priority: bool = False
    memory_ceiling_bytes: int | None = None
    keep_warm_seconds: float | None = None
    slot_bytes: int = SLOT_BYTES

    def __post_init__(self) -> None:
        if self.flavour is not None and self.flavour not in FLAVOURS:
            raise ValueError(f"There is no flavour {self.flavour!r}. Give one of {', '.join(FLAVOURS)}.")
        seconds = self.keep_warm_seconds
        if seconds is not None and not (math.isfinite(seconds) and 0 < seconds <= _MAX_IDLE_SECONDS):
            raise ValueError(
                f"A GPU cannot be kept warm every {seconds} seconds. Give 0 to {_MAX_IDLE_SECONDS:.0f}."
            )


@dataclass(frozen=True)
class ChosenPlans:
    """Plans of one flavour for this GPU, by model."""

    target: RuntimeTarget
    plans: Mapping[str, StoredPlan] = field(default_factory=dict)
