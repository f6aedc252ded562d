"""Correlation of each rater with clinical scores, and tests between these correlations.

A subject of a correlation is a patient, or a study, whichever the file of scores names. Its value is the
highest grade over its levels, and the lowest compression ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stenosis_trt.bench.evaluation.cohort import FEWEST_PATIENTS, Cohort, Ratings
from stenosis_trt.bench.evaluation.csv_tables import CsvFile, CsvRow, read_csv
from stenosis_trt.bench.statistics.correlation import (
    Correlation,
    CorrelationDifference,
    compare_correlations,
    pearson,
    spearman,
)
from stenosis_trt.bench.statistics.estimates import Estimate
from stenosis_trt.bench.statistics.multiple_comparisons import holm
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.support.safe_text import escape_controls

HIGHEST_GRADE, LOWEST_RATIO = "highest grade", "lowest compression ratio"
PATIENT_COLUMNS = ("patient_id", "study_uid")
"""Columns that name the subject of a row of scores or folds; the first that is there is used."""

Values = dict[str, float]
"""Value by subject."""


@dataclass(frozen=True)
class Scores:
    """Clinical scores.

    Attributes:
        key: column that names subjects, `patient_id` or `study_uid`.
        values: value by subject, by name of the score.
    """

    key: str
    values: dict[str, Values]


@dataclass(frozen=True)
class ScoreCorrelation:
    """Correlation of one score with one quantity of one rater."""

    score: str
    rater: str
    quantity: str
    pearson: Correlation
    spearman: Correlation


@dataclass(frozen=True)
class ScoreDifference:
    """Correlation of the model with a score against that of another rater, by Pearson's r, on their subjects.

    Attributes:
        result: the tests; None where a correlation is undefined.
        adjusted_williams_p: Holm's over all rows.
    """

    score: str
    quantity: str
    first: str
    second: str
    result: CorrelationDifference | None
    adjusted_williams_p: float | None


def read_scores(path: Path) -> Scores:
    """Read a file of scores: `patient_id` or `study_uid`, and a column of numbers for each score.

    Raises:
        InputError: a column is missing or not numeric, or a subject has two rows.
        OSError: the file cannot be read.
    """
    table = read_csv(path)
    key = key_column(table)
    names = [name for name in table.columns if name and name not in PATIENT_COLUMNS]
    if not names:
        raise InputError(f"{table.name} has no column of a score.", "Give a column for each score.")
    rows = rows_by_subject(table, key)
    values: dict[str, Values] = {escape_controls(name): {} for name in names}
    for subject, row in rows.items():
        for name in names:
            value = table.number(row, name, -math.inf, math.inf)
            if value is not None:
                values[escape_controls(name)][subject] = value
    return Scores(key, values)


def key_column(table: CsvFile) -> str:
    """Return the column that names subjects.

    Raises:
        InputError: there is none.
    """
    found = [name for name in PATIENT_COLUMNS if name in table.columns]
    if not found:
        raise InputError(f"{table.name} has neither patient_id nor study_uid.", "Add one of the columns.")
    return found[0]


def rows_by_subject(table: CsvFile, key: str) -> dict[str, CsvRow]:
    """Return the row of each subject.

    Raises:
        InputError: a row names no subject, or one that an earlier row named.
    """
    rows: dict[str, CsvRow] = {}
    for row in table.rows:
        subject = row.cells.get(key, "")
        if not subject:
            raise InputError(f"{table.name}, line {row.line}: {key} is empty.", "Fill it in.")
        if subject in rows:
            raise InputError(
                f"{table.name}, lines {rows[subject].line} and {row.line} have the same {key}.",
                "Leave one row for each.",
            )
        rows[subject] = row
    return rows


def score_correlations(cohort: Cohort, scores: Scores) -> tuple[ScoreCorrelation, ...]:
    """Correlate each score with each rater's highest grade and lowest ratio.

    Raises:
        InputError: no subject of the scores is in the cohort.
    """
    subjects = _subjects(cohort, scores.key)
    if not set(subjects).intersection(*[set().union(*scores.values.values())]):
        raise InputError(
            f"No {scores.key} of the scores is in the truth.",
            "Give scores of the same subjects, with the identifiers of the truth.",
        )
    found = []
    for score, values in scores.values.items():
        for quantity in (HIGHEST_GRADE, LOWEST_RATIO):
            for rater in (cohort.model, cohort.truth, *cohort.readers):
                ratings = _quantity(rater, subjects, quantity)
                common = [subject for subject in ratings if subject in values]
                if not common:
                    continue
                x, y = ([table[subject] for subject in common] for table in (values, ratings))
                found.append(
                    ScoreCorrelation(
                        score, rater.name, quantity, _correlate(pearson, x, y), _correlate(spearman, x, y)
                    )
                )
    return tuple(found)


def score_differences(cohort: Cohort, scores: Scores) -> tuple[ScoreDifference, ...]:
    """Test the model's correlation with each score against that of the truth and each reader."""
    subjects = _subjects(cohort, scores.key)
    found = []
    for score, values in scores.values.items():
        for quantity in (HIGHEST_GRADE, LOWEST_RATIO):
            model = _quantity(cohort.model, subjects, quantity)
            for rater in (cohort.truth, *cohort.readers):
                other = _quantity(rater, subjects, quantity)
                common = [subject for subject in model if subject in other and subject in values]
                if not other:
                    continue
                result = _compare(*([table[key] for key in common] for table in (values, model, other)))
                found.append(ScoreDifference(score, quantity, cohort.model.name, rater.name, result, None))
    adjusted = holm([item.result.williams_p if item.result else None for item in found])
    return tuple(
        replace(item, adjusted_williams_p=p_value) for item, p_value in zip(found, adjusted, strict=True)
    )


def _subjects(cohort: Cohort, key: str) -> dict[str, list[int]]:
    """Indices of the levels of each subject."""
    found: dict[str, list[int]] = {}
    for place, (study, _) in enumerate(cohort.keys):
        name = study if key == "study_uid" else cohort.patient_names[int(cohort.patients[place])]
        found.setdefault(name, []).append(place)
    return found


def _quantity(rater: Ratings, subjects: Mapping[str, Sequence[int]], quantity: str) -> Values:
    found: Values = {}
    for subject, places in subjects.items():
        if quantity == HIGHEST_GRADE:
            highest = int(rater.grades[places].max())
            if highest >= 0:
                found[subject] = float(highest)
        else:
            ratios = rater.measures[0][places]
            if np.isfinite(ratios).any():
                found[subject] = float(np.nanmin(ratios))
    return found


def _correlate(
    method: Callable[[Sequence[float], Sequence[float]], Correlation], x: Sequence[float], y: Sequence[float]
) -> Correlation:
    found = method(x, y)
    if len(x) < FEWEST_PATIENTS:
        return Correlation(len(x), Estimate(found.coefficient.value), None)
    return found


def _compare(
    values: Sequence[float], model: Sequence[float], other: Sequence[float]
) -> CorrelationDifference | None:
    """The tests; None below ten subjects, or where a correlation is undefined or ±1."""
    if len(values) < FEWEST_PATIENTS:
        return None
    found = [pearson(x, y).coefficient.value for x, y in ((values, model), (values, other), (model, other))]
    first, second, between = found
    if first is None or second is None or between is None or max(map(abs, (first, second, between))) >= 1.0:
        return None
    return compare_correlations(first, second, between, len(values))
