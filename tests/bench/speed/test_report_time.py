"""The cost of reports is measured in pairs of whole runs, and for each format alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shared_phantoms import phantoms

from stenosis_trt.bench.speed.report_time import measure_formats, measure_runs
from stenosis_trt.engine.reports.formats import FORMATS, STUDY_FORMATS


@pytest.mark.slow
def test_runs_with_and_without_reports_are_compared_and_each_format_is_timed(tmp_path: Path) -> None:
    studies = shutil.copytree(phantoms(1, 33), tmp_path / "in")
    figures = measure_runs(studies, tmp_path, rounds=1)
    assert figures["formats"] == list(FORMATS)
    (plain,), (full,) = figures["runs"]["tables"], figures["runs"]["all"]
    assert figures["wall_ratios"] == [full["wall_seconds"] / plain["wall_seconds"]]
    # The processes that make reports count, too.
    assert full["processor_seconds"] > plain["processor_seconds"] > 0
    assert figures["page_bytes"] > 10_000
    milliseconds = measure_formats(studies, tmp_path / "tables_1")
    assert set(milliseconds) == {"images", *STUDY_FORMATS}
    assert milliseconds["sr"] > 0
