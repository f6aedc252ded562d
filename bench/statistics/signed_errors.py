"""Signed errors of a measurement, found − expected, and shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ErrorStatistics:
    """Statistics of `measured` signed errors (measured − true), such as those of the compression ratio."""

    measured: int
    bias: float | None
    mean_absolute_error: float | None


def share(hits: Iterable[bool]) -> float | None:
    """Share of true values; None for no values."""
    values = list(hits)
    return sum(values) / len(values) if values else None


def error_statistics(errors: npt.ArrayLike) -> ErrorStatistics:
    """Bias and mean absolute error of signed errors (N,)."""
    values = np.asarray(errors, dtype=np.float64)
    if len(values) == 0:
        return ErrorStatistics(0, None, None)
    return ErrorStatistics(len(values), float(values.mean()), float(np.abs(values).mean()))
