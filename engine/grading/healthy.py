"""The cord of a level compared with that of healthy adults: z-scores and percentiles.

The norms are of 203 adults of 19 to 52 years (`norms/healthy_cord.json`, made by
`bench.accuracy.healthy_norms`); nobody older is among them, and the cord thins with age.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from stenosis_trt.engine.grading.across import CrossSection
from stenosis_trt.engine.records import HealthyComparison

QUANTITIES = ("compression_ratio", "ap_mm", "transverse_mm")

MAX_TILT_DEGREES = 30.0
"""Beyond this the diameter across the cord rests more on the line of the canal than on the image."""


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
    """Return the norms by level and quantity: compression_ratio, ap_mm, transverse_mm."""
    file = resources.files("stenosis_trt.engine.grading") / "norms" / "healthy_cord.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    return {
        level: {
            name: Norm(item["mean"], item["sd"], tuple(item["percentiles"]))
            for name, item in quantities.items()
        }
        for level, quantities in content["levels"].items()
    }


def compare_with_healthy(level: str, section: CrossSection) -> HealthyComparison | None:
    """Return z-scores and percentiles of the cord at a level.

    Args:
        level: one of LEVELS.
        section: the cord across itself, on the slice of maximal compression near the level, from a
            measurement without warnings.

    Returns:
        None if the slice is too oblique. Quantities that are not to be trusted are None.
    """
    if section.tilt_degrees > MAX_TILT_DEGREES:
        return None
    values = (section.compression_ratio, section.ap_mm, section.transverse_mm)
    found = {
        name: (norm.z_score(value), norm.percentile(value))
        for name, value in zip(QUANTITIES, values, strict=True)
        if (norm := healthy_norms()[level].get(name)) is not None
    }
    nothing = (None, None)
    ratio, ap, transverse = (found.get(name, nothing) for name in QUANTITIES)
    return HealthyComparison(
        compression_ratio_z=ratio[0],
        ap_z=ap[0],
        transverse_z=transverse[0],
        compression_ratio_percentile=ratio[1],
        ap_percentile=ap[1],
        transverse_percentile=transverse[1],
    )
