"""Output folders and batches: tables, crash safety, resuming, exit codes."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dicom_factory import series
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.batch import GradeOptions, Outcome, grade_paths
from stenosis_trt.engine.outputs import ERROR_COLUMNS, RESULT_COLUMNS, OutputError, ResultStore, write_whole
from stenosis_trt.engine.pack import Pack
from stenosis_trt.engine.pipeline import CannotGrade
from stenosis_trt.engine.records import (
    LEVELS,
    CordMeasurement,
    LevelResult,
    LoadedStudy,
    Problem,
    Stage,
    StudyResult,
)

CORNER = (0.0, 0.0, 0.0)


def _result(uid: str, patient_id: str = "SECRET-ID") -> StudyResult:
    cord = CordMeasurement("9.9", (CORNER,) * 4, 6.5, 13.0, 0.5, 0.9)
    graded = LevelResult("C2/3", (1.0, 2.0, 3.0), 2, (0.1, 0.1, 0.7, 0.1), cord, "8.8", 0.7)
    others = tuple(
        LevelResult(level, None, None, None, None, "", 0.1, ("level_not_found",)) for level in LEVELS[1:]
    )
    return StudyResult(
        uid, patient_id, "1.1", "1.2", (graded, *others), (cord,), ("sagittal_slice_gap",), {"grade": 0.1}
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _studies(folder: Path, count: int) -> Path:
    for number in range(count):

        def change(content: Dataset, index: int, number: int = number) -> None:
            content.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(number)])
            content.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(number)])
            content.SOPInstanceUID = generate_uid(entropy_srcs=["image", str(number), str(index)])

        series(folder / f"study{number}", 6, change)
    return folder


def _stand_in(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
    return _result(study.header.study_uid, study.sagittal_series.patient_id)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


def _grade(paths: list[Path], out: Path, pack: Path, **options: object) -> Outcome:
    return grade_paths(paths, out, GradeOptions(pack=pack, device="cpu", **options), _stand_in)  # type: ignore[arg-type]


def test_the_tables_have_the_designs_columns_and_one_row_a_level(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, {"pack": "a"}, resume=False)
    store.add(_result("1.2.3"), [Problem("/x", Stage.PIXELS, "Broken.", "Send again.", "1.2.3")])
    store.write_tables(["1.2.3"], [Problem("/y", Stage.FIND, "Gone.", "Look.")])
    rows = _rows(tmp_path / "results.csv")
    assert tuple(rows[0]) == RESULT_COLUMNS
    assert [row["level"] for row in rows] == list(LEVELS)
    assert rows[0]["kang_grade"] == "2"
    assert rows[0]["compression_ratio"] == "0.5"
    assert rows[0]["flags"] == "sagittal_slice_gap"
    assert rows[1]["kang_grade"] == rows[1]["p0"] == rows[1]["x_mm"] == ""
    assert rows[1]["flags"] == "level_not_found;sagittal_slice_gap"
    errors = _rows(tmp_path / "errors.csv")
    assert tuple(errors[0]) == ERROR_COLUMNS
    assert [row["path"] for row in errors] == ["/y", "/x"]
    assert errors[1]["stage"] == "pixels"
    assert json.loads((tmp_path / "results.jsonl").read_text())["study_uid"] == "1.2.3"


def test_a_folder_with_results_is_not_written_over(tmp_path: Path) -> None:
    ResultStore(tmp_path, {"pack": "a"}, resume=False)
    with pytest.raises(OutputError, match="--resume"):
        ResultStore(tmp_path, {"pack": "a"}, resume=False)


def test_results_of_two_packs_are_not_mixed(tmp_path: Path) -> None:
    ResultStore(tmp_path, {"pack": "a", "version": "1"}, resume=False)
    with pytest.raises(OutputError, match="another pack"):
        ResultStore(tmp_path, {"pack": "b", "version": "1"}, resume=True)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "second \ud800")
    assert path.read_text() == "first"


def test_file_names_hold_no_identifier(tmp_path: Path, pack: Path) -> None:
    _grade([_studies(tmp_path / "in", 1)], tmp_path / "out", pack)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any("SECRET" in str(path) or "SECRET" in path.read_text() for path in written)


def test_identifiers_are_kept_when_asked_for(tmp_path: Path, pack: Path) -> None:
    _grade([_studies(tmp_path / "in", 1)], tmp_path / "out", pack, keep_identifiers=True)
    assert {row["patient_id"] for row in _rows(tmp_path / "out" / "results.csv")} == {"SECRET-ID"}


def test_a_run_is_recorded(tmp_path: Path, pack: Path) -> None:
    outcome = _grade([_studies(tmp_path / "in", 2)], tmp_path / "out", pack)
    assert outcome.exit_code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["counts"]["graded"] == 2
    assert record["pack"]["sha256"] == Pack.load(pack).sha256
    assert set(record["models"]) == {"levels", "grader", "cord"}
    assert record["backend"] == {"backend": "onnxruntime", "reason": "the CPU was asked for"}
    assert record["seconds"]["stages"]["read"]["sum"] > 0
    assert record["peak_memory_bytes"]["process"] > 0
    assert os.uname().nodename not in json.dumps(record["machine"])


def test_one_failing_study_does_not_stop_the_others(tmp_path: Path, pack: Path) -> None:
    seen: list[str] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        seen.append(study.header.study_uid)
        if len(seen) == 1:
            raise CannotGrade(Stage.LEVELS, "Nothing was recognised.", "Look at it.")
        if len(seen) == 2:
            raise ZeroDivisionError("SECRET-ID")
        return _stand_in(study, pack, backend)

    options = GradeOptions(pack=pack, device="cpu")
    outcome = grade_paths([_studies(tmp_path / "in", 4)], tmp_path / "out", options, grade)
    assert (outcome.graded, outcome.failed, outcome.exit_code) == (2, 2, 1)
    errors = _rows(tmp_path / "out" / "errors.csv")
    assert [row["reason"] for row in errors] == [
        "cannot grade: Nothing was recognised.",
        "cannot grade: the program failed (ZeroDivisionError).",
    ]
    assert {row["study_uid"] for row in errors} == set(seen[:2])


def test_a_stray_text_file_changes_no_exit_code_but_a_broken_image_does(tmp_path: Path, pack: Path) -> None:
    folder = _studies(tmp_path / "in", 1)
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


def test_resuming_skips_what_is_done_and_keeps_its_rows(tmp_path: Path, pack: Path) -> None:
    folder, out = _studies(tmp_path / "in", 2), tmp_path / "out"
    _grade([folder], out, pack)
    before = _rows(out / "results.csv")
    _studies(folder, 4)
    outcome = _grade([folder], out, pack, resume=True)
    assert (outcome.graded, outcome.skipped, outcome.exit_code) == (2, 2, 0)
    after = _rows(out / "results.csv")
    assert len(after) == 4 * len(LEVELS)
    assert all(row in after for row in before)


def test_too_few_readable_sagittal_slices_are_not_graded(tmp_path: Path, pack: Path) -> None:
    folder = _studies(tmp_path / "in", 1)
    for path in sorted(folder.rglob("*.dcm"))[:3]:
        path.write_bytes(path.read_bytes()[:-50_000])
    outcome = _grade([folder], tmp_path / "out", pack)
    assert (outcome.graded, outcome.failed) == (0, 1)
    reasons = [row["reason"] for row in _rows(tmp_path / "out" / "errors.csv")]
    assert "cannot grade: only 3 sagittal slices could be read." in reasons
    assert len(reasons) == 4


def test_a_missing_slice_is_flagged(tmp_path: Path, pack: Path) -> None:
    folder = tmp_path / "in"
    paths = series(folder, 9)
    paths[4].unlink()
    flags: list[tuple[str, ...]] = []

    def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        flags.append(study.flags)
        return _stand_in(study, pack, backend)

    grade_paths([folder], tmp_path / "out", GradeOptions(pack=pack, device="cpu"), grade)
    assert "sagittal_slice_gap" in flags[0]


_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_outputs_batch import _stand_in
from stenosis_trt.engine.batch import GradeOptions, grade_paths

def grade(study, pack, backend):
    time.sleep(0.05)
    return _stand_in(study, pack, backend)

resume = (Path(sys.argv[2]) / "studies" / "made_with.json").exists()
options = GradeOptions(pack=Path(sys.argv[3]), device="cpu", resume=resume)
grade_paths([Path(sys.argv[1])], Path(sys.argv[2]), options, grade)
"""


def test_a_run_killed_at_any_moment_leaves_only_whole_files_and_can_be_resumed(
    tmp_path: Path, pack: Path
) -> None:
    folder, out = _studies(tmp_path / "in", 12), tmp_path / "out"
    moments = random.Random(7)
    here = Path(__file__).parent
    command = [sys.executable, "-c", _RUN, str(folder), str(out), str(pack), str(here)]
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    done = 0
    for _ in range(4):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        marker, deadline = out / "studies", time.monotonic() + 60
        while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.2, 0.9))
        process.send_signal(signal.SIGKILL)
        process.wait()
        graded = [path for path in marker.glob("*.json") if path.name != "made_with.json"]
        for path in graded:
            assert json.loads(path.read_text())["result"]["levels"]
        for table in out.glob("*.csv"):
            assert table.read_text().endswith("\n")
        assert len(graded) >= done
        done = len(graded)
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert len(_rows(out / "results.csv")) == 12 * len(LEVELS)
    assert not list(out.rglob("*.part"))
