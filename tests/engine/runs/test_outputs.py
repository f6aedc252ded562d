"""Output folders: tables, what is never written over or mixed, what is left after a failure."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest
import stand_in

from stenosis_trt.engine.errors import NotWritten, OutputError
from stenosis_trt.engine.records import (
    LEVELS,
    FrameHeader,
    HealthyComparison,
    Problem,
    SeriesHeader,
    Stage,
    StudyHeader,
)
from stenosis_trt.engine.runs import outputs
from stenosis_trt.engine.runs.outputs import ResultStore
from stenosis_trt.engine.runs.tables import ERROR_COLUMNS, RESULT_COLUMNS, STUDY_COLUMNS, TableTotals
from stenosis_trt.engine.support.atomic_files import atomic_write, write_text_atomically

KIND = {"pack": "a", "numpy": "2"}


def _study(uid: str, images: int = 3) -> StudyHeader:
    frames = tuple(FrameHeader(Path(f"/{k}.dcm"), 0, f"{uid}.{k}", None) for k in range(images))
    return StudyHeader(uid, "/study", (SeriesHeader(uid, f"{uid}.9", "MR", frames),))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _problem(path: str, uid: str = "") -> Problem:
    return Problem(path, Stage.PIXELS, "Broken.", "Send again.", uid)


def test_the_tables_have_the_designs_columns_and_one_row_a_level(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.2.3"), stand_in.result("1.2.3"), [_problem("/x", "1.2.3")])
        harmless = Problem("/y", Stage.HEADER, "No image.", "Nothing to do.", harmless=True)
        assert store.write_tables(["1.2.3"], [harmless]) == TableTotals(1, 0, 2, lost_files=1, graded_now=1)
    rows = _rows(tmp_path / "results.csv")
    assert tuple(rows[0]) == RESULT_COLUMNS
    assert [row["level"] for row in rows] == list(LEVELS)
    assert rows[0]["kang_grade"] == "2"
    assert rows[0]["compression_ratio"] == "0.5"
    assert rows[0]["warnings"] == "sagittal_slice_gap"
    assert rows[1]["kang_grade"] == rows[1]["p0"] == rows[1]["x_mm"] == ""
    assert rows[1]["warnings"] == "level_not_found;sagittal_slice_gap"
    errors = _rows(tmp_path / "errors.csv")
    assert tuple(errors[0]) == ERROR_COLUMNS
    assert [row["path"] for row in errors] == ["/y", "/x"]
    assert errors[1]["stage"] == "pixels"
    assert [row["harmless"] for row in errors] == ["yes", "no"]
    assert json.loads((tmp_path / "results.jsonl").read_text())["study_uid"] == "1.2.3"


def test_a_level_unlike_the_training_says_so_in_both_tables_and_how_much_in_one(tmp_path: Path) -> None:
    whole = stand_in.result("1.2.3")
    unlike = replace(
        whole.levels[0], grade=None, probabilities=None, warnings=("out_of_distribution",), p_ood=0.75
    )
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.2.3"), replace(whole, levels=(unlike, *whole.levels[1:])), [])
        store.write_tables(["1.2.3"], [])
    row = _rows(tmp_path / "results.csv")[0]
    assert tuple(row) == RESULT_COLUMNS
    assert row["kang_grade"] == row["p0"] == row["p3"] == ""
    assert (row["x_mm"], row["compression_ratio"]) == ("1.0", "0.5")
    assert row["warnings"] == "out_of_distribution;sagittal_slice_gap"
    levels = json.loads((tmp_path / "results.jsonl").read_text())["levels"]
    assert [level["p_ood"] for level in levels] == [0.75] + [None] * 5


def test_comparisons_are_rounded_in_the_table_and_whole_in_the_lines(tmp_path: Path) -> None:
    whole = stand_in.result("1.2.3")
    healthy = HealthyComparison(compression_ratio_z=-1.23456, compression_ratio_percentile=8.76543)
    assert whole.levels[0].cord is not None
    cord = replace(whole.levels[0].cord, slice_angle_degrees=12.3456)
    compared = replace(whole.levels[0], cord=cord, mscc=-0.0123456, mscc_reference="below", healthy=healthy)
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.2.3"), replace(whole, levels=(compared, *whole.levels[1:])), [])
        store.write_tables(["1.2.3"], [])
    rows = _rows(tmp_path / "results.csv")
    assert list(rows[0].values())[-9:] == ["-0.0123", "below", "-1.23", "", "", "8.8", "", "", "12.3"]
    assert list(rows[1].values())[-9:-1] == [""] * 8
    levels = json.loads((tmp_path / "results.jsonl").read_text())["levels"]
    assert levels[0]["mscc"] == -0.0123456
    assert levels[0]["cord"]["slice_angle_degrees"] == 12.3456
    assert levels[0]["healthy"]["compression_ratio_z"] == -1.23456
    assert levels[1]["healthy"] is None


def test_columns_are_those_of_the_design() -> None:
    assert ",".join(RESULT_COLUMNS) == (
        "study_number,study_uid,patient_id,level,kang_grade,p0,p1,p2,p3,compression_ratio,ap_mm,transverse_mm,"
        "sagittal_sop_uid,sagittal_frame_number,axial_sop_uid,axial_frame_number,x_mm,y_mm,z_mm,confidence,warnings,"
        "mscc,mscc_reference,compression_ratio_z,ap_z,transverse_z,"
        "compression_ratio_percentile,ap_percentile,transverse_percentile,slice_angle_degrees"
    )
    assert ",".join(ERROR_COLUMNS) == "path,stage,reason,what_to_do,study_uid,study_number,harmless,of_study"
    assert ",".join(STUDY_COLUMNS) == (
        "study_number,study_uid,path,status,reason,sagittal_series_uid,axial_series_uid,"
        "grade_0,grade_1,grade_2,grade_3,ungraded,worst_grade,worst_level,warning_count,reports"
    )


def test_rows_come_in_the_order_of_the_studies_then_those_of_earlier_runs(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        for uid in ("1.1", "1.2", "1.3"):
            store.add(_study(uid), stand_in.result(uid), [])
        store.write_tables(["1.3", "1.1"], [])
    rows = _rows(tmp_path / "results.csv")
    assert [row["study_uid"] for row in rows[:: len(LEVELS)]] == ["1.3", "1.1", "1.2"]


def test_a_folder_with_results_is_not_written_over(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.1"), stand_in.result("1.1"), [])
    with pytest.raises(OutputError, match="--resume"):
        ResultStore(tmp_path, KIND, resume=False)


def test_a_run_that_was_killed_before_its_first_study_needs_no_resume(tmp_path: Path) -> None:
    ResultStore(tmp_path, KIND, resume=False).close()
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.1"), stand_in.result("1.1"), [])
        assert store.is_done(_study("1.1"))


@pytest.mark.parametrize("resume", [False, True])
def test_a_results_table_of_somebody_else_is_not_written_over(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"results\.csv that no run left"):
        ResultStore(tmp_path, KIND, resume)
    assert (tmp_path / "results.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["pack", "numpy"])
def test_results_made_differently_are_not_mixed(name: str, tmp_path: Path) -> None:
    ResultStore(tmp_path, KIND, resume=False).close()
    with pytest.raises(OutputError, match=f"another {name}"):
        ResultStore(tmp_path, {**KIND, name: "b"}, resume=True)


def test_identifiers_that_were_kept_before_are_named_by_their_option(tmp_path: Path) -> None:
    ResultStore(tmp_path, {**KIND, "identifiers": False}, resume=False).close()
    with pytest.raises(OutputError, match="another setting of --keep-identifiers"):
        ResultStore(tmp_path, {**KIND, "identifiers": True}, resume=True)


def test_two_runs_cannot_share_a_folder_at_the_same_time(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False), pytest.raises(OutputError, match="Another run"):
        ResultStore(tmp_path, KIND, resume=True)
    ResultStore(tmp_path, KIND, resume=True).close()


def test_the_folder_is_free_again_after_a_run_that_could_not_start(tmp_path: Path) -> None:
    ResultStore(tmp_path, KIND, resume=False).close()
    with pytest.raises(OutputError):
        ResultStore(tmp_path, {"pack": "b"}, resume=True)
    ResultStore(tmp_path, KIND, resume=True).close()


def test_a_study_is_done_only_for_the_images_it_was_graded_from(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.1", images=3), stand_in.result("1.1"), [])
        assert store.is_done(_study("1.1", images=3))
        assert not store.is_done(_study("1.1", images=4))
        assert not store.is_done(_study("1.2", images=3))


def test_a_study_that_failed_is_reported_until_it_is_graded(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add_failed(_study("1.1"), [_problem("/one", "1.1")])
    with ResultStore(tmp_path, KIND, resume=True) as store:
        assert not store.is_done(_study("1.1"))
        store.write_tables([], [])
        assert [row["path"] for row in _rows(tmp_path / "errors.csv")] == ["/one"]
        store.add(_study("1.1"), stand_in.result("1.1"), [])
        store.write_tables([], [])
    assert _rows(tmp_path / "errors.csv") == []
    assert len(_rows(tmp_path / "results.csv")) == len(LEVELS)


def test_a_result_from_other_images_than_there_are_now_is_discarded(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.1", images=3), stand_in.result("1.1"), [])
        assert not store.discard_outdated(_study("1.1", images=3))
        assert store.discard_outdated(_study("1.1", images=4))
        assert not store.discard_outdated(_study("1.1", images=4))
        assert store.write_tables(["1.1"], []) == TableTotals(0, 0, 0)
    assert _rows(tmp_path / "results.csv") == []


def _lost(**values: bool) -> Problem:
    return replace(_problem("/x", "1.1"), **values)


@pytest.mark.parametrize(
    ("problem", "read_with", "due"),
    [
        (_lost(), {"limits": {"max_frames": 1}}, False),
        (_lost(), {"limits": {"max_frames": 2}}, True),
        (_lost(), {"limits": {"max_frames": 1}, "decoders": {"pydicom": "9"}}, True),
        (_lost(temporary=True), {"limits": {"max_frames": 1}}, True),
        (_lost(harmless=True), {"limits": {"max_frames": 2}}, False),
        (None, {"limits": {"max_frames": 2}}, False),
    ],
)
def test_a_study_that_lost_images_is_done_as_long_as_no_more_of_them_can_be_read(
    problem: Problem | None, read_with: dict[str, Any], due: bool, tmp_path: Path
) -> None:
    with ResultStore(tmp_path, KIND, False, reading_fingerprint={"limits": {"max_frames": 1}}) as store:
        store.add(_study("1.1"), stand_in.result("1.1"), [problem] if problem else [])
    with ResultStore(tmp_path, KIND, True, reading_fingerprint=read_with) as store:
        assert (store.may_gain_images(_study("1.1")), store.is_done(_study("1.1"))) == (due, not due)
        assert not store.may_gain_images(_study("1.2"))


def test_a_file_that_ends_its_process_each_time_does_not_have_its_study_graded_for_ever(
    tmp_path: Path,
) -> None:
    due: list[bool] = []
    with ResultStore(tmp_path, KIND, False, reading_fingerprint={"limits": 1}) as store:
        for _ in range(4):
            store.add(_study("1.1"), stand_in.result("1.1"), [_lost(temporary=True)])
            due.append(store.may_gain_images(_study("1.1")))
    assert due == [True, True, False, False]
    with ResultStore(tmp_path, KIND, True, reading_fingerprint={"limits": 2}) as store:
        assert store.may_gain_images(_study("1.1"))
        store.add(_study("1.1"), stand_in.result("1.1"), [_lost(temporary=True)])
        assert store.may_gain_images(_study("1.1")), "other limits begin anew"


def test_a_study_that_was_to_be_graded_again_and_cannot_be_is_reported(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.1"), stand_in.result("1.1"), [_lost(temporary=True)])
        store.add_failed(_study("1.1"), [_lost(of_study=True)])
        assert store.write_tables(["1.1"], []) == TableTotals(0, 1, 1)
    (error,) = _rows(tmp_path / "errors.csv")
    assert (error["of_study"], error["harmless"]) == ("yes", "no")


def test_only_tables_that_do_not_fit_are_missing_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that has room for one of them: the large one is the one that fails."""

    @contextmanager
    def writing(path: Path) -> Iterator[TextIO]:
        with atomic_write(path) as stream:
            yield stream
            if path.name == "results.csv":
                raise OSError(28, "No space left on device", str(path))

    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.1"), stand_in.result("1.1"), [_problem("/x", "1.1")])
        monkeypatch.setattr(outputs, "atomic_write", writing)
        with pytest.raises(NotWritten) as error:
            store.write_tables(["1.1"], [])
        assert store.count(["1.1"], []) == TableTotals(1, 0, 1, lost_files=1, graded_now=1)
    assert "No space left on device" in error.value.reason
    assert "no room for results.csv of now" in error.value.reason
    assert "--resume" in error.value.advice
    assert len(_rows(tmp_path / "errors.csv")) == 1
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "errors.csv",
        "results.jsonl",
        "studies",
        "studies.csv",
    ]


def test_a_kill_between_a_result_and_its_earlier_failure_counts_the_result(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add_failed(_study("1.1"), [_problem("/one", "1.1")])
        (failure,) = (tmp_path / "studies").glob("*.failed.json")
        content = failure.read_bytes()
        store.add(_study("1.1"), stand_in.result("1.1"), [])
        assert not failure.exists()
        failure.write_bytes(content)
        assert store.write_tables(["1.1"], []) == TableTotals(1, 0, 0, graded_now=1)


def test_counts_are_of_the_studies_asked_for_and_rows_of_all(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        for uid in ("1.1", "1.2"):
            store.add(_study(uid), stand_in.result(uid), [])
        for uid in ("1.3", "1.4"):
            store.add_failed(_study(uid), [_problem("/one", uid)])
        assert store.write_tables(["1.1", "1.3"], [_problem("/two")]) == TableTotals(
            1, 1, 3, lost_files=1, graded_now=1
        )


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        with pytest.raises(ValueError, match="JSON"):
            store.add(_study("1.1"), stand_in.result("1.1", compression_ratio=float("nan")), [])
        assert not store.is_done(_study("1.1"))


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.add(_study("1.1"), stand_in.result("1.1"), [])
        (damaged,) = {path for path in (tmp_path / "studies").glob("*.json") if len(path.stem) == 64}
        damaged.write_text('{"resu')
        with pytest.raises(OutputError, match=rf"{damaged.name}.*Delete it"):
            store.is_done(_study("1.1"))


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="another --out"):
        ResultStore(tmp_path / "file" / "out", KIND, resume=False)


def test_a_file_name_that_is_no_utf_8_can_be_reported(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        store.write_tables([], [_problem("/M\udcfcller.dcm")])
    assert _rows(tmp_path / "errors.csv")[0]["path"] == "/M\\udcfcller.dcm"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text_atomically(path, "first")

    def write_half() -> None:
        with atomic_write(path) as stream:
            stream.write("second")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


_FILL = """
import resource, sys
from pathlib import Path
import stand_in
from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.records import StudyHeader
from stenosis_trt.engine.runs.outputs import ResultStore

with ResultStore(Path(sys.argv[1]), {}, resume=True) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    try:
        store.add(StudyHeader("1.2", "/", ()), stand_in.result("1.2"), [])
    except OutputError as error:
        print(error)
"""


def test_a_full_disk_is_reported_and_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit of file sizes stands for the full disk: writing fails half-way with an OSError just so."""
    with ResultStore(tmp_path, {}, resume=False) as store:
        store.add(_study("1.1"), stand_in.result("1.1"), [])
        store.write_tables(["1.1"], [])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert max(map(len, before.values())) > 1000, "the limit must bite"
    command = [sys.executable, "-c", _FILL, str(tmp_path)]
    environment = {"PYTHONPATH": str(Path(stand_in.__file__).parent)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "cannot be written (File too large). Make room" in answer.stdout
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def _of_patient(key: str, folder: str) -> StudyHeader:
    """A study of two patients' UID: their images have the same UIDs, and their paths differ."""
    frames = tuple(FrameHeader(Path(f"/{folder}/{k}.dcm"), 0, f"1.2.{k}", None) for k in range(3))
    series = (SeriesHeader("1.2", "1.2.9", "MR", frames),)
    return StudyHeader("1.2", f"/{folder}", series, key=key, warnings=("study_uid_shared",))


def test_patients_that_share_a_study_uid_keep_a_result_each(tmp_path: Path) -> None:
    with ResultStore(tmp_path, KIND, resume=False) as store:
        for key, folder in (("1.2", "ann"), ("1.2#2", "ben")):
            store.add(_of_patient(key, folder), stand_in.result("1.2", folder), [])
        assert store.write_tables(["1.2", "1.2#2"], []) == TableTotals(2, 0, 0, graded_now=2)
    rows = _rows(tmp_path / "results.csv")
    assert [row["patient_id"] for row in rows[:: len(LEVELS)]] == ["ann", "ben"]


def test_a_result_of_another_patient_with_the_same_key_and_image_uids_is_not_taken_as_done(
    tmp_path: Path,
) -> None:
    """A third patient was added, whose path comes before the second one's."""
    with ResultStore(tmp_path, KIND, resume=False) as store:
        for key, folder in (("1.2", "ann"), ("1.2#2", "cat")):
            store.add(_of_patient(key, folder), stand_in.result("1.2"), [])
        now = [_of_patient(key, name) for key, name in (("1.2", "ann"), ("1.2#2", "ben"), ("1.2#3", "cat"))]
        assert [store.is_done(study) for study in now] == [True, False, False]
        alone = replace(_of_patient("1.2", "cat"), warnings=())
        assert not store.is_done(alone)
