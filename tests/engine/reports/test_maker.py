"""Reports are made in worker processes: a worker that dies or hangs costs its own study alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import failing_reports
import pytest
import stand_in

from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.errors import NotWritten, OutputError
from stenosis_trt.engine.reports import maker
from stenosis_trt.engine.reports.maker import ReportMaker
from stenosis_trt.engine.reports.making import MadeReports, ReportTask, is_made, make_reports, read_made
from stenosis_trt.engine.reports.study_report import Provenance, ReportOptions, StudyReport

PROVENANCE = Provenance(
    "pack", "1", "0" * 64, "Testing.", False, "0.1.0", "onnxruntime", "fp32", "2026-01-01"
)
Make = Callable[[ReportTask], MadeReports]


def _task(folder: Path, number: int = 1, formats: tuple[str, ...] = ("text",)) -> ReportTask:
    report = StudyReport(number, f"{number:016x}", "/in", stand_in.result("1.2.3"), PROVENANCE)
    return ReportTask(report, (), formats, ReportOptions(), ReadLimits(), folder / report.folder)


def _made(folder: Path, make: Make, count: int = 4) -> dict[int, MadeReports]:
    found: dict[int, MadeReports] = {}
    with ReportMaker(2, lambda task, made: found.update({task.report.number: made}), make) as reports:
        for number in range(1, count + 1):
            reports.submit(_task(folder, number))
        reports.finish()
    return found


def _make(task: ReportTask) -> MadeReports:
    """Make the reports in a worker: its memory limit must not stay in this process."""
    found: list[MadeReports] = []
    with ReportMaker(1, lambda _, made: found.append(made), make_reports) as reports:
        reports.submit(task)
        reports.finish()
    return found[0]


def test_a_study_on_which_a_worker_dies_gets_no_reports_and_the_others_do(tmp_path: Path) -> None:
    found = _made(tmp_path, failing_reports.die_on_the_first)
    assert found[1].formats["text"].reason == "Making the reports ended the process."
    assert [found[number].formats["text"].files for number in (2, 3, 4)] == [("report.txt",)] * 3
    # The reason is kept for the tables, and the next run tries the study again.
    assert read_made(_task(tmp_path).place) == found[1]
    assert not is_made(_task(tmp_path))


def test_a_worker_that_died_is_replaced_and_its_study_repeated_once(tmp_path: Path) -> None:
    found = _made(tmp_path, failing_reports.die_once)
    assert [found[number].formats["text"].files for number in (1, 2, 3, 4)] == [("report.txt",)] * 4


def test_a_study_that_takes_too_long_gets_no_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker, "_START_SECONDS", 5.0)
    found: list[MadeReports] = []
    with ReportMaker(1, lambda _, made: found.append(made), failing_reports.hang_on_the_first) as reports:
        reports.submit(replace(_task(tmp_path), limits=ReadLimits(timeout_seconds=0.5)))
        reports.submit(_task(tmp_path, 2))
        reports.finish()
    assert found[0].formats["text"].reason == "Making the reports took too long."
    assert found[1].formats["text"].files == ("report.txt",)


def test_a_full_disk_and_a_missing_package_end_the_run_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match=r"No space left on device.*report"):
        _made(tmp_path, failing_reports.find_no_room, 1)
    with pytest.raises(OutputError, match=r"package highdicom.*pip install"):
        _made(tmp_path, failing_reports.lack_a_package, 1)


def test_a_folder_of_reports_is_replaced_as_a_whole(tmp_path: Path) -> None:
    task = _task(tmp_path)
    assert not is_made(task)
    assert _make(task).formats["text"].files == ("report.txt",)
    assert is_made(task)
    (task.place / "left.dcm").write_text("of an earlier result")
    changed = replace(task, report=replace(task.report, number=2))
    assert not is_made(changed)
    _make(changed)
    assert sorted(path.name for path in task.place.iterdir()) == ["made.json", "report.txt"]
    (task.place / "report.txt").unlink()
    assert not is_made(changed)


def test_a_format_without_images_says_where_to_give_them(tmp_path: Path) -> None:
    made = _make(_task(tmp_path, formats=("sr", "png", "text")))
    assert made.formats["text"].files == ("report.txt",)
    (problem,) = made.problems("/in", "1.2.3")
    assert problem.reason == "no sr, png: The images of the study were not found."
    assert "stenosis-trt report RESULTS IMAGES" in problem.advice
    assert (problem.stage.value, problem.harmless, problem.of_study) == ("report", False, False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stamp": 1, "formats": {"text": 3}}', "\ud800", "[[[["])
def test_a_made_json_that_was_changed_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "made.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert read_made(tmp_path) is None
