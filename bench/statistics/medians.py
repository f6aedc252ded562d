"""Medians of repeated measurements, with intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.bootstrap import draw_patients, percentile_interval

FEWEST = 3
"""Fewer values have no interval."""


def median_interval(values: npt.ArrayLike) -> tuple[float, float | None, float | None]:
    """Return the median of values (N,), N ≥ 1, and its 95 % interval.

    The interval is a percentile interval of the bootstrap over the values; (median, None, None) for fewer
    than three.
    """
    figures = np.asarray(values, dtype=np.float64)
    median = float(np.median(figures))
    if len(figures) < FEWEST:
        return median, None, None
    low, high = percentile_interval(np.median(figures[draw_patients(len(figures))], axis=1))
    return median, low, high
