"""Pages of the HTML report made of one graded phantom, varied, for the tests of the page."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from report_samples import sample_report

from stenosis_trt.engine.reports.page.html_page import compose
from stenosis_trt.engine.reports.page.html_study import PIECE, make
from stenosis_trt.engine.reports.run_report import FailedStudy, RunCounts, RunReport
from stenosis_trt.engine.reports.study_report import ReportOptions

KEY = "0f1e2d3c4b5a6978"
FAILED = FailedStudy(
    999, "cohort/study_0999", "The study has no sagittal T2 series.", "Export the sagittal T2 series."
)


@cache
def sample_piece() -> bytes:
    """Return the piece of the graded phantom, with its pictures."""
    return make(sample_report(), ReportOptions())[PIECE]


def varied_pieces(count: int) -> list[dict[str, Any]]:
    """Return pieces with differing results, the same each time; every twentieth has no pictures."""
    return [_varied(number) for number in range(1, count + 1)]


def _varied(number: int) -> dict[str, Any]:
    rng = random.Random(number)
    piece: dict[str, Any] = json.loads(sample_piece())
    piece |= {
        "number": number,
        "folder": f"{number:016x}",
        "path": f"cohort/site-{number % 3}/study_{number:04}",
        "study_uid": f"1.2.3.{number}",
        "meanings": {"axial_slice_gap": "the nearest axial slice is over 4 mm away", "level_not_found": "x"},
    }
    if number % 20 == 0:
        piece |= {"pictures": None, "no_pictures": "Made from results alone: the images were not read."}
    for level in piece["levels"]:
        _vary(level, rng)
        if piece["pictures"] is None:
            level |= {"sagittal": None, "axial": None}
    return piece


def _vary(level: dict[str, Any], rng: random.Random) -> None:
    grade = rng.choices((0, 1, 2, 3, None), (9, 5, 3, 2, 1))[0]
    level["warnings"] = ["axial_slice_gap"] if rng.random() < 0.1 else []
    level["confidence"] = round(rng.uniform(0.4, 1.0), 3)
    level["grade"] = grade
    if grade is None:
        level |= {"probabilities": None, "ratio": None, "ap": None, "transverse": None, "healthy": None}
        level |= {"mscc": None, "mscc_reference": None}
        level |= {"sagittal": None, "axial": None, "warnings": ["level_not_found"]}
        return
    level["probabilities"] = [0.7 if index == grade else 0.1 for index in range(4)]
    level["ratio"] = round(rng.gauss(0.6 - 0.07 * grade, 0.04), 3)
    level |= {"mscc": 0.12, "mscc_reference": "above and below"}
    level["healthy"] = {
        "compression_ratio_z": (level["ratio"] - 0.58) / 0.05,
        "compression_ratio_percentile": 20.0,
        "ap_z": -2.4,
        "ap_percentile": 0.8,
        "transverse_z": 0.3,
        "transverse_percentile": 62.0,
    }


def run_report(graded: int, **changes: Any) -> RunReport:
    """Return the report of a run with one failed study."""
    run = RunReport(KEY, sample_report().provenance, RunCounts(graded + 1, graded, 1), (FAILED,))
    return replace(run, **changes)


def write_page(path: Path, pieces: Iterable[dict[str, Any]], run: RunReport | None = None) -> Path:
    """Write a page and return its path."""
    encoded = [json.dumps(piece).encode() for piece in pieces]
    with path.open("w", encoding="utf-8") as stream:
        compose(stream, run or run_report(len(encoded)), encoded)
    return path
