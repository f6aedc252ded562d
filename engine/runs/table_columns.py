"""Type and meaning of each column of errors.csv and studies.csv; those of results.csv are in `reports`."""

from __future__ import annotations

from stenosis_trt.engine.records import LEVELS, Stage
from stenosis_trt.engine.reports.result_columns import STUDY_NUMBER, STUDY_UID, Column, ColumnKind

STUDY_STATUSES = ("graded", "failed", "open")

_YES_NO = ("yes", "no")


def _text(meaning: str, *values: str) -> Column:
    return Column(ColumnKind.TEXT, meaning, values)


def _choice(meaning: str, *values: str) -> Column:
    return Column(ColumnKind.TEXT, meaning, values, always=True)


def _count(meaning: str) -> Column:
    return Column(ColumnKind.COUNT, meaning)


ERRORS = {
    "path": _text("File or folder; with --no-paths a number and a hash."),
    "stage": _choice("Where the problem arose.", *(stage.value for stage in Stage)),
    "reason": _text("What is wrong, in one sentence."),
    "what_to_do": _text("What to do about it, in one sentence."),
    "study_uid": _text("Study Instance UID, where it is known."),
    "study_number": _count("Number of the study in the run, where it is known."),
    "harmless": _choice("Whether no image was lost.", *_YES_NO),
    "of_study": _choice("Whether a whole study was not graded.", *_YES_NO),
}
"""The columns of errors.csv, in their order."""

STUDIES = {
    "study_number": STUDY_NUMBER,
    "study_uid": STUDY_UID,
    "path": _text("Folder of the study; with --no-paths a number and a hash."),
    "status": _choice("graded; failed; or open if the run was stopped before this study.", *STUDY_STATUSES),
    "reason": _text("Why a failed study was not graded."),
    "sagittal_series_uid": _text("Series Instance UID of the sagittal series that was graded."),
    "axial_series_uid": _text(
        "Series Instance UID of the axial series; several are separated by semicolons."
    ),
    **{f"grade_{grade}": _count(f"Number of levels of Kang grade {grade}.") for grade in range(4)},
    "ungraded": _count("Number of levels without a grade."),
    "worst_grade": Column(ColumnKind.GRADE, "Highest Kang grade of the study."),
    "worst_level": _text("The level that has it; of several the one nearest to the head.", *LEVELS),
    "warning_count": _count("Number of different warnings of the study and its levels."),
    "reports": _text("Folder of its reports in the output folder, where there are any."),
}
"""The columns of studies.csv, in their order."""
