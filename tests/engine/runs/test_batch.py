"""Batches: one study's fault stays its own, resuming, kills, exit codes, what is recorded."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import stand_in
from altered_process import alter
from dicom_factory import compressed, dataset, series, write
from dying import children, default_signals, is_running
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, generate_uid
from stand_in import write_studies
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.base import Backend, BackendStudy, Roi
from stenosis_trt.engine.backends.model_checks import ModelOutputError
from stenosis_trt.engine.backends.selection import BackendChoice
from stenosis_trt.engine.dicom import process as process_module
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.process import ReadingProcess
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import CannotGrade, PackError
from stenosis_trt.engine.grading import read_ahead as study_reader
from stenosis_trt.engine.packs.crop import slice_roi
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LEVELS, LoadedStudy, Stage, StudyHeader, StudyResult
from stenosis_trt.engine.runs import opening
from stenosis_trt.engine.runs import provenance as run_record
from stenosis_trt.engine.runs.batch import grade_paths
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.runs.summary import RunSummary
from stenosis_trt.engine.selection.select import SeriesSelection, select_series


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


def _grade(paths: list[Path], out: Path, pack: Path, **options: object) -> RunSummary:
    chosen = GradeOptions(pack=pack, device="cpu", **options)  # type: ignore[arg-type]
    return grade_paths(paths, out, chosen, stand_in.grade)


def test_file_names_hold_no_identifier(tmp_path: Path, pack: Path) -> None:
    _grade([write_studies(tmp_path / "in", 1)], tmp_path / "out", pack)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any("SECRET" in str(path) or "SECRET" in path.read_text() for path in written)


def test_identifiers_are_kept_when_asked_for(tmp_path: Path, pack: Path) -> None:
    _grade([write_studies(tmp_path / "in", 1)], tmp_path / "out", pack, keep_identifiers=True)
    assert {row["patient_id"] for row in _rows(tmp_path / "out" / "results.csv")} == {"SECRET-ID"}


def test_a_run_is_recorded(tmp_path: Path, pack: Path) -> None:
    outcome = _grade([write_studies(tmp_path / "in", 2)], tmp_path / "out", pack)
    assert outcome.exit_code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["finished"] is True
    assert record["counts"]["graded"] == 2
    assert record["counts"]["files"] == 12
    assert record["pack"]["sha256"] == Pack.load(pack).sha256
    assert set(record["models"]) == {"levels", "grader", "cord"}
    run_by = record["backend"].pop("models_run_by")
    assert set(run_by) == {"levels", "grader", "cord"}
    assert {(way["runtime"], way["precision"], way["floats"]) for way in run_by.values()} == {
        ("onnxruntime", "fp32", "f32")
    }
    assert record["backend"] == {
        "backend": "onnxruntime",
        "reason": "the CPU was asked for",
        "gpu_failures": [],
    }
    assert set(record["seconds"]["stages"]) == {"study", "read", "grade"}
    assert record["seconds"]["stages"]["read"]["sum"] > 0
    assert record["peak_memory_bytes"]["process"] > 0
    assert 0 < record["peak_memory_bytes"]["reading"] < record["peak_memory_bytes"]["process"]
    assert all(version[0].isdigit() for version in record["versions"].values())
    assert {"pylibjpeg-openjpeg", "pylibjpeg-rle"} <= set(record["versions"])
    assert os.uname().nodename not in json.dumps(record["machine"])


def test_one_failing_study_does_not_stop_the_others(tmp_path: Path, pack: Path) -> None:
    seen: list[str] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        seen.append(study.header.study_uid)
        if len(seen) == 1:
            raise CannotGrade(Stage.LEVELS, "Nothing was recognised.", "Look at it.")
        if len(seen) == 2:
            raise ZeroDivisionError("SECRET-ID")
        if len(seen) == 3:
            return stand_in.result(study.header.study_uid, compression_ratio=float("inf"))
        return stand_in.grade(study, pack, backend)

    options = GradeOptions(pack=pack, device="cpu")
    outcome = grade_paths([write_studies(tmp_path / "in", 5)], tmp_path / "out", options, grade)
    assert (outcome.graded, outcome.failed, outcome.exit_code) == (2, 3, 1)
    errors = _rows(tmp_path / "out" / "errors.csv")
    assert [(row["stage"], row["reason"]) for row in errors] == [
        ("levels", "cannot grade: Nothing was recognised."),
        ("grade", "cannot grade: the program failed (ZeroDivisionError)."),
        ("write", "cannot grade: the program failed (ValueError)."),
    ]
    assert {row["study_uid"] for row in errors} == set(seen[:3])
    assert len(_rows(tmp_path / "out" / "results.csv")) == 2 * len(LEVELS)


def _two_sagittals(folder: Path) -> Path:
    """A study with two sagittal T2 series, the second (UID 1.2) with larger pixels than the first (1.1)."""
    for uid, spacing in (("1.1", 0.8), ("1.2", 0.95)):

        def change(content: Dataset, index: int, uid: str = uid, spacing: float = spacing) -> None:
            content.SeriesInstanceUID, content.PixelSpacing = uid, [spacing, spacing]
            content.SOPInstanceUID = f"{uid}.{index + 1}"

        series(folder / uid, 6, change)
    return folder


@pytest.mark.parametrize("stage", [Stage.LEVELS, Stage.GRADE])
def test_where_no_neck_is_recognised_the_next_sagittal_series_is_graded(
    tmp_path: Path, pack: Path, stage: Stage
) -> None:
    tried: list[str] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        tried.append(study.sagittal_series.series_uid)
        if len(tried) == 1:
            raise CannotGrade(stage, "No cervical spine was recognised.", "Look at it.")
        return replace(stand_in.grade(study, pack, backend), warnings=study.warnings)

    options = GradeOptions(pack=pack, device="cpu")
    outcome = grade_paths([_two_sagittals(tmp_path / "in")], tmp_path / "out", options, grade)
    assert tried == ["1.1", "1.2"]
    assert (outcome.graded, outcome.failed, outcome.exit_code) == (1, 0, 0)
    (error,) = _rows(tmp_path / "out" / "errors.csv")
    assert error["reason"] == (
        "Series 1 was tried first and could not be graded: No cervical spine was recognised."
    )
    assert error["harmless"] == "yes"
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert "sagittal_second_choice" in json.loads(line)["warnings"]


def test_a_study_that_no_sagittal_series_can_be_graded_of_has_the_reason_of_each(
    tmp_path: Path, pack: Path
) -> None:
    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        raise CannotGrade(Stage.LEVELS, f"None in {study.sagittal_series.series_uid}.", "Look at it.")

    options = GradeOptions(pack=pack, device="cpu")
    outcome = grade_paths([_two_sagittals(tmp_path / "in")], tmp_path / "out", options, grade)
    assert (outcome.graded, outcome.failed, outcome.exit_code) == (0, 1, 1)
    (error,) = _rows(tmp_path / "out" / "errors.csv")
    assert error["reason"] == (
        "cannot grade: 2 sagittal T2 series were tried (series 1: None in 1.1; series 2: None in 1.2)."
    )
    assert error["harmless"] == "no"


def test_where_too_few_slices_can_be_decoded_the_next_sagittal_series_is_graded(
    tmp_path: Path, pack: Path
) -> None:
    folder = _two_sagittals(tmp_path / "in")
    for path in sorted((folder / "1.1").iterdir()):
        content = compressed(pydicom.dcmread(path), RLELossless)
        content.PixelData = content.PixelData[:100]
        write(path, content, RLELossless)
    outcome = _grade([folder], tmp_path / "out", pack)
    assert (outcome.graded, outcome.failed) == (1, 0)
    reasons = [row["reason"] for row in _rows(tmp_path / "out" / "errors.csv")]
    assert reasons[-1] == (
        "Series 1 was tried first and could not be graded: only 0 sagittal slices could be read."
    )


def test_a_study_whose_choice_fails_does_not_stop_the_others(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_studies(tmp_path / "in", 3)
    fails = str(folder / "study1")

    def failing(study: StudyHeader, tried: Sequence[int] = ()) -> SeriesSelection:
        if study.path == fails:
            raise KeyError("SECRET-ID")
        return select_series(study, tried)

    monkeypatch.setattr(study_reader, "select_series", failing)
    outcome = _grade([folder], tmp_path / "out", pack)
    assert (outcome.graded, outcome.failed) == (2, 1)
    (error,) = _rows(tmp_path / "out" / "errors.csv")
    assert (error["path"], error["stage"]) == (fails, "choose")
    assert error["reason"] == "cannot grade: the program failed (KeyError)."


def test_models_that_cannot_be_loaded_end_the_run_instead_of_failing_every_study(
    tmp_path: Path, pack: Path
) -> None:
    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        raise PackError("The model cannot be loaded.", "Get the pack again.")

    with pytest.raises(PackError):
        grade_paths([write_studies(tmp_path / "in", 2)], tmp_path / "out", GradeOptions(pack=pack), grade)
    assert _rows(tmp_path / "out" / "errors.csv") == []
    assert json.loads((tmp_path / "out" / "run.json").read_text())["finished"] is False


def _look(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
    """Ask the levels model about every slice, and nothing else."""
    spec = pack.models["levels"].input
    rois = [Roi((k,), slice_roi(item.pose, item.pose.centre, spec)) for k, item in enumerate(study.sagittal)]
    with closing(backend.load(study)) as there:
        there.locate(rois).result()
    return stand_in.grade(study, pack, backend)


def _with_a_dark_study(folder: Path) -> Path:
    """Three studies; the second is dark."""
    write_studies(folder, 3)
    for path in (folder / "study1").glob("*.dcm"):
        content = pydicom.dcmread(path)
        content.PixelData = np.zeros((256, 256), np.uint16).tobytes()
        content.save_as(path)
    return folder


def test_a_study_that_a_model_answers_with_no_numbers_is_reported_and_the_others_are_graded(
    tmp_path: Path,
) -> None:
    pack = write_tiny_pack(tmp_path / "tiny", invalid="levels").path
    folder, out = _with_a_dark_study(tmp_path / "in"), tmp_path / "out"
    for resume in (False, True):
        options = GradeOptions(pack=pack, device="cpu", resume=resume, cpu_if_gpu_fails=True)
        outcome = grade_paths([folder], out, options, _look)
        assert (outcome.graded, outcome.skipped) == ((0, 2) if resume else (2, 0))
        assert (outcome.failed, outcome.exit_code) == (1, 1)
        (row,) = _rows(out / "errors.csv")
        assert row["stage"] == "levels"
        assert row["reason"] == (
            "cannot grade: The model levels (levels.onnx) cannot be used for this study: its output is not "
            "finite."
        )
        assert "use another precision or pack" in row["what_to_do"]
        assert json.loads((out / "run.json").read_text())["finished"] is True


@pytest.mark.parametrize("allowed", [True, False])
def test_what_a_model_answers_wrongly_on_the_gpu_is_graded_on_the_cpu_where_that_was_allowed(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    opened = Pack.load(pack)

    class Gpu:
        """No backend of the CPU's kind."""

        name, reading_bytes = "tensorrt", 0

        def load(self, study: LoadedStudy) -> BackendStudy:
            raise ModelOutputError(opened.models["levels"], "its output is not finite")

        def prefetch(self, study: LoadedStudy) -> None:
            """Nothing to be done."""

        def record(self) -> dict[str, Any]:
            return {}

        def close(self) -> None:
            """Nothing to be given back."""

    monkeypatch.setattr(
        opening, "open_backend", lambda *_: (Gpu(), BackendChoice("tensorrt", "it was asked for"))
    )
    options = GradeOptions(pack=pack, device="gpu", cpu_if_gpu_fails=allowed)
    outcome = grade_paths([write_studies(tmp_path / "in", 2)], tmp_path / "out", options, _look)
    assert (outcome.graded, outcome.failed) == ((2, 0) if allowed else (0, 2))
    failures = json.loads((tmp_path / "out" / "run.json").read_text())["backend"]["gpu_failures"]
    assert len(failures) == (2 if allowed else 0)
    rows = _rows(tmp_path / "out" / ("results.csv" if allowed else "errors.csv"))
    if allowed:
        assert all("graded_on_cpu" in row["warnings"] for row in rows)
    else:
        assert all("its output is not finite" in row["reason"] for row in rows)


def test_what_reading_took_is_not_known_without_proc_and_recorded_so(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_peak_memory_bytes", lambda pid: 0)
    _grade([write_studies(tmp_path / "in", 1)], tmp_path / "out", pack)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["peak_memory_bytes"]["reading"] is None


def test_a_stray_text_file_changes_no_exit_code_but_a_broken_image_does(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 1)
    (folder / "README.txt").write_text("hello")
    assert _grade([folder], tmp_path / "one", pack).exit_code == 0
    whole = next(folder.rglob("*.dcm")).read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:400])
    outcome = _grade([folder], tmp_path / "two", pack)
    assert (outcome.lost_files, outcome.exit_code) == (1, 1)


def test_an_empty_folder_is_no_success(tmp_path: Path, pack: Path) -> None:
    (tmp_path / "in").mkdir()
    assert _grade([tmp_path / "in"], tmp_path / "out", pack).exit_code == 1
    assert _rows(tmp_path / "out" / "results.csv") == []


def test_output_inside_the_input_is_not_taken_for_input(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 2)
    (folder / "notes.json").write_text("{}")
    for resume in (False, True):
        outcome = _grade([folder], folder / "out", pack, resume=resume)
        assert outcome.exit_code == 0
        assert [row["path"] for row in _rows(folder / "out" / "errors.csv")] == [str(folder / "notes.json")]
        record = json.loads((folder / "out" / "run.json").read_text())
        assert record["counts"]["files"] == 13


def test_a_file_name_that_is_no_utf_8_does_not_stop_the_batch(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 1)
    with open(os.fsencode(folder) + b"/M\xfcller.dcm", "wb") as stream:
        stream.write(b"hello")
    outcome = _grade([folder], tmp_path / "out", pack)
    assert (outcome.graded, outcome.problems) == (1, 1)


def test_resuming_skips_what_is_done_and_keeps_its_rows(tmp_path: Path, pack: Path) -> None:
    folder, out = write_studies(tmp_path / "in", 2), tmp_path / "out"
    _grade([folder], out, pack)
    before = _rows(out / "results.csv")
    write_studies(folder, 4)
    outcome = _grade([folder], out, pack, resume=True)
    assert (outcome.graded, outcome.skipped, outcome.exit_code) == (2, 2, 0)
    after = _rows(out / "results.csv")
    assert len(after) == 4 * len(LEVELS)
    assert all(row in after for row in before)


def test_what_earlier_runs_cost_is_kept_when_a_run_is_resumed(tmp_path: Path, pack: Path) -> None:
    folder, out = write_studies(tmp_path / "in", 2), tmp_path / "out"
    _grade([folder], out, pack)
    first = json.loads((out / "run.json").read_text())
    assert first.pop("earlier") == []
    for _ in range(2):
        _grade([folder], out, pack, resume=True)
        record = json.loads((out / "run.json").read_text())
        assert (record["counts"]["graded"], record["counts"]["skipped"]) == (0, 2)
        assert record["earlier"] == [first]
    write_studies(folder, 3)
    for _ in range(2):
        _grade([folder], out, pack, resume=True)
    earlier = json.loads((out / "run.json").read_text())["earlier"]
    assert [record["counts"]["graded"] for record in earlier] == [2, 1]


def test_studies_are_graded_in_the_order_of_their_folders(tmp_path: Path, pack: Path) -> None:
    seen: list[str] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        seen.append(Path(study.header.path).name)
        return stand_in.grade(study, pack, backend)

    options = GradeOptions(pack=pack, device="cpu")
    grade_paths([write_studies(tmp_path / "in", 5)], tmp_path / "out", options, grade)
    assert seen == [f"study{number}" for number in range(5)]
    rows = _rows(tmp_path / "out" / "results.csv")
    uids = [generate_uid(entropy_srcs=["study", str(number)]) for number in range(5)]
    assert [row["study_uid"] for row in rows[:: len(LEVELS)]] == uids


def test_a_pack_that_cannot_be_used_leaves_no_output_folder(tmp_path: Path) -> None:
    broken = write_tiny_pack(tmp_path / "pack").path
    content = json.loads((broken / "pack.json").read_text())
    models = content["models"]
    for key in ("file", "sha256"):
        models["levels"][key], models["cord"][key] = models["cord"][key], models["levels"][key]
    (broken / "pack.json").write_text(json.dumps(content))
    with pytest.raises(PackError):
        _grade([write_studies(tmp_path / "in", 1)], tmp_path / "out", broken)
    assert not (tmp_path / "out").exists()


def test_a_study_that_was_graded_half_copied_is_graded_again(
    tmp_path: Path, pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_studies(tmp_path / "in", 2, slices=6), tmp_path / "out"
    _grade([folder], out, pack)
    write_studies(folder, 1, slices=8)
    outcome = _grade([folder], out, pack, resume=True)
    assert (outcome.graded, outcome.skipped) == (1, 1)
    assert "other images than before: 1" in capsys.readouterr().err


def test_too_few_whole_sagittal_files_are_not_graded(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 1)
    for path in sorted(folder.rglob("*.dcm"))[:3]:
        path.write_bytes(path.read_bytes()[:-50_000])
    outcome = _grade([folder], tmp_path / "out", pack)
    assert (outcome.graded, outcome.failed) == (0, 1)
    reasons = [row["reason"] for row in _rows(tmp_path / "out" / "errors.csv")]
    assert reasons.count("The file ends within its pixels.") == 3
    assert any("it has only 3 sagittal slices" in reason for reason in reasons)
    assert len(reasons) == 4


def test_too_few_decodable_sagittal_slices_are_not_graded(tmp_path: Path, pack: Path) -> None:
    for number in range(6):
        content = compressed(dataset(number), RLELossless)
        if number < 3:
            content.PixelData = content.PixelData[:100] + bytes(len(content.PixelData) - 100)
        write(tmp_path / "in" / f"{number}.dcm", content, RLELossless)
    outcome = _grade([tmp_path / "in"], tmp_path / "out", pack)
    assert (outcome.graded, outcome.failed) == (0, 1)
    reasons = [row["reason"] for row in _rows(tmp_path / "out" / "errors.csv")]
    assert "cannot grade: only 3 sagittal slices could be read." in reasons
    assert outcome.lost_files == 3
    assert len(reasons) == 4


def test_an_image_that_is_lost_when_it_is_decoded_counts_as_lost(tmp_path: Path, pack: Path) -> None:
    """Its study is graded from the others; the run says so, and says so again when it is resumed."""
    for number in range(8):
        content = compressed(dataset(number), RLELossless)
        if number == 3:
            content.PixelData = content.PixelData[:100] + bytes(len(content.PixelData) - 100)
        write(tmp_path / "in" / f"{number}.dcm", content, RLELossless)
    for resume in (False, True):
        outcome = _grade([tmp_path / "in"], tmp_path / "out", pack, resume=resume)
        assert outcome.graded + outcome.skipped == 1
        assert (outcome.failed, outcome.lost_files, outcome.exit_code) == (0, 1, 1)
        record = json.loads((tmp_path / "out" / "run.json").read_text())
        assert record["counts"]["lost_files"] == 1


def test_images_lost_under_a_limit_are_read_when_the_run_is_resumed_with_another(
    tmp_path: Path, pack: Path
) -> None:
    for number in range(9):
        size = 512 if number == 4 else 256
        tags = {"Rows": size, "Columns": size, "PixelData": bytes(size * size * 2)}
        content = dataset(number, **tags, PixelSpacing=[179.2 / size] * 2)
        write(tmp_path / "in" / f"{number}.dcm", compressed(content, RLELossless), RLELossless)
    seen: list[tuple[int, bool]] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        seen.append((len(study.sagittal), "slices_unreadable" in study.warnings))
        return stand_in.grade(study, pack, backend)

    def run(**limits: int) -> RunSummary:
        options = GradeOptions(pack=pack, device="cpu", resume=True, limits=ReadLimits(**limits))
        return grade_paths([tmp_path / "in"], tmp_path / "out", options, grade)

    assert run(max_frame_pixels=256 * 256).lost_files == 1
    assert run(max_frame_pixels=256 * 256).skipped == 1
    assert run().exit_code == 0
    assert run().skipped == 1
    assert seen == [(8, True), (9, False)]


def _lose_one_slice(folder: Path) -> None:
    for number in range(9):
        content = compressed(dataset(number), RLELossless)
        if number == 4:
            content.PixelData = content.PixelData[:100] + bytes(len(content.PixelData) - 100)
        write(folder / f"{number}.dcm", content, RLELossless)


def test_a_study_with_a_broken_slice_is_done_until_limits_or_decoders_are_others(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _lose_one_slice(tmp_path / "in")
    first = _grade([tmp_path / "in"], tmp_path / "out", pack)
    assert (first.graded, first.lost_files, first.exit_code) == (1, 1, 1)
    again = _grade([tmp_path / "in"], tmp_path / "out", pack, resume=True)
    assert (again.graded, again.skipped, again.lost_files, again.exit_code) == (0, 1, 1, 1)
    larger = ReadLimits(decode_memory_bytes=2 << 30)
    other = _grade([tmp_path / "in"], tmp_path / "out", pack, resume=True, limits=larger)
    assert (other.graded, other.skipped) == (1, 0)
    assert "lost images that may be read now: 1." in capsys.readouterr().err
    real = run_record.package_version
    monkeypatch.setattr(run_record, "package_version", lambda name: "9" if name == "pydicom" else real(name))
    newer = _grade([tmp_path / "in"], tmp_path / "out", pack, resume=True, limits=larger)
    assert (newer.graded, newer.skipped) == (1, 0)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed the reading process"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "longer than the limit"),
    ],
)
def test_a_study_that_lost_a_slice_with_its_process_is_graded_with_a_flag_and_read_again(
    does: str, reason: str, tmp_path: Path, pack: Path
) -> None:
    folder = write_studies(tmp_path / "in", 2, slices=8)
    lines = f"""
def pixels(memory, path, frames, limits, real=reading_process.pixels):
    if path.match("study0/003.dcm"):
        {does}
    return real(memory, path, frames, limits)

reading_process.pixels = pixels
"""
    limits = ReadLimits(timeout_seconds=2.0)
    with pytest.MonkeyPatch.context() as patch:
        alter(tmp_path, patch, lines)
        outcome = _grade([folder], tmp_path / "out", pack, limits=limits)
        assert (outcome.graded, outcome.failed, outcome.lost_files) == (2, 0, 1)
        (error,) = _rows(tmp_path / "out" / "errors.csv")
        assert reason in error["reason"]
        assert (error["of_study"], error["harmless"]) == ("no", "no")
    outcome = _grade([folder], tmp_path / "out", pack, limits=limits, resume=True)
    assert (outcome.graded, outcome.skipped, outcome.lost_files, outcome.exit_code) == (1, 1, 0, 0)
    assert _rows(tmp_path / "out" / "errors.csv") == []


def test_a_study_that_no_process_could_be_started_for_fails_alone_and_is_read_again(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_studies(tmp_path / "in", 3)
    real_popen, started = subprocess.Popen, []

    def popen(*arguments: Any, **options: Any) -> Any:
        started.append(1)
        if len(started) in (2, 3, 4):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real_popen(*arguments, **options)

    read: list[str] = []
    original = study_reader.select_series

    def killing(study: StudyHeader, tried: Sequence[int] = ()) -> SeriesSelection:
        read.append(study.path)
        if len(read) == 2:
            (process,) = readers[0]._processes
            process.stop()
        return original(study, tried)

    readers: list[DicomReader] = []
    begun = DicomReader.start
    monkeypatch.setattr(DicomReader, "start", lambda self: (readers.append(self), begun(self))[1])
    monkeypatch.setattr(process_module, "_START_WAITS", (0.01, 0.02))
    monkeypatch.setattr(process_module.subprocess, "Popen", popen)
    monkeypatch.setattr(study_reader, "select_series", killing)
    outcome = _grade([folder], tmp_path / "out", pack)
    assert (outcome.graded, outcome.failed, outcome.lost_files, outcome.exit_code) == (2, 1, 0, 1)
    (error,) = _rows(tmp_path / "out" / "errors.csv")
    assert (error["path"], error["stage"], error["of_study"]) == (str(folder / "study1"), "pixels", "yes")
    assert error["reason"] == (
        "cannot grade: The process that reads files cannot be started (Resource temporarily unavailable)."
    )
    outcome = _grade([folder], tmp_path / "out", pack, resume=True)
    assert (outcome.graded, outcome.skipped, outcome.exit_code) == (1, 2, 0)


def test_a_series_that_is_not_chosen_is_never_decoded(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_studies(tmp_path / "in", 1)
    for number in range(6):
        t1 = dataset(number, EchoTime=12.0, RepetitionTime=600.0, SeriesInstanceUID="1.2.3")
        t1.StudyInstanceUID = generate_uid(entropy_srcs=["study", "0"])
        write(folder / "t1" / f"{number}.dcm", t1)
    decoded: list[Path] = []
    real = ReadingProcess.ask

    def ask(self: ReadingProcess, kind: str, *arguments: Any) -> list[Any]:
        if kind == "pixels":
            decoded.append(arguments[0])
        if kind == "images":
            decoded.extend(path for path, *_ in arguments[0])
        return real(self, kind, *arguments)

    monkeypatch.setattr(ReadingProcess, "ask", ask)
    assert _grade([folder], tmp_path / "out", pack).graded == 1
    assert sorted(decoded) == sorted((folder / "study0").rglob("*.dcm"))


def test_a_sagittal_series_over_the_limit_is_not_graded_and_says_how(tmp_path: Path, pack: Path) -> None:
    limits = ReadLimits(max_series_bytes=1000)
    outcome = _grade([write_studies(tmp_path / "in", 1)], tmp_path / "out", pack, limits=limits)
    assert (outcome.graded, outcome.failed) == (0, 1)
    first, last = _rows(tmp_path / "out" / "errors.csv")
    assert "over the limit" in first["reason"]
    assert first["what_to_do"] == "Raise it with --read-limit max_series_bytes=1MiB."
    assert last["reason"].startswith("cannot grade: ")


def test_a_file_lost_with_its_header_flags_its_study(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 2, slices=8)
    first = sorted(folder.rglob("*.dcm"))[0]
    first.write_bytes(first.read_bytes()[:-50_000])
    warnings: list[tuple[str, ...]] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        warnings.append(study.warnings)
        return stand_in.grade(study, pack, backend)

    outcome = grade_paths([folder], tmp_path / "out", GradeOptions(pack=pack, device="cpu"), grade)
    assert (outcome.graded, outcome.lost_files, outcome.exit_code) == (2, 1, 1)
    assert sorted("slices_unreadable" in found for found in warnings) == [False, True]


def test_a_missing_slice_is_flagged(tmp_path: Path, pack: Path) -> None:
    folder = tmp_path / "in"
    paths = series(folder, 9)
    paths[4].unlink()
    warnings: list[tuple[str, ...]] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        warnings.append(study.warnings)
        return stand_in.grade(study, pack, backend)

    grade_paths([folder], tmp_path / "out", GradeOptions(pack=pack, device="cpu"), grade)
    assert "sagittal_slice_gap" in warnings[0]


def test_the_next_study_is_read_while_one_is_computed_and_no_further(tmp_path: Path, pack: Path) -> None:
    """While a study is computed, the one after it has been chosen and read, and none beyond that."""
    folder = write_studies(tmp_path / "in", 5)
    read: list[str] = []
    ahead: list[int] = []
    original = study_reader.select_series

    def counting(study: StudyHeader, tried: Sequence[int] = ()) -> SeriesSelection:
        read.append(study.study_uid)
        return original(study, tried)

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        deadline = time.monotonic() + 20
        while len(read) < min(len(ahead) + 2, 5) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        ahead.append(len(read) - len(ahead) - 1)
        return stand_in.grade(study, pack, backend)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_reader, "select_series", counting)
        grade_paths([folder], tmp_path / "out", GradeOptions(pack=pack, device="cpu"), grade)
    assert ahead == [1, 1, 1, 1, 0]


_RUN = """
import sys, time
from dataclasses import replace
from pathlib import Path
from typing import Any
import stand_in
from stenosis_trt.engine.runs import batch

batch._SECONDS_BETWEEN_TABLES, batch._TABLES_SHARE = 0.0, 1.0

def grade(study, pack, backend):
    time.sleep(0.02)
    result = stand_in.grade(study, pack, backend)
    return replace(result, cord_slices=result.cord_slices * int(sys.argv[4]))

if __name__ == "__main__":
    options = batch.GradeOptions(pack=Path(sys.argv[3]), device="cpu", resume=True)
    try:
        batch.grade_paths([Path(sys.argv[1])], Path(sys.argv[2]), options, grade)
    except KeyboardInterrupt:
        sys.exit(130)
"""


_MANY_CORD_SLICES = 5000


def _start(folder: Path, out: Path, pack: Path, cord_slices: int = 1) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(stand_in.__file__).parent)}
    command = [sys.executable, "-c", _RUN, str(folder), str(out), str(pack), str(cord_slices)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, preexec_fn=default_signals)


def _kept(out: Path) -> list[Path]:
    return [
        path for path in (out / "studies").glob("*.json") if path.name not in ("made_with.json", "state.json")
    ]


def _wait_for(out: Path, studies: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while len(_kept(out)) < studies and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def test_a_run_killed_at_any_moment_leaves_only_whole_files_and_can_be_resumed(
    tmp_path: Path, pack: Path
) -> None:
    """Results are large here, and the tables written after every study, so that most kills meet a write."""
    folder, out = write_studies(tmp_path / "in", 16), tmp_path / "out"
    moments = random.Random(7)
    done = killed = halves = 0
    for _ in range(6):
        process = _start(folder, out, pack, _MANY_CORD_SLICES)
        _wait_for(out, done + 1, process)
        time.sleep(moments.uniform(0.0, 0.3))
        killed += process.poll() is None
        process.kill()
        process.wait()
        halves += len(list(out.rglob("*.part")))
        kept = _kept(out)
        for path in kept:
            assert len(json.loads(path.read_text())["result"]["levels"]) == len(LEVELS)
        for name in ("results.csv", "errors.csv"):
            if (out / name).exists():
                assert (out / name).read_text().endswith("\n")
                assert len(_rows(out / name)) % len(LEVELS) == 0
        if (out / "results.jsonl").exists():
            for line in (out / "results.jsonl").read_text().splitlines():
                assert json.loads(line)["study_uid"]
        assert len(kept) >= done
        done = len(kept)
    assert killed >= 4, "most kills must meet a run at work"
    assert halves, "some kills must meet a file half written"
    assert _start(folder, out, pack, _MANY_CORD_SLICES).wait(60) == 0
    rows = _rows(out / "results.csv")
    assert len(rows) == len({(row["study_uid"], row["level"]) for row in rows}) == 16 * len(LEVELS)
    assert not list(out.rglob("*.part"))
    assert json.loads((out / "run.json").read_text())["counts"]["skipped"] == done


def test_the_reading_processes_of_a_killed_run_end_too(tmp_path: Path, pack: Path) -> None:
    process = _start(write_studies(tmp_path / "in", 12), tmp_path / "out", pack)
    _wait_for(tmp_path / "out", 1, process)
    readers = children(process.pid)
    assert readers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(is_running, readers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, readers))


def test_an_interrupted_run_leaves_tables_of_what_it_graded(tmp_path: Path, pack: Path) -> None:
    out = tmp_path / "out"
    process = _start(write_studies(tmp_path / "in", 40), out, pack)
    _wait_for(out, 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    kept = len(_kept(out))
    assert 2 <= kept < 40
    assert len(_rows(out / "results.csv")) == kept * len(LEVELS)
    record = json.loads((out / "run.json").read_text())
    assert (record["finished"], record["counts"]["graded"]) == (False, kept)


def test_a_study_in_an_archive_is_graded_and_known_again_unpacked_or_not(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 2)
    archive = shutil.make_archive(str(tmp_path / "sent" / "export"), "zip", folder)
    outcome = _grade([tmp_path / "sent"], tmp_path / "out", pack)
    assert (outcome.graded, outcome.problems, outcome.exit_code) == (2, 0, 0)
    for again in (tmp_path / "sent", folder):
        outcome = _grade([again], tmp_path / "out", pack, resume=True)
        assert (outcome.graded, outcome.skipped, outcome.exit_code) == (0, 2, 0)

    def refuse(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        raise CannotGrade(Stage.LEVELS, "Nothing was recognised.", "Look at it.")

    grade_paths([tmp_path / "sent"], tmp_path / "other", GradeOptions(pack=pack, device="cpu"), refuse)
    assert {row["path"] for row in _rows(tmp_path / "other" / "errors.csv")} == {archive}


def test_a_study_that_was_sent_twice_by_two_archives_is_graded_once(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 1)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        content = pydicom.dcmread(path)
        content.RetrieveAETitle = "PACS2"
        write(tmp_path / "in" / "again" / path.name, content)
    outcome = _grade([tmp_path / "in"], tmp_path / "out", pack)
    assert (outcome.graded, outcome.problems, outcome.exit_code) == (1, 1, 0)
    assert [row["harmless"] for row in _rows(tmp_path / "out" / "errors.csv")] == ["yes"]


def test_two_patients_with_one_study_uid_are_graded_each_and_their_results_say_so(
    tmp_path: Path, pack: Path
) -> None:
    for number, patient in enumerate(("ANN", "BEN")):

        def change(content: Dataset, index: int, number: int = number, patient: str = patient) -> None:
            content.SeriesInstanceUID, content.PatientID = f"1.2.3.{number}", patient

        series(tmp_path / "in" / patient, 6, change)
    seen: list[tuple[str, set[str], tuple[str, ...]]] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        folders = {item.frame.path.parent.name for item in study.sagittal}
        seen.append((study.sagittal_series.patient_id, folders, study.warnings))
        return replace(stand_in.grade(study, pack, backend), warnings=study.warnings)

    options = GradeOptions(pack=pack, device="cpu", keep_identifiers=True)
    outcome = grade_paths([tmp_path / "in"], tmp_path / "out", options, grade)
    assert (outcome.studies, outcome.graded, outcome.exit_code) == (2, 2, 0)
    warnings = ("study_uid_shared", "no_axial_series")
    assert seen == [("ANN", {"ANN"}, warnings), ("BEN", {"BEN"}, warnings)]
    rows = _rows(tmp_path / "out" / "results.csv")
    assert [row["patient_id"] for row in rows[:: len(LEVELS)]] == ["ANN", "BEN"]
    assert all("study_uid_shared" in row["warnings"] for row in rows)
    again = grade_paths([tmp_path / "in"], tmp_path / "out", replace(options, resume=True), grade)
    assert (again.graded, again.skipped) == (0, 2)


def test_nothing_of_a_patients_identity_is_written(tmp_path: Path, pack: Path) -> None:
    for patient in ("ANN", "BEN"):

        def change(content: Dataset, index: int, patient: str = patient) -> None:
            content.SeriesInstanceUID = f"1.2.3.{len(patient)}"
            content.PatientID, content.PatientName = f"SECRET-{patient}", f"Hidden^{patient}"
            content.PatientBirthDate = "19310203"

        series(tmp_path / "in" / patient.lower(), 6, change)
    _grade([tmp_path / "in"], tmp_path / "out", pack)
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not any(word in content for content in written for word in (b"SECRET", b"Hidden", b"19310203"))
