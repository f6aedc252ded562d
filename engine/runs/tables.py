"""The rows of results.csv, errors.csv and studies.csv."""

from __future__ import annotations

from collections.abc import Iterator

from stenosis_trt.engine.records import LevelResult, Problem, StudyResult
from stenosis_trt.engine.runs.stored_results import KeptStudy
from stenosis_trt.engine.support.safe_text import visible

Cell = str | int | float
"""What a row holds: a number, or text; "" for no value."""
Row = dict[str, Cell]

RESULT_COLUMNS = (
    "study_number",
    "study_uid",
    "patient_id",
    "level",
    "kang_grade",
    "p0",
    "p1",
    "p2",
    "p3",
    "compression_ratio",
    "ap_mm",
    "transverse_mm",
    "sagittal_sop_uid",
    "sagittal_frame_number",
    "axial_sop_uid",
    "axial_frame_number",
    "x_mm",
    "y_mm",
    "z_mm",
    "confidence",
    "warnings",
)
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
_DIGITS = 4
_DIGITS_MM = 2
"""Hundredths of a millimetre: far below a pixel, and no digits that mean nothing."""


def result_rows(number: int, result: StudyResult) -> Iterator[Row]:
    """One row a level, keys RESULT_COLUMNS."""
    for level in result.levels:
        cord, point = level.cord, level.point or (None, None, None)
        probabilities = level.probabilities or (None,) * len(_GRADES)
        yield {
            "study_number": number,
            "study_uid": result.study_uid,
            "patient_id": result.patient_id,
            "level": level.level,
            "kang_grade": _or_empty(level.grade),
            **{f"p{grade}": _rounded(value, _DIGITS) for grade, value in enumerate(probabilities)},
            "compression_ratio": _rounded(cord.compression_ratio if cord else None, _DIGITS),
            "ap_mm": _rounded(cord.ap_mm if cord else None, _DIGITS_MM),
            "transverse_mm": _rounded(cord.transverse_mm if cord else None, _DIGITS_MM),
            "sagittal_sop_uid": level.sagittal_sop_uid,
            "sagittal_frame_number": _or_empty(level.sagittal_frame_number),
            "axial_sop_uid": cord.sop_instance_uid if cord else "",
            "axial_frame_number": _or_empty(cord.frame_number if cord else None),
            **{f"{axis}_mm": _rounded(value, _DIGITS_MM) for axis, value in zip("xyz", point, strict=True)},
            "confidence": _rounded(level.confidence, _DIGITS),
            "warnings": ";".join(flags_of(level, result)),
        }


def error_row(problem: Problem, study_number: int | None = None) -> Row:
    """The row, keys ERROR_COLUMNS, of a problem, and of the study that it belongs to."""
    return {
        "path": visible(problem.path),
        "stage": problem.stage.value,
        "reason": visible(problem.reason),
        "what_to_do": visible(problem.advice),
        "study_uid": problem.study_uid,
        "study_number": _or_empty(study_number),
        "harmless": "yes" if problem.harmless else "no",
        "of_study": "yes" if problem.of_study else "no",
    }


def study_row(number: int, kept: KeptStudy) -> Row:
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


def flags_of(level: LevelResult, result: StudyResult) -> list[str]:
    """The level's warnings, then the study's, each once."""
    return list(dict.fromkeys([*level.warnings, *result.warnings]))


def study_warnings(result: StudyResult) -> list[str]:
    """The warnings of the study and of all its levels, each once."""
    return list(
        dict.fromkeys([*result.warnings, *(warning for level in result.levels for warning in level.warnings)])
    )


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value


def _rounded(value: float | None, digits: int) -> float | str:
    return "" if value is None else round(value, digits)
