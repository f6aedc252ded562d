"""The cord of a level compared with that of healthy adults: z-scores and percentiles.

The norms are of 203 adults of 19 to 52 years (`norms/healthy_cord.json`, made by
`bench.accuracy.healthy_norms`); nobody older is among them. They were measured across the cord, so what is
compared are diameters across the cord, as `cord` measures them.

No z-score is given where the measurement is too far from what the norms would have measured: where its bias
exceeds half a standard deviation of the norm, or its mean absolute error a whole one. Both were measured with
the reference pack (`norms/measured_bias.json`, made by `bench.accuracy.healthy_bias`). Of another cord model
nothing is known, so it gets no z-score at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from stenosis_trt.engine.records import CordMeasurement, HealthyComparison

_VALUES: dict[str, Callable[[CordMeasurement], float]] = {
    "compression_ratio": lambda cord: cord.compression_ratio,
    "ap_mm": lambda cord: cord.ap_mm,
    "transverse_mm": lambda cord: cord.transverse_mm,
}

QUANTITIES = tuple(_VALUES)
"""What is compared: compression_ratio, ap_mm, transverse_mm."""

MAX_ANGLE_DEGREES = 30.0
"""Nothing is compared on a slice that is more oblique: the bias was measured up to this angle, and beyond it
the diameter across the cord rests more on the line of the canal than on the image."""

_MAX_BIAS_SD = 0.5
_MAX_ABSOLUTE_ERROR_SD = 1.0

_BIAS_ON_UNSEEN = {"compression_ratio": 0.010, "ap_mm": 0.40}
"""Bias on three healthy volumes, each by a pack that was trained without it, against their masks: of the
ratio the middle of −0.015 to +0.034; of the anteroposterior diameter, from −0.40 to +0.40 mm, the largest.
The reference pack has learnt from the volumes of `measured_bias.json`."""


@dataclass(frozen=True)
class Norm:
    """Distribution of one quantity of healthy adults at one level.

    Attributes:
        mean, sd: mean and standard deviation.
        percentiles: values of the percentiles 0, 1, … 100.
    """

    mean: float
    sd: float
    percentiles: tuple[float, ...]

    def z_score(self, value: float) -> float:
        """Return (value − mean) / standard deviation."""
        return (value - self.mean) / self.sd

    def percentile(self, value: float) -> float:
        """Return the share of healthy adults with a lower value in percent, 0 to 100."""
        percents = np.linspace(0.0, 100.0, len(self.percentiles))
        return float(np.interp(value, self.percentiles, percents))


@cache
def healthy_norms() -> dict[str, dict[str, Norm]]:
    """Return the norms of each of QUANTITIES by level, whether they are to be trusted or not."""
    return {
        level: {
            name: Norm(item["mean"], item["sd"], tuple(item["percentiles"]))
            for name, item in quantities.items()
        }
        for level, quantities in _file("healthy_cord.json")["levels"].items()
    }


@cache
def was_measured(cord_model_sha256: str) -> bool:
    """Return True if the bias was measured with a cord model.

    Args:
        cord_model_sha256: `ModelSpec.fp32_sha256`. A variant in another precision has passed the gate.
    """
    return bool(_file("measured_bias.json")["cord_model"] == cord_model_sha256)


@cache
def is_comparable(level: str, quantity: str) -> bool:
    """Return True if the program measures a quantity at a level well enough to be compared with the norm."""
    measured = _file("measured_bias.json")["levels"][level][quantity]
    unseen_sd = _BIAS_ON_UNSEEN.get(quantity, 0.0) / healthy_norms()[level][quantity].sd
    return (
        abs(measured["bias_sd"]) <= _MAX_BIAS_SD
        and measured["mean_absolute_error_sd"] <= _MAX_ABSOLUTE_ERROR_SD
        and abs(unseen_sd) <= _MAX_BIAS_SD
    )


def compare_with_healthy(level: str, cord: CordMeasurement) -> HealthyComparison | None:
    """Return z-scores and percentiles of the cord at a level.

    Args:
        level: one of LEVELS.
        cord: the cord on the slice of maximal compression near the level, measured without warnings.

    Returns:
        None if the slice is too oblique. Quantities that are not comparable are None.
    """
    if cord.slice_angle_degrees > MAX_ANGLE_DEGREES:
        return None
    norms = healthy_norms()[level]
    comparable = {name: get(cord) for name, get in _VALUES.items() if is_comparable(level, name)}
    z = {name: norms[name].z_score(value) for name, value in comparable.items()}
    percentiles = {name: norms[name].percentile(value) for name, value in comparable.items()}
    return HealthyComparison(
        compression_ratio_z=z.get("compression_ratio"),
        ap_z=z.get("ap_mm"),
        transverse_z=z.get("transverse_mm"),
        compression_ratio_percentile=percentiles.get("compression_ratio"),
        ap_percentile=percentiles.get("ap_mm"),
        transverse_percentile=percentiles.get("transverse_mm"),
    )


def _file(name: str) -> Any:
    file = resources.files("stenosis_trt.engine.grading") / "norms" / name
    return json.loads(file.read_text(encoding="utf-8"))
