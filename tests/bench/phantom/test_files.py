"""Phantom studies on disk: protocols, determinism, transfer syntaxes, truth.csv."""

from __future__ import annotations

import csv
import errno
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from stenosis_trt.bench.phantom import TRANSFER_SYNTAXES, PhantomOptions, ResumeError, write_studies, writing
from stenosis_trt.bench.phantom.dicom_files import _dataset, _store, phantom_uid, sop_instance_uid
from stenosis_trt.bench.phantom.shapes import Canvas
from stenosis_trt.bench.phantom.study import PhantomStudy, sample_study
from stenosis_trt.bench.phantom.writing import TRUTH_COLUMNS, truth_rows


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms")
    write_studies(out, PhantomOptions(studies=1, seed=11))
    return out


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_studies(tmp_path, PhantomOptions(studies=1, seed=11))
    assert _digest(tmp_path) == _digest(written)


def test_a_given_grade_gives_other_studies_with_uids_of_their_own() -> None:
    drawn = phantom_uid(sample_study(4242, 0), "study")
    given = [phantom_uid(sample_study(4242, 0, grade), "study") for grade in range(4)]
    assert len({drawn, *given}) == 5
    # The UID that this study had in the first release.
    assert drawn == "1.2.826.0.1.3680043.8.498.91636388620915378678699224567333301266"


def test_the_truth_does_not_depend_on_how_many_make_it_and_grows_study_by_study(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    known: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        path = tmp_path / "one" / "truth.csv"
        known.append(len(path.read_text().splitlines()) // 6 if path.exists() else 0)

    truth = write_studies(tmp_path / "one", PhantomOptions(studies=2, seed=11), progress)
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert known == [0, 1, 2]
    other = write_studies(tmp_path / "two", PhantomOptions(studies=2, seed=11, workers=2))
    assert truth.read_bytes() == other.read_bytes()
    assert b"\r" not in truth.read_bytes()


def test_a_study_that_could_not_be_finished_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(study: PhantomStudy, folder: Path, syntax: str) -> None:
        (folder / "sagittal_t2").mkdir(parents=True)
        if study.index == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "write_study", failing)
    with pytest.raises(OSError, match="No space"):
        write_studies(tmp_path, PhantomOptions(studies=3, seed=11))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study_0001", "truth.csv"]
    assert len((tmp_path / "truth.csv").read_text().splitlines()) == 7


def _made_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the studies that are written from now on."""
    made: list[int] = []
    write_study = writing.write_study

    def noting(study: PhantomStudy, folder: Path, syntax: str) -> None:
        made.append(study.index)
        write_study(study, folder, syntax)

    monkeypatch.setattr(writing, "write_study", noting)
    return made


@pytest.mark.parametrize("damage", ["missing", "cut off", "part", "none"])
def test_resuming_makes_what_is_not_whole_and_writes_the_truth_of_all(
    damage: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(written, out)
    (out / "truth.csv").write_text("study_uid,pat")
    last = out / "study_0001" / "axial_t2" / "0003.dcm"
    if damage == "missing":
        last.unlink()
    elif damage == "cut off":
        last.write_bytes(last.read_bytes()[:-2])
    elif damage == "part":
        (out / "study_0001").rename(out / ".study_0001.part")
    made = _made_by(monkeypatch)
    write_studies(out, PhantomOptions(studies=1, seed=11), resume=True)
    assert made == ([] if damage == "none" else [0])
    assert _digest(out) == _digest(written)


def test_resuming_asks_for_more_studies_of_the_same_set_and_keeps_those_that_are_there(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(written, out)
    made = _made_by(monkeypatch)
    seen: list[tuple[int, int]] = []
    write_studies(
        out, PhantomOptions(studies=2, seed=11), lambda done, total: seen.append((done, total)), resume=True
    )
    assert made == [1]
    assert seen == [(0, 1), (1, 1)]
    assert len((out / "truth.csv").read_text().splitlines()) == 13
    with pytest.raises(ResumeError, match=r"study_0002 is beyond the 1 studies"):
        write_studies(out, PhantomOptions(studies=1, seed=11), resume=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 12}, "another seed, grade, anatomy or condition"),
        ({"seed": 11, "grade": 2}, "another seed, grade, anatomy or condition"),
        ({"seed": 11, "transfer_syntax": "rle"}, "is written as Explicit VR Little Endian"),
    ],
)
def test_resuming_with_other_options_is_refused_and_touches_nothing(
    options: dict[str, Any], words: str, written: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(written, out)
    (out / "study_0001" / "axial_t2" / "0003.dcm").unlink()
    before = _digest(out)
    with pytest.raises(ResumeError, match=words):
        write_studies(out, PhantomOptions(studies=1, **options), resume=True)
    (out / "mine.txt").touch()
    with pytest.raises(ResumeError, match=r"mine\.txt is not of an interrupted run"):
        write_studies(out, PhantomOptions(studies=1, seed=11), resume=True)
    (out / "mine.txt").unlink()
    assert _digest(out) == before


def test_a_study_that_was_finished_while_another_failed_has_its_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(study: PhantomStudy, folder: Path, syntax: str) -> None:
        folder.mkdir()
        if study.index == 0:
            # What another process finishes meanwhile.
            (tmp_path / "study_0002").mkdir()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "write_study", failing)
    with pytest.raises(OSError, match="No space"):
        write_studies(tmp_path, PhantomOptions(studies=3, seed=11))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study_0002", "truth.csv"]
    with (tmp_path / "truth.csv").open(newline="") as stream:
        assert {row["patient_id"] for row in csv.DictReader(stream)} == {"PHANTOM-11-0001"}


def test_another_seed_gives_another_patient() -> None:
    assert sample_study(11, 0).anatomy.levels != sample_study(12, 0).anatomy.levels


def test_a_study_does_not_depend_on_how_many_are_made() -> None:
    assert sample_study(11, 3).anatomy.levels == sample_study(11, 3).anatomy.levels
    assert sample_study(11, 3).anatomy.levels != sample_study(11, 2).anatomy.levels


def test_protocols_are_those_of_the_clinic() -> None:
    for index in range(30):
        study = sample_study(21, index)
        sagittal, axial = study.sagittal.protocol, study.axial.protocol
        assert 11 <= len(study.sagittal.poses) <= 15
        assert 20 <= len(study.axial.poses) <= 36
        assert 0.5 <= sagittal.pixel_spacing <= 0.8
        assert 0.4 <= axial.pixel_spacing <= 0.7
        assert 3.0 <= sagittal.thickness <= 4.0
        assert 3.0 <= axial.thickness <= 4.0
        assert all(pose.orientation == "sagittal" for pose in study.sagittal.poses)
        assert all(pose.orientation == "axial" for pose in study.axial.poses)


def test_files_hold_the_planned_geometry(written: Path) -> None:
    study = sample_study(11, 0)
    first = pydicom.dcmread(written / "study_0001" / "sagittal_t2" / "0001.dcm")
    pose = study.sagittal.poses[0]
    assert np.allclose([float(x) for x in first.ImagePositionPatient], pose.origin, atol=1e-4)
    assert [float(x) for x in first.PixelSpacing] == [pose.row_spacing, pose.column_spacing]
    assert np.array_equal(first.pixel_array, study.slice_pixels(study.sagittal, 0))


def test_instance_numbers_do_not_follow_position(written: Path) -> None:
    paths = sorted((written / "study_0001" / "sagittal_t2").iterdir())
    numbers = [int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber) for path in paths]
    assert sorted(numbers) == list(range(1, len(paths) + 1))
    assert numbers not in (sorted(numbers), sorted(numbers, reverse=True))


@pytest.mark.parametrize("name", TRANSFER_SYNTAXES)
def test_every_transfer_syntax_keeps_the_pixels(name: str, tmp_path: Path) -> None:
    study = sample_study(11, 0)
    pixels = study.slice_pixels(study.axial, 2)
    _store(_dataset(study, study.axial, 2, 1), pixels, TRANSFER_SYNTAXES[name], tmp_path / "image.dcm")
    again = pydicom.dcmread(tmp_path / "image.dcm")
    assert again.file_meta.TransferSyntaxUID == TRANSFER_SYNTAXES[name]
    assert np.array_equal(again.pixel_array, pixels)


def test_truth_has_a_row_for_every_level_and_names_real_slices(written: Path) -> None:
    with (written / "truth.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == TRUTH_COLUMNS
    assert [row["level"] for row in rows] == ["C2/3", "C3/4", "C4/5", "C5/6", "C6/7", "C7/T1"]
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in (written / "study_0001").rglob("*.dcm")]
    known = {str(header.SOPInstanceUID) for header in headers}
    assert {row["sagittal_sop_uid"] for row in rows} <= known
    assert {row["axial_sop_uid"] for row in rows} <= known | {""}
    assert {row["study_uid"] for row in rows} == {str(header.StudyInstanceUID) for header in headers}


def test_the_truths_diameters_are_those_across_the_cord_on_the_axial_slice_it_names() -> None:
    study = sample_study(11, 0)
    poses = {sop_instance_uid(study, study.axial, k): pose for k, pose in enumerate(study.axial.poses)}
    rows = truth_rows(study)
    seen = [row for row in rows if row["axial_sop_uid"]]
    assert len(seen) >= 4
    for row in seen:
        points = study.anatomy.cord_points(poses[str(row["axial_sop_uid"])])
        assert points is not None
        curve = study.anatomy.curve
        along = curve.tangent[curve.index(curve.to_canal(points.mean(axis=0))[2])]
        lines = points[[0, 2]] - points[[1, 3]]
        ap, transverse = np.sqrt((lines**2).sum(axis=1) - (lines @ along) ** 2)
        assert (row["ap_mm"], row["transverse_mm"]) == pytest.approx((ap, transverse), abs=1e-3)
        assert row["compression_ratio"] == pytest.approx(ap / transverse, abs=1e-4)
    for row, level in zip(rows, study.anatomy.levels, strict=True):
        assert row["narrowest_ratio"] == pytest.approx(level.compression_ratio, abs=1e-4)


def test_a_level_that_no_axial_slice_shows_has_no_diameters_in_the_truth() -> None:
    study = sample_study(11, 0)
    above = replace(study, axial=replace(study.axial, poses=study.axial.poses[:1]))
    rows = truth_rows(above)
    unseen = [row for row in rows if not row["axial_sop_uid"]]
    assert len(unseen) >= 5
    assert {row[name] for row in unseen for name in ("compression_ratio", "ap_mm", "transverse_mm")} == {""}
    assert all(row["narrowest_ratio"] for row in rows)


@pytest.mark.parametrize(
    ("seed", "plane", "number", "shape", "total"),
    [
        (11, "axial", 0, (240, 240), 5449103),
        (11, "sagittal", 6, (432, 432), 61515391),
        (4242, "sagittal", 0, (336, 336), 11391732),
        (4242, "axial", 13, (384, 384), 27271641),
        (7, "axial", 20, (288, 288), 16133360),
    ],
)
def test_a_phantom_slice_has_the_pixels_that_it_has_on_every_machine(
    seed: int, plane: str, number: int, shape: tuple[int, int], total: int
) -> None:
    study = sample_study(seed, 0)
    pixels = study.slice_pixels(getattr(study, plane), number)
    assert pixels.shape == shape
    # Another library's last digit may round a few pixels the other way.
    assert int(pixels.sum(dtype=np.int64)) == pytest.approx(total, abs=20)


@pytest.mark.parametrize(("plane", "numbers"), [("sagittal", (0, 7)), ("axial", (0, 14, 26))])
def test_bounds_within_which_structures_are_painted_leave_no_point_out(
    plane: str, numbers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sample_study(4242, 0)
    series = getattr(study, plane)
    pixels = [study.slice_pixels(series, number) for number in numbers]
    monkeypatch.setattr(Canvas, "fade", property(lambda canvas: 0.5 * canvas.edge + 6.0))
    for number, before in zip(numbers, pixels, strict=True):
        assert np.array_equal(study.slice_pixels(series, number), before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"studies": 0}, "at least 1"),
        ({"studies": 1, "seed": -1}, "seed"),
        ({"studies": 1, "grade": 4}, "grade"),
        ({"studies": 1, "transfer_syntax": "zip"}, "explicit"),
    ],
)
def test_wrong_options_say_what_is_allowed(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PhantomOptions(**options)  # type: ignore[arg-type]
