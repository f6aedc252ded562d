"""Pearson and Spearman correlations with intervals, and tests between two correlations of the same subjects.

A dependent comparison asks whether one variable (a clinical score) correlates more with a first rater than
with a
second: r(score, first) against r(score, second), given r(first, second).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.estimates import CONFIDENCE, Estimate, estimate

PEARSON_METHOD = "Fisher's z"
SPEARMAN_METHOD = "Fisher's z with the variance of Bonett & Wright 2000"
ZOU_METHOD = "Zou 2007"
_FEWEST = 4
"""Fisher's z needs N > 3."""


@dataclass(frozen=True)
class Correlation:
    """A correlation of N subjects with its interval and two-sided p-value; None where it is undefined."""

    subjects: int
    coefficient: Estimate
    p_value: float | None


@dataclass(frozen=True)
class CorrelationDifference:
    """Two dependent correlations that share a variable, first − second.

    Attributes:
        difference: with the interval of Zou, Psychological Methods 2007;12:399.
        williams_t, williams_p: test of Williams (1959), N − 3 degrees of freedom, as Steiger, Psychological
            Bulletin 1980;87:245, recommends it.
        steiger_z, steiger_p: Steiger's modification (1980) of Dunn & Clark's z with the mean correlation.
    """

    subjects: int
    first: float
    second: float
    between: float
    difference: Estimate
    williams_t: float
    williams_p: float
    steiger_z: float
    steiger_p: float


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> Correlation:
    """Pearson's r of two variables (N,), by SciPy; undefined for N < 4 or a constant variable."""
    from scipy.stats import pearsonr

    one, two = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if _undefined(one, two):
        return Correlation(len(one), Estimate(None), None)
    found = pearsonr(one, two)
    interval = found.confidence_interval(CONFIDENCE)
    coefficient = estimate(float(found.statistic), (interval.low, interval.high), PEARSON_METHOD)
    return Correlation(len(one), coefficient, float(found.pvalue))


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> Correlation:
    """Spearman's rho of two variables (N,), by SciPy; undefined for N < 4 or a constant variable.

    The p-value is that of the t distribution. The interval is on Fisher's scale with the variance
    (1 + rho²/2) / (N − 3): Bonett & Wright, Psychometrika 2000;65:23.
    """
    from scipy.stats import norm, spearmanr

    one, two = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if _undefined(one, two):
        return Correlation(len(one), Estimate(None), None)
    found = spearmanr(one, two)
    rho = float(found.statistic)
    if abs(rho) >= 1.0:
        return Correlation(len(one), Estimate(rho), float(found.pvalue))
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt((1 + rho**2 / 2) / (len(one) - 3))
    interval = (math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half))
    return Correlation(len(one), estimate(rho, interval, SPEARMAN_METHOD), float(found.pvalue))


def compare_correlations(first: float, second: float, between: float, subjects: int) -> CorrelationDifference:
    """Compare two correlations of the same subjects that share a variable.

    Args:
        first, second: r(shared, one) and r(shared, other).
        between: r(one, other).
        subjects: N, at least 4.

    Raises:
        ValueError: N is too small, or a correlation is ±1 or beyond, for which there is no test.
    """
    from scipy.stats import norm, t

    if subjects < _FEWEST:
        raise ValueError("Comparing two correlations needs at least four subjects.")
    if max(abs(first), abs(second), abs(between)) >= 1.0:
        raise ValueError("Correlations of ±1 cannot be compared.")
    n, mean = subjects, (first + second) / 2
    determinant = 1 - first**2 - second**2 - between**2 + 2 * first * second * between
    scale = 2 * (n - 1) / (n - 3) * determinant + mean**2 * (1 - between) ** 3
    williams = (first - second) * math.sqrt((n - 1) * (1 + between) / scale)
    shift = math.atanh(first) - math.atanh(second)
    steiger = shift * math.sqrt((n - 3) / (2 - 2 * _dependence(mean, mean, between)))
    return CorrelationDifference(
        subjects=n,
        first=first,
        second=second,
        between=between,
        difference=estimate(first - second, _zou(first, second, between, n), ZOU_METHOD),
        williams_t=williams,
        williams_p=float(2 * t.sf(abs(williams), n - 3)),
        steiger_z=steiger,
        steiger_p=float(2 * norm.sf(abs(steiger))),
    )


def _dependence(first: float, second: float, between: float) -> float:
    """Asymptotic correlation of two overlapping correlations (Pearson & Filon 1898; Steiger 1980, eq. 3)."""
    covariance = between * (1 - first**2 - second**2)
    covariance -= first * second * (1 - first**2 - second**2 - between**2) / 2
    return covariance / ((1 - first**2) * (1 - second**2))


def _zou(first: float, second: float, between: float, n: int) -> tuple[float, float]:
    """Interval of a difference of overlapping correlations (Zou 2007)."""
    from scipy.stats import norm

    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) / math.sqrt(n - 3)
    low1, high1 = math.tanh(math.atanh(first) - half), math.tanh(math.atanh(first) + half)
    low2, high2 = math.tanh(math.atanh(second) - half), math.tanh(math.atanh(second) + half)
    shared = 2 * _dependence(first, second, between)
    below, above = (first - low1, high2 - second), (high1 - first, second - low2)
    return (
        first - second - math.sqrt(max(0.0, below[0] ** 2 + below[1] ** 2 - shared * below[0] * below[1])),
        first - second + math.sqrt(max(0.0, above[0] ** 2 + above[1] ** 2 - shared * above[0] * above[1])),
    )


def _undefined(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> bool:
    return len(x) < _FEWEST or bool(np.ptp(x) == 0.0) or bool(np.ptp(y) == 0.0)
