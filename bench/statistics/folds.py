"""Figures of each fold of a cross-validation, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.statistics.confusion import IntArray, accuracy
from stenosis_trt.bench.statistics.estimates import known
from stenosis_trt.bench.statistics.kappa import kappa


@dataclass(frozen=True)
class FoldFigures:
    """Accuracy and quadratic kappa of one fold; None where they are undefined."""

    fold: str
    patients: int
    levels: int
    accuracy: float | None
    quadratic_kappa: float | None


@dataclass(frozen=True)
class FoldTable:
    """Figures of each fold, their mean over folds and their standard deviation (folds − 1).

    The standard deviation describes the spread of folds. It gives no interval: training sets of folds overlap
    (Bengio & Grandvalet, JMLR 2004;5:1089).
    """

    folds: tuple[FoldFigures, ...]
    mean_accuracy: float | None
    sd_accuracy: float | None
    mean_quadratic_kappa: float | None
    sd_quadratic_kappa: float | None


def fold_table(tables: IntArray, folds: Sequence[str]) -> FoldTable:
    """Return the figures of each fold.

    Args:
        tables: confusion matrix of each patient, int64 (patients, classes, classes).
        folds: name of the fold of each patient.
    """
    names = np.asarray(folds, dtype=object)
    figures = []
    for fold in sorted(set(folds), key=lambda name: (len(name), name)):
        of_fold = tables[names == fold]
        total = of_fold.sum(axis=0)
        figures.append(
            FoldFigures(
                fold=fold,
                patients=len(of_fold),
                levels=int(total.sum()),
                accuracy=known(float(accuracy(total))),
                quadratic_kappa=known(kappa(total, "quadratic")),
            )
        )
    accuracies, kappas = [item.accuracy for item in figures], [item.quadratic_kappa for item in figures]
    return FoldTable(tuple(figures), *_mean_and_sd(accuracies), *_mean_and_sd(kappas))


def _mean_and_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    found = [value for value in values if value is not None]
    if not found:
        return None, None
    return float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else None
