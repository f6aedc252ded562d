"""How the GPU is used, and what it is used with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from stenosis_trt.engine.backends.gpu.arena import SLOT_BYTES
from stenosis_trt.engine.plans.sidecar import RuntimeTarget
from stenosis_trt.engine.plans.store import StoredPlan
from stenosis_trt.engine.trt.flavours import FLAVOURS

_LONGEST_REST_SECONDS = 86400.0
"""A GPU that is to work once a day is not kept warm by that."""


@dataclass(frozen=True)
class GpuOptions:
    """What a user may set.

    Attributes:
        flavour: of TensorRT; None for the one that has plans.
        build_missing_plans: make plans that are missing, on the spot.
        graphs: capture what is launched into CUDA graphs.
        high_priority: go before other programs' work on the same GPU.
        memory_ceiling_bytes: of the GPU's memory; None for all that is free.
        keep_warm_seconds: let the GPU work this long after its last work, again and again, so that it does
            not clock down between studies; None to let it rest.
        slot_bytes: of each of the two studies that are on the device at once, to begin with.

    Raises:
        ValueError: there is no such flavour, or it cannot be waited that long.
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
        if seconds is not None and not (math.isfinite(seconds) and 0 < seconds <= _LONGEST_REST_SECONDS):
            raise ValueError(
                f"A GPU cannot be kept warm every {seconds} seconds. Give 0 to {_LONGEST_REST_SECONDS:.0f}."
            )


@dataclass(frozen=True)
class ChosenPlans:
    """The plans of one flavour for this GPU, by model."""

    target: RuntimeTarget
    plans: Mapping[str, StoredPlan] = field(default_factory=dict)
