"""The rows of results.csv, errors.csv and studies.csv."""

from __future__ import annotations

from collections.abc import Iterator

from stenosis_trt.engine.records import LEVEL_COLUMNS, LevelResult, Problem, StudyResult
from stenosis_trt.engine.runs.stored_results import StoredStudy
from stenosis_trt.engine.support.safe_text import escape_controls

Cell = str | int | float
"""What a row holds: a number, or text; "" for no value."""
Row = dict[str, Cell]

RESULT_COLUMNS = ("study_number", *LEVEL_COLUMNS)
ERROR_COLUMNS = (
    "path",
    "stage",
    "reason",
    "what_to_do",
    "study_uid",
    "study_number",
    "harmless",
    "of_study",
)
STUDY_COLUMNS = (
    "study_number",
    "study_uid",
    "path",
    "status",
    "reason",
    "sagittal_series_uid",
    "axial_series_uid",
    "grade_0",
    "grade_1",
    "grade_2",
    "grade_3",
    "ungraded",
    "worst_grade",
    "worst_level",
    "warning_count",
)

_GRADES = range(4)


def result_rows(number: int, result: StudyResult) -> Iterator[Row]:
    """One row per level, with the keys RESULT_COLUMNS. A missing value is ""."""
    for row in result.rows():
        yield {"study_number": number, **{key: "" if value is None else value for key, value in row.items()}}


def error_row(problem: Problem, study_number: int | None = None) -> Row:
    """The row, keys ERROR_COLUMNS, of a problem, and of the study that it belongs to."""
    return {
        "path": escape_controls(problem.path),
        "stage": problem.stage.value,
        "reason": escape_controls(problem.reason),
        "what_to_do": escape_controls(problem.advice),
        "study_uid": problem.study_uid,
        "study_number": _or_empty(study_number),
        "harmless": "yes" if problem.harmless else "no",
        "of_study": "yes" if problem.of_study else "no",
    }


def study_row(number: int, kept: StoredStudy) -> Row:
    """The row, keys STUDY_COLUMNS, of a study that was graded or could not be."""
    row = unreached_row(number, kept.study_uid)
    row["path"] = kept.path
    result = kept.result
    if result is None:
        # What the study could not be graded for comes after what its files have.
        return {**row, "status": "failed", "reason": kept.problems[-1].reason}
    grades = [level.grade for level in result.levels]
    worst = worst_level(result)
    return {
        **row,
        "status": "graded",
        "sagittal_series_uid": result.sagittal_series_uid,
        "axial_series_uid": result.axial_series_uid,
        **{f"grade_{grade}": grades.count(grade) for grade in _GRADES},
        "ungraded": grades.count(None),
        "worst_grade": _or_empty(worst.grade if worst else None),
        "worst_level": worst.level if worst else "",
        "warning_count": len(study_warnings(result)),
    }


def unreached_row(number: int, study_uid: str) -> Row:
    """The row, keys STUDY_COLUMNS, of a study that a run that was stopped did not come to."""
    return {
        **dict.fromkeys(STUDY_COLUMNS, ""),
        "study_number": number,
        "study_uid": study_uid,
        "status": "open",
    }


def worst_level(result: StudyResult) -> LevelResult | None:
    """The level with the highest grade, of several the one nearest to the head; None if no level has one."""
    graded = [level for level in result.levels if level.grade is not None]
    return max(graded, key=lambda level: level.grade or 0, default=None)


def study_warnings(result: StudyResult) -> list[str]:
    """The warnings of the study and of all its levels, each once."""
    return list(
        dict.fromkeys([*result.warnings, *(warning for level in result.levels for warning in level.warnings)])
    )


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value
