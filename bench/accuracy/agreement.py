"""Agreement statistics: quadratic kappa with its interval, ratio errors, limits of agreement.

Users decide what is compared: `bench.accuracy.compare` results with truth, `export.precision.agreement` two
precisions of a pack, `bench.speed.suite.answers` GPU with CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GRADE_COUNT = 4
"""Kang grades 0 to 3."""
_BOOTSTRAP_ROUNDS = 1000
_NORMAL_95 = 1.96
"""Half width, in standard deviations, of the central 95 % of a normal distribution."""


@dataclass(frozen=True)
class ErrorStatistics:
    """Statistics of `measured` signed errors (measured − true), such as those of the compression ratio."""

    measured: int
    bias: float | None
    mean_absolute_error: float | None


@dataclass(frozen=True)
class BlandAltman:
    """Mean difference and 95 % limits of agreement; None where fewer than two differences are known.

    The limits are bias ± 1.96 standard deviations (Bland & Altman, Lancet 1986;327:307).
    """

    count: int
    bias: float | None
    low: float | None
    high: float | None


def confusion_by_patient(grades: Iterable[tuple[str, int | None, int | None]]) -> npt.NDArray[np.int64]:
    """Count grade pairs per patient.

    Args:
        grades: (patient, expected grade, found grade) of each level. A level without one of the two grades is
            not counted, but its patient gets a table.

    Returns:
        int64 (patients, 4, 4), rows: expected grade. Patients are in order of first appearance.
    """
    tables: dict[str, npt.NDArray[np.int64]] = {}
    for patient, expected, found in grades:
        table = tables.setdefault(patient, np.zeros((GRADE_COUNT, GRADE_COUNT), np.int64))
        if expected is not None and found is not None:
            table[expected, found] += 1
    return np.stack(list(tables.values())) if tables else np.zeros((0, GRADE_COUNT, GRADE_COUNT), np.int64)


def quadratic_kappa(confusion: npt.ArrayLike) -> float:
    """Cohen's kappa with quadratic weights (Cohen, Psychological Bulletin 1968;70:213).

    Args:
        confusion: counts (categories, categories), rows: truth.

    Returns:
        1 − Σ w·observed / Σ w·expected, with w = (row − column)². NaN where it is undefined: the table is
        empty, or both raters use one and the same category throughout.
    """
    table = np.asarray(confusion, dtype=np.float64)
    if table.sum() == 0.0:
        return float("nan")
    categories = np.arange(len(table))
    weights = (categories[:, None] - categories[None, :]) ** 2
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    disagreement = float((weights * expected).sum())
    return float("nan") if disagreement == 0.0 else 1.0 - float((weights * table).sum()) / disagreement


def kappa_interval(tables: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % confidence interval of the quadratic kappa, by percentile bootstrap over patients.

    Levels of one patient are not independent, so patients are resampled (Efron & Tibshirani, An Introduction
    to the Bootstrap, 1993, ch. 13). The seed is fixed, so that the interval is reproducible.

    Args:
        tables: confusion matrix of each patient, int64 (patients, categories, categories).

    Returns:
        (low, high); NaN where there is no patient or kappa is undefined in every draw.
    """
    if len(tables) == 0:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    draws = rng.integers(len(tables), size=(_BOOTSTRAP_ROUNDS, len(tables)))
    kappas = np.array([quadratic_kappa(tables[draw].sum(axis=0)) for draw in draws])
    known = kappas[np.isfinite(kappas)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


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


def bland_altman(differences: npt.ArrayLike) -> BlandAltman:
    """Bias and limits of agreement of signed differences (N,); see `BlandAltman`."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return BlandAltman(len(values), None, None, None)
    bias, spread = float(values.mean()), _NORMAL_95 * float(values.std(ddof=1))
    return BlandAltman(len(values), bias, bias - spread, bias + spread)
