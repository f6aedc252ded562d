"""The rows of results.csv and errors.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RESULT_COLUMNS = (
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
    "axial_sop_uid",
    "x_mm",
    "y_mm",
    "z_mm",
    "confidence",
    "flags",
)
ERROR_COLUMNS = ("path", "stage", "reason", "what_to_do", "study_uid", "harmless", "of_study")

_DIGITS = 4
_DIGITS_MM = 2
"""Hundredths of a millimetre: far below a pixel, and no digits that mean nothing."""


def result_rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row a level, keys RESULT_COLUMNS, from a `StudyResult` as a dictionary; "" for no value."""
    for level in result["levels"]:
        cord, point = level["cord"] or {}, level["point"] or (None, None, None)
        probabilities = level["probabilities"] or (None,) * 4
        yield {
            "study_uid": result["study_uid"],
            "patient_id": result["patient_id"],
            "level": level["level"],
            "kang_grade": "" if level["grade"] is None else level["grade"],
            **{f"p{grade}": _rounded(value, _DIGITS) for grade, value in enumerate(probabilities)},
            "compression_ratio": _rounded(cord.get("compression_ratio"), _DIGITS),
            "ap_mm": _rounded(cord.get("ap_mm"), _DIGITS_MM),
            "transverse_mm": _rounded(cord.get("transverse_mm"), _DIGITS_MM),
            "sagittal_sop_uid": level["sagittal_sop_uid"],
            "axial_sop_uid": cord.get("sop_instance_uid", ""),
            **{f"{axis}_mm": _rounded(value, _DIGITS_MM) for axis, value in zip("xyz", point, strict=True)},
            "confidence": _rounded(level["confidence"], _DIGITS),
            "flags": ";".join(dict.fromkeys([*level["flags"], *result["flags"]])),
        }


def error_row(problem: Mapping[str, Any]) -> dict[str, str]:
    """The row, keys ERROR_COLUMNS, of a `Problem` as a dictionary."""
    return {
        "path": problem["path"],
        "stage": getattr(problem["stage"], "value", problem["stage"]),
        "reason": problem["reason"],
        "what_to_do": problem["advice"],
        "study_uid": problem["study_uid"],
        "harmless": "yes" if problem["harmless"] else "no",
        "of_study": "yes" if problem.get("of_study", False) else "no",
    }


def _rounded(value: float | None, digits: int) -> float | str:
    return "" if value is None else round(value, digits)
