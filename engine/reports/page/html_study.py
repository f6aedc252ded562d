"""The HTML report's piece of one study: a JSON object with everything that the page shows of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from stenosis_trt.engine.records import LevelResult
from stenosis_trt.engine.reports.study_report import ReportOptions, StudyReport
from stenosis_trt.engine.reports.warning_meanings import WARNING_MEANINGS
from stenosis_trt.engine.support.safe_text import escape_controls, escape_controls_in

PIECE = "html.json"
"""Name of the piece."""
PIECE_FORMAT = 1
"""Version of the piece's layout."""
_DIGITS = 4


def make(report: StudyReport, options: ReportOptions) -> dict[str, bytes]:
    """Make the piece of one study, ASCII JSON.

    Its fields are read by `templates/page_*.js`. `pictures` is null, and `no_pictures` says why, where the
    report has no images.
    """
    from stenosis_trt.engine.reports.page.html_pictures import StudyPictures, study_pictures
    from stenosis_trt.engine.reports.text.report_text import report_text
    from stenosis_trt.engine.reports.text.wording import impression, level_sentence, not_assessed

    result = report.result
    drawn = StudyPictures({}, {}, {})
    if report.images is not None:
        drawn = study_pictures(result.levels, report.images)
    names = dict.fromkeys([*result.warnings, *(name for level in result.levels for name in level.warnings)])
    piece = {
        "format": PIECE_FORMAT,
        "number": report.number,
        "folder": report.folder,
        "path": report.path,
        "study_uid": result.study_uid,
        # Empty unless identifiers are kept.
        "patient_id": result.patient_id,
        "warnings": result.warnings,
        "meanings": {name: WARNING_MEANINGS.get(name, name) for name in names},
        "impression": impression(result),
        "not_assessed": not_assessed(result),
        "levels": [
            {
                **_level(level),
                # The page shows the warnings beside it.
                "sentence": level_sentence(level, with_cautions=False),
                "sagittal": drawn.sagittal.get(level.level),
                "axial": drawn.axial.get(level.level),
            }
            for level in result.levels
        ],
        "no_pictures": "" if report.images else "Made from results alone: the images were not read.",
    }
    # Line breaks are meant here, so each line is escaped on its own.
    text = "\n".join(map(escape_controls, report_text(report, options).split("\n")))
    whole = {**escape_controls_in(piece), "text": text, "pictures": drawn.pictures or None}
    return {PIECE: json.dumps(whole, allow_nan=False, separators=(",", ":")).encode("ascii")}


def _level(level: LevelResult) -> dict[str, Any]:
    cord = level.cord
    return {
        "level": level.level,
        "grade": level.grade,
        "probabilities": [_rounded(value) for value in level.probabilities] if level.probabilities else None,
        "confidence": _rounded(level.confidence),
        "p_ood": _rounded(level.p_ood),
        "ratio": _rounded(cord.compression_ratio) if cord else None,
        "ap": _rounded(cord.ap_mm) if cord else None,
        "transverse": _rounded(cord.transverse_mm) if cord else None,
        "slice_angle": _rounded(cord.slice_angle_degrees) if cord else None,
        "cord_confidence": _rounded(cord.confidence) if cord else None,
        "mscc": _rounded(level.mscc),
        "mscc_reference": level.mscc_reference,
        "healthy": {key: _rounded(value) for key, value in asdict(level.healthy).items()}
        if level.healthy
        else None,
        "warnings": list(level.warnings),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
