"""Batches: one study's fault stays its own, resuming, kills, exit codes, what is recorded."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stand_in
from dicom_factory import compressed, dataset, series, write
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, generate_uid
from stand_in import write_studies
from tiny_pack import write_tiny_pack

from stenosis_trt.engine import study_reader
from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.batch import GradeOptions, Outcome, grade_paths
from stenosis_trt.engine.choose import Choice, choose
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.process import ReadingProcess
from stenosis_trt.engine.pack import Pack, PackError
from stenosis_trt.engine.pipeline import CannotGrade
from stenosis_trt.engine.records import LEVELS, LoadedStudy, Stage, StudyHeader, StudyResult


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


def _grade(paths: list[Path], out: Path, pack: Path, **options: object) -> Outcome:
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


def test_a_study_whose_choice_fails_does_not_stop_the_others(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_studies(tmp_path / "in", 3)
    fails = str(folder / "study1")

    def failing(study: StudyHeader) -> Choice:
        if study.path == fails:
            raise KeyError("SECRET-ID")
        return choose(study)

    monkeypatch.setattr(study_reader, "choose", failing)
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
    assert first["what_to_do"] == "Raise it with --limit max_series_bytes=1MiB."
    assert last["reason"].startswith("cannot grade: ")


def test_a_file_lost_with_its_header_flags_its_study(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 2, slices=8)
    first = sorted(folder.rglob("*.dcm"))[0]
    first.write_bytes(first.read_bytes()[:-50_000])
    flags: list[tuple[str, ...]] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        flags.append(study.flags)
        return stand_in.grade(study, pack, backend)

    outcome = grade_paths([folder], tmp_path / "out", GradeOptions(pack=pack, device="cpu"), grade)
    assert (outcome.graded, outcome.lost_files, outcome.exit_code) == (2, 1, 1)
    assert sorted("slices_unreadable" in found for found in flags) == [False, True]


def test_a_missing_slice_is_flagged(tmp_path: Path, pack: Path) -> None:
    folder = tmp_path / "in"
    paths = series(folder, 9)
    paths[4].unlink()
    flags: list[tuple[str, ...]] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        flags.append(study.flags)
        return stand_in.grade(study, pack, backend)

    grade_paths([folder], tmp_path / "out", GradeOptions(pack=pack, device="cpu"), grade)
    assert "sagittal_slice_gap" in flags[0]


def test_the_next_study_is_read_while_one_is_computed_and_no_further(tmp_path: Path, pack: Path) -> None:
    """While a study is computed, the one after it has been chosen and read, and none beyond that."""
    folder = write_studies(tmp_path / "in", 5)
    read: list[str] = []
    ahead: list[int] = []
    original = study_reader.choose

    def counting(study: StudyHeader) -> Choice:
        read.append(study.study_uid)
        return original(study)

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        deadline = time.monotonic() + 20
        while len(read) < min(len(ahead) + 2, 5) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        ahead.append(len(read) - len(ahead) - 1)
        return stand_in.grade(study, pack, backend)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_reader, "choose", counting)
        grade_paths([folder], tmp_path / "out", GradeOptions(pack=pack, device="cpu"), grade)
    assert ahead == [1, 1, 1, 1, 0]


_RUN = """
import sys, time
from dataclasses import replace
from pathlib import Path
from typing import Any
import stand_in
from stenosis_trt.engine import batch

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
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def _kept(out: Path) -> list[Path]:
    return [path for path in (out / "studies").glob("*.json") if path.name != "made_with.json"]


def _wait_for(out: Path, studies: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while len(_kept(out)) < studies and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
    children = _children(process.pid)
    assert children
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(_is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_is_running, children))


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
        seen.append((study.sagittal_series.patient_id, folders, study.flags))
        return replace(stand_in.grade(study, pack, backend), flags=study.flags)

    options = GradeOptions(pack=pack, device="cpu", keep_identifiers=True)
    outcome = grade_paths([tmp_path / "in"], tmp_path / "out", options, grade)
    assert (outcome.studies, outcome.graded, outcome.exit_code) == (2, 2, 0)
    flags = ("study_uid_shared", "no_axial_series")
    assert seen == [("ANN", {"ANN"}, flags), ("BEN", {"BEN"}, flags)]
    rows = _rows(tmp_path / "out" / "results.csv")
    assert [row["patient_id"] for row in rows[:: len(LEVELS)]] == ["ANN", "BEN"]
    assert all("study_uid_shared" in row["flags"] for row in rows)
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
