"""Type and meaning of each column of results.csv, for Parquet and for the JSON Schemas of the tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stenosis_trt.engine.records import LEVEL_COLUMNS, LEVELS


class ColumnKind(Enum):
    """Type of a column's values."""

    TEXT = "text"
    NAMES = "names"
    """Names, separated by semicolons in CSV."""
    GRADE = "grade"
    """A Kang grade, 0 to 3."""
    COUNT = "count"
    """A whole number of 0 or more."""
    NUMBER = "number"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        kind: type of its values.
        meaning: what it holds, as one phrase.
        values: the values that a text may have; () if any.
        always: every row has a value.
    """

    kind: ColumnKind
    meaning: str
    values: tuple[str, ...] = ()
    always: bool = False


def _text(meaning: str, *values: str) -> Column:
    return Column(ColumnKind.TEXT, meaning, values)


def _number(meaning: str) -> Column:
    return Column(ColumnKind.NUMBER, meaning)


def _count(meaning: str) -> Column:
    return Column(ColumnKind.COUNT, meaning)


STUDY_NUMBER = _count("Number of the study in the run, from 1; the same in all tables.")
STUDY_UID = _text("Study Instance UID.")

_LEVEL_COLUMNS = {
    "study_uid": STUDY_UID,
    "patient_id": _text("PatientID with --keep-identifiers, else empty."),
    "level": Column(ColumnKind.TEXT, "Disc level.", LEVELS, always=True),
    "kang_grade": Column(ColumnKind.GRADE, "Kang grade, 0 to 3."),
    "p0": _number("Probability of Kang grade 0."),
    "p1": _number("Probability of Kang grade 1."),
    "p2": _number("Probability of Kang grade 2."),
    "p3": _number("Probability of Kang grade 3."),
    "compression_ratio": _number("Anteroposterior divided by transverse diameter of the cord."),
    "ap_mm": _number("Anteroposterior diameter across the cord in mm."),
    "transverse_mm": _number("Transverse diameter across the cord in mm."),
    "sagittal_sop_uid": _text("SOP Instance UID of the sagittal slice that was graded."),
    "sagittal_frame_number": _count("Its frame number in a multi-frame file, from 1."),
    "axial_sop_uid": _text("SOP Instance UID of the axial slice that was measured."),
    "axial_frame_number": _count("Its frame number in a multi-frame file, from 1."),
    "x_mm": _number("Point of the level in patient coordinates (LPS): x in mm."),
    "y_mm": _number("Point of the level in patient coordinates (LPS): y in mm."),
    "z_mm": _number("Point of the level in patient coordinates (LPS): z in mm."),
    "confidence": _number("The lower of the confidence of the point and the probability of the grade."),
    "warnings": Column(ColumnKind.NAMES, "Warnings of the level, then those of the study."),
    "mscc": _number("Maximum spinal cord compression."),
    "mscc_reference": _text(
        "Where the normal cord of MSCC was measured.", "above and below", "above", "below", "none"
    ),
    "compression_ratio_z": _number("z-score of the compression ratio against healthy adults."),
    "ap_z": _number("z-score of the anteroposterior diameter against healthy adults."),
    "transverse_z": _number("z-score of the transverse diameter against healthy adults."),
    "compression_ratio_percentile": _number("Percent of healthy adults with a lower compression ratio."),
    "ap_percentile": _number("Percent of healthy adults with a smaller anteroposterior diameter."),
    "transverse_percentile": _number("Percent of healthy adults with a smaller transverse diameter."),
    "slice_angle_degrees": _number("Angle between the axial slice and the plane across the cord."),
}

RESULT_COLUMNS = {"study_number": STUDY_NUMBER, **{name: _LEVEL_COLUMNS[name] for name in LEVEL_COLUMNS}}
"""The columns of results.csv and results.parquet, in their order."""
