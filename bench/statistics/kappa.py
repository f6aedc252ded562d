"""Cohen's kappa, unweighted and weighted, and the difference of two kappas, with bootstrap intervals.

Categories are the rows of the table, so they are fixed: a grade that nobody gave counts with its place, and
weights do not shrink with the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.bootstrap import (
    ROUNDS,
    FloatArray,
    bootstrap_p_value,
    estimate_from_draws,
    patient_weights,
    percentile_interval,
)
from stenosis_trt.bench.statistics.confusion import IntArray, weighted_tables
from stenosis_trt.bench.statistics.estimates import Estimate, known

WEIGHTINGS = ("unweighted", "linear", "quadratic")
"""Names of the weightings: every disagreement the same, |row − column|, (row − column)²."""


@dataclass(frozen=True)
class KappaDifference:
    """Difference of two kappas of the same cases, first − second.

    Attributes:
        first, second: the two kappas with their intervals.
        difference: with its interval, by a bootstrap that draws the same patients for both.
        p_value: two-sided, of the hypothesis of no difference; None where it is undefined.
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    p_value: float | None


def disagreement_weights(categories: int, weighting: str) -> FloatArray:
    """Return the weight of each cell, float64 (categories, categories); 0 on the diagonal.

    Args:
        categories: number of categories, in their order.
        weighting: one of `WEIGHTINGS`.

    Raises:
        ValueError: the weighting has another name.
    """
    places = np.arange(categories, dtype=np.float64)
    distance = np.abs(places[:, None] - places[None, :])
    if weighting == "unweighted":
        return (distance > 0).astype(np.float64)
    if weighting == "linear":
        return distance
    if weighting == "quadratic":
        return distance**2
    raise ValueError(f"There is no weighting {weighting!r}. Give one of {', '.join(WEIGHTINGS)}.")


def weighted_kappa(confusion: npt.ArrayLike, weights: npt.ArrayLike) -> FloatArray:
    """Cohen's kappa with any weights of disagreement (Cohen, Psychological Bulletin 1968;70:213).

    Args:
        confusion: counts (…, categories, categories), rows: truth or first rater.
        weights: of disagreement (categories, categories), 0 on the diagonal.

    Returns:
        1 − Σ w·observed / Σ w·expected, float64 (…). NaN where it is undefined: the table is empty, or both
        raters use one and the same category throughout.
    """
    tables, cost = np.asarray(confusion, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    total = tables.sum(axis=(-2, -1))
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    observed = (cost * tables).sum(axis=(-2, -1)) * total
    expected = np.einsum("...i,ij,...j->...", rows, cost, columns)
    ratio = np.divide(observed, expected, out=np.full(total.shape, np.nan), where=expected > 0.0)
    return np.asarray(1.0 - ratio)


def kappa(confusion: npt.ArrayLike, weighting: str) -> float:
    """Cohen's kappa of one table with a weighting of `WEIGHTINGS`; see `weighted_kappa`."""
    table = np.asarray(confusion)
    return float(weighted_kappa(table, disagreement_weights(len(table), weighting)))


def quadratic_kappa(confusion: npt.ArrayLike) -> float:
    """Cohen's kappa with quadratic weights; see `weighted_kappa`."""
    return kappa(confusion, "quadratic")


def kappa_interval(
    tables: IntArray, weighting: str = "quadratic", rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float]:
    """95 % confidence interval of kappa, by percentile bootstrap over patients.

    The seed is fixed, so that the interval is reproducible.

    Args:
        tables: confusion matrix of each patient, int64 (patients, categories, categories).
        weighting: one of `WEIGHTINGS`.
        rounds, seed: of the bootstrap.

    Returns:
        (low, high); NaN where there is no patient or kappa is undefined in every draw.
    """
    if len(tables) == 0:
        return float("nan"), float("nan")
    return percentile_interval(_drawn(tables, weighting, patient_weights(len(tables), rounds, seed)))


def kappa_estimate(tables: IntArray, weighting: str, weights: IntArray | None = None) -> Estimate:
    """Return kappa with its interval.

    Args:
        tables: confusion matrix of each patient, int64 (patients, categories, categories).
        weighting: one of `WEIGHTINGS`.
        weights: draws of patients, see `bootstrap.patient_weights`; None for no interval.
    """
    value = kappa(tables.sum(axis=0), weighting)
    if weights is None:
        return Estimate(known(value))
    return estimate_from_draws(value, _drawn(tables, weighting, weights))


def kappa_difference(
    first: IntArray, second: IntArray, weighting: str, weights: IntArray | None = None
) -> KappaDifference:
    """Compare two kappas of the same cases, such as those of two raters with one truth.

    Args:
        first, second: confusion matrices of each patient, int64 (patients, categories, categories), of the
            same patients in the same order.
        weighting: one of `WEIGHTINGS`.
        weights: draws of patients, the same for both; None for no intervals.
    """
    one, two = (kappa_estimate(tables, weighting, weights) for tables in (first, second))
    value = kappa(first.sum(axis=0), weighting) - kappa(second.sum(axis=0), weighting)
    if weights is None:
        return KappaDifference(one, two, Estimate(known(value)), None)
    drawn = _drawn(first, weighting, weights) - _drawn(second, weighting, weights)
    difference = estimate_from_draws(value, drawn)
    return KappaDifference(one, two, difference, known(bootstrap_p_value(drawn)))


def _drawn(tables: IntArray, weighting: str, weights: IntArray) -> FloatArray:
    """Kappa of each draw (rounds,)."""
    return weighted_kappa(weighted_tables(tables, weights), disagreement_weights(tables.shape[-1], weighting))
