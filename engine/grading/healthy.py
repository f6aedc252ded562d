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

from stenosis_trt.engine.records import CordMeasurement, HealthyComparison


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


def compare_with_healthy(level: str, cord: CordMeasurement | None) -> HealthyComparison | None:
    """Return z-scores and percentiles of a level's cord.

    Args:
        level: one of LEVELS.
        cord: its measurement.

    Returns:
        None without a measurement, or if the measurement has a warning.
    """
    if cord is None or cord.warnings:
        return None
    ratio, ap, transverse = (
        healthy_norms()[level][name] for name in ("compression_ratio", "ap_mm", "transverse_mm")
    )
    return HealthyComparison(
        compression_ratio_z=ratio.z_score(cord.compression_ratio),
        ap_z=ap.z_score(cord.ap_mm),
        transverse_z=transverse.z_score(cord.transverse_mm),
        compression_ratio_percentile=ratio.percentile(cord.compression_ratio),
        ap_percentile=ap.percentile(cord.ap_mm),
        transverse_percentile=transverse.percentile(cord.transverse_mm),
    )
