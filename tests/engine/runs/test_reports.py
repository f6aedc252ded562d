"""Reports beside grading, and from results: the same files, nothing stale, a reason for each that lacks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pydicom
import pytest
from shared_phantoms import phantoms
from typer.testing import CliRunner

from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.errors import InputError, OutputError
from stenosis_trt.engine.records import SeriesHeader, StudyHeader
from stenosis_trt.engine.reports import formats as formats_module
from stenosis_trt.engine.reports.formats import parse_formats
from stenosis_trt.engine.reports.study_report import ReportOptions
from stenosis_trt.engine.runs.batch import grade_paths
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.runs.outputs import ResultStore
from stenosis_trt.engine.runs.report_again import report_results
from stenosis_trt.engine.runs.summary import RunSummary

SEED = 33
FORMATS = ("csv", "json", "text", "html")


@pytest.fixture(scope="module")
def studies() -> Path:
    return phantoms(1, SEED)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, studies: Path) -> Path:
    """An output folder of a run with reports; copy it to change it."""
    out = tmp_path_factory.mktemp("graded") / "out"
    assert _grade(studies, out, FORMATS).exit_code == 0
    return out


@pytest.fixture
def out(graded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(graded, tmp_path / "out")


def _grade(studies: Path, out: Path, formats: tuple[str, ...], **options: object) -> RunSummary:
    chosen = GradeOptions(device="cpu", formats=formats, **options)  # type: ignore[arg-type]
    return grade_paths([studies], out, chosen)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _errors(out: Path) -> list[tuple[str, str]]:
    return [(row["stage"], row["reason"]) for row in _rows(out / "errors.csv") if row["harmless"] == "no"]


def _files(out: Path) -> dict[str, bytes]:
    folder = out / "reports"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_study_has_a_folder_that_the_table_names(graded: Path) -> None:
    (row,) = _rows(graded / "studies.csv")
    assert sorted(path.name for path in (graded / row["reports"]).iterdir()) == [
        "html.json",
        "made.json",
        "report.txt",
    ]
    assert row["study_uid"] in (graded / "report.html").read_text(encoding="utf-8")
    assert json.loads((graded / "run.json").read_text())["options"]["formats"] == list(FORMATS)


def test_a_report_from_results_is_the_one_that_grading_writes(
    tmp_path: Path, graded: Path, studies: Path
) -> None:
    out = tmp_path / "out"
    assert _grade(studies, out, ("csv", "json")).exit_code == 0
    assert not (out / "reports").exists()
    assert not (out / "report.html").exists()
    summary = report_results(out, formats=("html", "text"))
    assert (summary.exit_code, summary.studies, summary.made) == (0, 1, 1)
    assert _files(out) == _files(graded)
    again = report_results(out, formats=("html",))
    assert (again.exit_code, again.made) == (0, 0)


def test_results_csv_is_left_out_where_it_was_not_asked_for(tmp_path: Path, studies: Path) -> None:
    assert _grade(studies, tmp_path, ("text",)).exit_code == 0
    present = {path.name for path in tmp_path.iterdir()}
    assert present == {"errors.csv", "studies.csv", "run.json", "reports", "studies"}
    report_results(tmp_path, formats=("csv", "parquet"))
    assert len(_rows(tmp_path / "results.csv")) == 6
    assert (tmp_path / "results.parquet").read_bytes()[:4] == b"PAR1"


def test_a_resumed_run_makes_the_reports_that_are_missing_without_grading(out: Path, studies: Path) -> None:
    before = _files(out)
    (folder,) = (path for path in (out / "reports").iterdir() if path.is_dir())
    shutil.rmtree(folder)
    (out / "report.html").unlink()
    summary = _grade(studies, out, ("csv",), resume=True)
    assert (summary.graded, summary.skipped, summary.exit_code) == (0, 1, 0)
    assert _files(out) == before
    assert (out / "report.html").exists()


def test_the_formats_of_a_run_that_was_killed_are_not_forgotten(out: Path, studies: Path) -> None:
    """A kill leaves neither tables nor run.json."""
    for path in out.glob("*.*"):
        path.unlink()
    assert _grade(studies, out, ("csv",), resume=True).exit_code == 0
    assert {path.name for path in out.glob("*.*")} >= {"results.csv", "results.jsonl", "report.html"}


def test_reports_beside_the_images_are_no_part_of_the_study(tmp_path: Path, studies: Path) -> None:
    folder = shutil.copytree(studies, tmp_path / "in")
    out = folder / "results"
    assert _grade(folder, out, ("csv", "text")).exit_code == 0
    image = next(path for path in folder.rglob("*.dcm"))
    dataset = pydicom.dcmread(image)
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.save_as(out / "reports" / "picture.dcm")
    summary = _grade(folder, out, ("csv", "text"), resume=True)
    assert (summary.graded, summary.skipped, summary.exit_code) == (0, 1, 0)
    # Another run that meets them leaves them out too, and says so.
    other = _grade(folder, tmp_path / "other", ("csv",))
    assert (other.graded, other.exit_code) == (1, 0)
    assert [row["reason"] for row in _rows(tmp_path / "other" / "errors.csv") if row["stage"] == "find"] == [
        "The folder holds reports of stenosis-trt, not images of a scanner."
    ]


def test_a_new_result_takes_the_reports_of_the_old_one_away(out: Path) -> None:
    with ResultStore.reopen(out) as store:
        state = store.state
        assert state is not None
        (row,) = store.rows(state.order)
        assert row.study is not None
        assert row.study.result is not None
        assert row.reports.exists()
        series = SeriesHeader(row.study_uid, "1.2", "MR", ())
        store.add(StudyHeader(row.study_uid, "/in", (series,)), row.study.result, [])
        assert not row.reports.exists()


def test_images_that_moved_are_asked_for_and_the_page_goes_without(tmp_path: Path, studies: Path) -> None:
    folder = shutil.copytree(studies, tmp_path / "in")
    out = tmp_path / "out"
    _grade(folder, out, ("csv", "json"))
    moved = folder.rename(tmp_path / "archive")
    summary = report_results(out, formats=("png", "html"))
    assert (summary.exit_code, summary.failed_reports) == (1, 1)
    assert _errors(out) == [("report", "no png: The images of the study were not found.")]
    assert '"has_pictures":false' in (out / "report.html").read_text(encoding="utf-8")
    summary = report_results(out, [moved], formats=("html",))
    assert summary.exit_code == 0
    assert _errors(out) == []
    assert '"has_pictures":true' in (out / "report.html").read_text(encoding="utf-8")
    assert any(name.endswith("summary.png") for name in _files(out))


def test_images_that_changed_are_not_shown_beside_the_old_result(tmp_path: Path, studies: Path) -> None:
    folder = shutil.copytree(studies, tmp_path / "in")
    out = tmp_path / "out"
    _grade(folder, out, ("csv", "json"))
    next(folder.rglob("*.dcm")).unlink()
    assert report_results(out, formats=("png",)).exit_code == 1
    reason = "no png: The images of the study are others than those that were graded."
    assert _errors(out) == [("report", reason)]


def test_hidden_paths_need_the_images_to_be_named(tmp_path: Path, studies: Path) -> None:
    _grade(studies, tmp_path / "out", ("csv", "json"), no_paths=True)
    assert report_results(tmp_path / "out", formats=("png",)).exit_code == 1
    assert report_results(tmp_path / "out", [studies], formats=("png",)).exit_code == 0
    assert str(studies) not in (tmp_path / "out" / "errors.csv").read_text()


def test_bad_calls_are_one_sentence_and_exit_code_2(tmp_path: Path, out: Path, studies: Path) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert "Traceback" not in result.stderr
        return result.exit_code, result.stderr

    code, text = run("report", tmp_path / "nothing")
    assert (code, "holds no results of `grade`" in text) == (2, True)
    code, text = run("report", out, "--format", "docx")
    assert (code, "no format 'docx'" in text) == (2, True)
    code, text = run("report", out, "--format", ",")
    assert (code, "names no format" in text) == (2, True)
    code, text = run("report", out, "--sr-for", "paper")
    assert (code, "--sr-for has no value 'paper'" in text) == (2, True)
    code, text = run("report", out, "--format", "text", "--report-template", tmp_path / "none.j2")
    assert code == 2
    code, text = run("grade", studies, "--out", tmp_path / "x", "--format", "sr,xml")
    assert (code, (tmp_path / "x").exists()) == (2, False)
    assert sorted(path.name for path in out.iterdir() if path.name.endswith(".part")) == []


def test_results_of_another_version_are_refused_by_name(out: Path) -> None:
    (stored,) = (path for path in (out / "studies").glob("*.json") if len(path.stem) == 64)
    content = json.loads(stored.read_text())
    stored.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(OutputError, match="version 99"):
        report_results(out)


def test_a_run_without_tables_or_record_is_told_to_be_resumed(out: Path) -> None:
    (out / "run.json").unlink()
    with pytest.raises(OutputError, match=r"no run\.json.*--resume"):
        report_results(out)
    (out / "studies" / "state.json").unlink()
    with pytest.raises(OutputError, match=r"has written no tables.*--resume"):
        report_results(out)
    (out / "studies" / "state.json").write_text('{"order": 3}')
    with pytest.raises(OutputError, match="state"):
        report_results(out)


def test_a_missing_package_stops_a_run_before_it_grades(
    tmp_path: Path, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats_module, "_PACKAGES", {"text": ("no_such_package_at_all",)})
    with pytest.raises(OutputError, match=r"no_such_package_at_all.*pip install 'stenosis-trt\[report\]'"):
        _grade(studies, tmp_path / "out", ("text",))
    assert not (tmp_path / "out").exists()


def test_a_template_that_cannot_be_used_stops_a_run_before_it_grades(tmp_path: Path, studies: Path) -> None:
    template = tmp_path / "site.j2"
    template.write_text("{{ no_such_variable }}")
    with pytest.raises(InputError):
        _grade(studies, tmp_path / "out", ("text",), reports=ReportOptions(text_template=template))
    template.write_text("Result of the site: {{ levels | length }} levels.\n")
    options = ReportOptions(text_template=template)
    assert _grade(studies, tmp_path / "out", ("text",), reports=options).exit_code == 0
    (text,) = (path for path in (tmp_path / "out").rglob("report.txt"))
    assert text.read_text() == "Result of the site: 6 levels.\n"


def test_formats_are_parsed_in_one_order_without_repeats() -> None:
    assert parse_formats("html, sr,csv,sr") == ("csv", "sr", "html")
    with pytest.raises(ValueError, match="no format 'CSV'"):
        parse_formats("CSV")


def test_the_progress_of_a_review_outlives_a_resumed_run(out: Path, studies: Path) -> None:
    with ResultStore.reopen(out) as store:
        key = store.run_key
    _grade(studies, out, ("csv", "html"), resume=True)
    with ResultStore.reopen(out) as store:
        assert store.run_key == key
