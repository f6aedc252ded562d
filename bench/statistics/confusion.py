"""Confusion matrices of grades, accuracy, and sensitivity and specificity of each grade."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.bootstrap import METHOD, FloatArray, percentile_interval
from stenosis_trt.bench.statistics.estimates import CONFIDENCE, Estimate, estimate

GRADE_COUNT = 4
"""Kang grades 0 to 3."""
IntArray = npt.NDArray[np.int64]

EXACT = "exact (Clopper-Pearson), levels taken as independent"


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is told from all others; None where a share has no cases.

    Attributes:
        cases: number of cases that truly are of the class.
        sensitivity: share of these that were called so. specificity: share of all others that were not.
        positive_predictive_value, negative_predictive_value: share of calls that are right.
    """

    cases: int
    sensitivity: Estimate
    specificity: Estimate
    positive_predictive_value: Estimate
    negative_predictive_value: Estimate


def confusion_by_patient(grades: Iterable[tuple[str, int | None, int | None]]) -> IntArray:
    """Count grade pairs per patient.

    Args:
        grades: (patient, expected grade, found grade) of each level. A level without one of the two grades is
            not counted, but its patient gets a table.

    Returns:
        int64 (patients, 4, 4), rows: expected grade. Patients are in order of first appearance.
    """
    tables: dict[str, IntArray] = {}
    for patient, expected, found in grades:
        table = tables.setdefault(patient, np.zeros((GRADE_COUNT, GRADE_COUNT), np.int64))
        if expected is not None and found is not None:
            table[expected, found] += 1
    return np.stack(list(tables.values())) if tables else np.zeros((0, GRADE_COUNT, GRADE_COUNT), np.int64)


def weighted_tables(tables: IntArray, weights: IntArray) -> IntArray:
    """Return the confusion matrix of each draw.

    Args:
        tables: of each patient, int64 (patients, classes, classes).
        weights: how often each patient was drawn, int64 (rounds, patients).

    Returns:
        int64 (rounds, classes, classes).
    """
    return (weights @ tables.reshape(len(tables), -1)).reshape(-1, *tables.shape[1:])


def merge_classes(tables: IntArray, threshold: int) -> IntArray:
    """Reduce tables (…, classes, classes) to two classes: below `threshold`, and from it on."""
    parts = [slice(None, threshold), slice(threshold, None)]
    sums = [[tables[..., rows, columns].sum(axis=(-2, -1)) for columns in parts] for rows in parts]
    return np.stack([np.stack(row, axis=-1) for row in sums], axis=-2)


def accuracy(tables: npt.ArrayLike) -> FloatArray:
    """Return the share of cases on the diagonal of tables (…, classes, classes); NaN for an empty table."""
    counts = np.asarray(tables, dtype=np.float64)
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def accuracy_estimate(tables: IntArray, weights: IntArray | None = None) -> Estimate:
    """Return the accuracy with its interval.

    Args:
        tables: confusion matrix of each patient, int64 (patients, classes, classes).
        weights: draws of patients, see `bootstrap.patient_weights`; None for no interval.
    """
    total = tables.sum(axis=0)
    drawn = None if weights is None else accuracy(weighted_tables(tables, weights))
    return proportion(int(np.trace(total)), int(total.sum()), drawn)


def class_figures(tables: IntArray, index: int, weights: IntArray | None = None) -> ClassFigures:
    """Return how well the class `index` is told from all others.

    Args:
        tables: confusion matrix of each patient, int64 (patients, classes, classes), rows: truth.
        index: row and column of the class.
        weights: draws of patients; None for no intervals.
    """
    total = tables.sum(axis=0)
    draws = None if weights is None else weighted_tables(tables, weights)

    def share(numbers: slice) -> Estimate:
        hits, cases = _hits_and_cases(total, index)[numbers]
        if draws is None:
            return proportion(int(hits), int(cases))
        drawn_hits, drawn_cases = _hits_and_cases(draws, index)[numbers]
        return proportion(int(hits), int(cases), _ratio(drawn_hits, drawn_cases))

    shares = [share(slice(first, first + 2)) for first in (0, 2, 4, 6)]
    return ClassFigures(int(total[index].sum()), *shares)


def _hits_and_cases(tables: IntArray, index: int) -> list[IntArray]:
    """Numerator and denominator of sensitivity, specificity and both predictive values of (…, n, n)."""
    total = tables.sum(axis=(-2, -1))
    true = tables[..., index, :].sum(axis=-1)
    called = tables[..., :, index].sum(axis=-1)
    both = tables[..., index, index]
    neither = total - true - called + both
    return [both, true, neither, total - true, both, called, neither, total - called]


def proportion(hits: int, cases: int, drawn: FloatArray | None = None) -> Estimate:
    """Return a share with its interval.

    Args:
        hits, cases: numerator and denominator.
        drawn: the share in each draw of the bootstrap (rounds,); None for no interval.

    Returns:
        The share with the bootstrap interval. A share of 0 or 1 does not vary over the draws: there the exact
        interval of the binomial distribution stands instead (Clopper & Pearson, Biometrika 1934;26:404).
    """
    if cases == 0:
        return Estimate(None)
    if drawn is None:
        return Estimate(hits / cases)
    if hits in (0, cases):
        return estimate(hits / cases, exact_interval(hits, cases), EXACT)
    return estimate(hits / cases, percentile_interval(drawn), METHOD)


def exact_interval(hits: int, cases: int) -> tuple[float, float]:
    """Exact 95 % interval of a binomial share (Clopper & Pearson, Biometrika 1934;26:404), by SciPy."""
    from scipy.stats import binomtest

    found = binomtest(hits, cases).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def _ratio(hits: npt.ArrayLike, cases: npt.ArrayLike) -> FloatArray:
    """hits / cases, NaN where there are no cases."""
    numerator, denominator = np.asarray(hits, dtype=np.float64), np.asarray(cases, dtype=np.float64)
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0.0)
    return ratio
