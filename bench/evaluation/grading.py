"""Figures of grades: each rater against the truth, raters with one another, differences between raters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from stenosis_trt.bench.evaluation.cohort import Cohort, Ratings, confusion_tables
from stenosis_trt.bench.evaluation.draws import Draws
from stenosis_trt.bench.statistics.bootstrap import estimate_from_draws
from stenosis_trt.bench.statistics.confusion import (
    GRADE_COUNT,
    ClassFigures,
    IntArray,
    accuracy,
    accuracy_estimate,
    class_figures,
    merge_classes,
    proportion,
    weighted_tables,
)
from stenosis_trt.bench.statistics.estimates import Estimate
from stenosis_trt.bench.statistics.kappa import WEIGHTINGS, KappaDifference, kappa_difference, kappa_estimate
from stenosis_trt.bench.statistics.multiple_comparisons import holm
from stenosis_trt.bench.statistics.roc import AreaUnderCurve, area_under_curve

POSITIVE_FROM = 2
"""Grade from which a level is positive: the cord is deformed."""
PRIMARY = "quadratic"
"""Weighting of the kappa by which model and readers are compared."""


@dataclass(frozen=True)
class RaterFigures:
    """One rater against the truth.

    Attributes:
        rater: name. patients, levels: graded by both.
        not_graded: levels with a true grade that the rater did not grade.
        accuracy: share of `levels` with the true grade.
        accuracy_of_all: the same with the levels that were not graded counted as wrong.
        confusion: counts, rows: truth, columns: rater; grades 0 to 3.
        classes: of each grade against all others.
        grade_2_or_3: of grades 2 and 3 against 0 and 1.
        kappas: by name of the weighting.
    """

    rater: str
    patients: int
    levels: int
    not_graded: int
    accuracy: Estimate
    accuracy_of_all: Estimate
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassFigures, ...]
    grade_2_or_3: ClassFigures
    kappas: dict[str, Estimate]


@dataclass(frozen=True)
class PairFigures:
    """Agreement of two raters, neither of which is the truth."""

    first: str
    second: str
    patients: int
    levels: int
    same_grade: Estimate
    kappas: dict[str, Estimate]


@dataclass(frozen=True)
class RaterDifference:
    """Two raters compared by their agreement with the truth, first − second, on levels that all three graded.

    Attributes:
        kappas: differences by name of the weighting.
        accuracy: difference of accuracies.
        adjusted_p_value: of the quadratic kappa, Holm's over all readers compared with the model; None for a
            pair of readers, which is not tested.
    """

    first: str
    second: str
    patients: int
    levels: int
    kappas: dict[str, KappaDifference]
    accuracy: Estimate
    adjusted_p_value: float | None


def rater_figures(cohort: Cohort, rater: Ratings, draws: Draws) -> RaterFigures:
    """Compare one rater with the truth."""
    truth = cohort.truth
    both = truth.graded & rater.graded
    tables = confusion_tables(cohort, truth.grades, rater.grades, both)
    weights = draws.of(len(tables))
    total = tables.sum(axis=0)
    return RaterFigures(
        rater=rater.name,
        patients=len(tables),
        levels=int(total.sum()),
        not_graded=int(np.count_nonzero(truth.graded & ~rater.graded)),
        accuracy=accuracy_estimate(tables, weights),
        accuracy_of_all=_accuracy_of_all(cohort, rater, draws),
        confusion=tuple(tuple(int(count) for count in row) for row in total),
        classes=tuple(class_figures(tables, grade, weights) for grade in range(GRADE_COUNT)),
        grade_2_or_3=class_figures(merge_classes(tables, POSITIVE_FROM), 1, weights),
        kappas={weighting: kappa_estimate(tables, weighting, weights) for weighting in WEIGHTINGS},
    )


def pair_figures(cohort: Cohort, draws: Draws) -> tuple[PairFigures, ...]:
    """Agreement of model and readers with one another. A pair without common levels is left out."""
    found = []
    for first, second in combinations((cohort.model, *cohort.readers), 2):
        tables = confusion_tables(cohort, first.grades, second.grades, first.graded & second.graded)
        if not len(tables):
            continue
        weights = draws.of(len(tables))
        found.append(
            PairFigures(
                first=first.name,
                second=second.name,
                patients=len(tables),
                levels=int(tables.sum()),
                same_grade=accuracy_estimate(tables, weights),
                kappas={name: kappa_estimate(tables, name, weights) for name in WEIGHTINGS},
            )
        )
    return tuple(found)


def rater_differences(cohort: Cohort, draws: Draws) -> tuple[RaterDifference, ...]:
    """Compare the model with each reader, and readers with one another; p-values of the former are
    adjusted."""
    differences = [
        difference
        for first, second in combinations((cohort.model, *cohort.readers), 2)
        if (difference := _difference(cohort, first, second, draws)) is not None
    ]
    tested = [item for item in differences if item.first == cohort.model.name]
    adjusted = iter(holm([item.kappas[PRIMARY].p_value for item in tested]))
    return tuple(
        replace(item, adjusted_p_value=next(adjusted)) if item.first == cohort.model.name else item
        for item in differences
    )


def area_of_model(cohort: Cohort, draws: Draws) -> AreaUnderCurve:
    """Area under the ROC curve of the model's probability of grade 2 or 3 for a true grade of 2 or 3."""
    used = cohort.truth.graded & np.isfinite(cohort.model.p_grade_2_or_3)
    patients, index = np.unique(cohort.patients[used], return_inverse=True)
    return area_under_curve(
        cohort.truth.grades[used] >= POSITIVE_FROM,
        cohort.model.p_grade_2_or_3[used],
        index.astype(np.int64),
        draws.of(len(patients)),
    )


def _difference(cohort: Cohort, first: Ratings, second: Ratings, draws: Draws) -> RaterDifference | None:
    where = cohort.truth.graded & first.graded & second.graded
    one, two = (
        confusion_tables(cohort, cohort.truth.grades, rater.grades, where) for rater in (first, second)
    )
    if not len(one):
        return None
    weights = draws.of(len(one))
    return RaterDifference(
        first=first.name,
        second=second.name,
        patients=len(one),
        levels=int(one.sum()),
        kappas={name: kappa_difference(one, two, name, weights) for name in WEIGHTINGS},
        accuracy=_accuracy_difference(one, two, weights),
        adjusted_p_value=None,
    )


def _accuracy_difference(one: IntArray, two: IntArray, weights: IntArray | None) -> Estimate:
    value = float(accuracy(one.sum(axis=0)) - accuracy(two.sum(axis=0)))
    if weights is None:
        return Estimate(value)
    drawn = accuracy(weighted_tables(one, weights)) - accuracy(weighted_tables(two, weights))
    return estimate_from_draws(value, drawn)


def _accuracy_of_all(cohort: Cohort, rater: Ratings, draws: Draws) -> Estimate:
    graded = cohort.truth.graded
    right = graded & (rater.grades == cohort.truth.grades)
    _, index = np.unique(cohort.patients[graded], return_inverse=True)
    cases, hits = np.bincount(index), np.bincount(index, weights=right[graded])
    weights = draws.of(len(cases))
    drawn = None if weights is None else (weights @ hits) / (weights @ cases)
    return proportion(int(right.sum()), int(graded.sum()), drawn)
