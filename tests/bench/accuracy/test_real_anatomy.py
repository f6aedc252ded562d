"""Real volumes: marks and traced cords against the volumes' labels, and studies made from the volumes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from shared_data import shared_data
from typer.testing import CliRunner

from stenosis_trt.bench.accuracy.real_anatomy import (
    LevelAccuracy,
    SubjectAccuracy,
    mask_compression_ratio,
    summarise,
)
from stenosis_trt.bench.phantom import study as phantom_study
from stenosis_trt.bench.phantom.scan.acquisition import SeriesProtocol
from stenosis_trt.bench.semisynthetic.acquired import acquire_volume, plane_points
from stenosis_trt.bench.semisynthetic.canal import Canal, NiftiVolume, trace_canal
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.selection.select import select_series

_DOWN = np.array([0.0, 0.0, -1.0])


@lru_cache(maxsize=3)
def _canal(name: str) -> Canal:
    subject = SUBJECTS[name]
    volume = NiftiVolume(subject.path(shared_data("volumes")))
    return trace_canal(volume, subject, subject.origin)


def _marks_along(name: str) -> np.ndarray:
    """Arc length of the discs C2/3 … T3/4."""
    return _canal(name).curve.to_canal(SUBJECTS[name].disc_points)[:, 2]


def _labelled(*parts: str) -> dict[int, np.ndarray]:
    """LPS points of each value of a label volume, (N, 3)."""
    labels = NiftiVolume(shared_data("volumes", *parts))
    return {
        int(value): np.argwhere(labels.data == value) @ labels.to_lps[:3, :3].T + labels.to_lps[:3, 3]
        for value in np.unique(labels.data[labels.data > 0])
    }


def _written(data: np.ndarray, path: Path, spacing: float = 1.0) -> NiftiVolume:
    nibabel.Nifti1Image(data.astype(np.float32), np.diag([spacing] * 3 + [1.0])).to_filename(path)
    return NiftiVolume(path)


def _axial(origin: tuple[float, float, float], thickness: float = 3.0) -> SlicePose:
    return SlicePose(
        origin=origin,
        row_direction=(1.0, 0.0, 0.0),
        column_direction=(0.0, 1.0, 0.0),
        row_spacing=0.6,
        column_spacing=0.6,
        rows=64,
        columns=64,
        thickness=thickness,
    )


def test_a_mask_of_a_known_ellipse_has_its_ratio(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.arange(100) * 0.5, np.arange(100) * 0.5, indexing="ij")
    for half_width, half_depth in ((6.3, 3.7), (7.0, 2.1)):
        inside = ((x - 25) / half_width) ** 2 + ((y - 20) / half_depth) ** 2 < 1
        mask = _written(np.repeat(inside[..., None], 40, axis=2), tmp_path / "mask.nii", 0.5)
        near = np.array([-24.0, -21.0, 10.0])
        ratio = mask_compression_ratio(mask, _axial((-45.0, -40.0, 10.0)), near, _DOWN)
        assert ratio == pytest.approx(half_depth / half_width, abs=0.015)
        assert mask_compression_ratio(mask, _axial((-45.0, -40.0, 30.0)), near, _DOWN) is None, (
            "the mask ends at 20 mm"
        )


def test_a_mask_is_measured_as_the_slices_thickness_shows_it(tmp_path: Path) -> None:
    """Of a cord whose depth falls from 8.4 to 4.4 mm, each slice shows the depth of its greater part."""
    x, y, z = np.meshgrid(np.arange(100) * 0.5, np.arange(100) * 0.5, np.arange(60) * 0.5, indexing="ij")
    half_depth = np.where(z < 15.0, 4.2, 2.2)
    mask = _written(((x - 25) / 6.2) ** 2 + ((y - 20) / half_depth) ** 2 < 1, tmp_path / "mask.nii", 0.5)
    near = np.array([-25.0, -20.0, 15.0])
    ratios = [
        mask_compression_ratio(mask, _axial((-45.0, -40.0, height), 4.0), near, _DOWN)
        for height in (13.0, 15.8)
    ]
    # The mask's voxels are half a millimetre wide.
    assert ratios == pytest.approx([4.2 / 6.2, 2.2 / 6.2], abs=0.04)


@pytest.mark.parametrize("degrees", [-30.0, 20.0])
def test_a_mask_is_measured_across_the_cord(degrees: float, tmp_path: Path) -> None:
    """Axial slices of a cord that runs to the front or to the back show it too deep by 1/cos."""
    x, y, z = np.meshgrid(np.arange(100) * 0.5, np.arange(100) * 0.5, np.arange(60) * 0.5, indexing="ij")
    slope, shrink = np.tan(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    inside = ((x - 25) / 6.3) ** 2 + ((y - 20 - slope * (z - 15)) * shrink / 3.7) ** 2 < 1
    mask = _written(inside, tmp_path / "mask.nii", 0.5)
    # The y of LPS runs against that of the file.
    along = np.array([0.0, -np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])
    measured = [
        mask_compression_ratio(mask, _axial((-45.0, -40.0, 15.0)), np.array([-25.0, -20.0, 15.0]), direction)
        for direction in (along, _DOWN)
    ]
    assert measured == pytest.approx([3.7 / 6.3, 3.7 / 6.3 / shrink], abs=0.015)


def test_an_acquired_slice_shows_the_volume_where_its_header_says(tmp_path: Path) -> None:
    x, y, z = np.meshgrid(np.arange(30), np.arange(40), np.arange(50), indexing="ij")
    volume = _written(500 + 3 * x + 5 * y + 7 * z, tmp_path / "ramp.nii")
    study = acquire_volume("ramp", volume)
    low, high = volume.bounds
    cut_off = acquire_volume("ramp", volume, (-1e3, high[2] - 18.0)).sagittal.poses[0]
    assert cut_off.origin[2] == pytest.approx(high[2] - 18.0, abs=0.6)
    assert cut_off.rows == study.sagittal.poses[0].rows - 18 / 0.6
    for plan in (study.sagittal, study.axial):
        assert {pose.orientation for pose in plan.poses} == {plan.protocol.plane}
        assert len(plan.poses) > 8
        number = len(plan.poses) // 2
        points = plane_points(plan.poses[number])
        assert ((points.min(axis=(0, 1)) >= low - 1) & (points.max(axis=(0, 1)) <= high + 1)).all()
        expected = 500 - 3 * points[..., 0] - 5 * points[..., 1] + 7 * points[..., 2]
        shown = study.slice_pixels(plan, number) / (2000.0 / np.percentile(volume.data, 99.9))
        assert np.abs(shown - expected)[3:-3, 3:-3].max() < 1.0


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["errsm_11", "errsm_18"])
def test_the_traced_cord_has_the_diameters_of_the_manual_mask(name: str) -> None:
    """C2/3 to C7/T1, every 2 mm, diameters by second moments as the Spinal Cord Toolbox does."""
    canal, marks = _canal(name), _marks_along(name)
    mask = NiftiVolume(shared_data("volumes", name, SUBJECTS[name].mask))
    u, v = np.meshgrid(np.arange(-10, 10.1, 0.2), np.arange(-10, 10.1, 0.2))
    errors = []
    for s in np.arange(marks[0], marks[5], 2.0):
        inside = mask.sample(canal.curve.to_patient(u, v, np.full(u.shape, s))) > 0.5
        row = canal.curve.index(s)
        traced = np.array([canal.cord_ap[row], canal.cord_transverse[row]])
        masked = np.array([4 * v[inside].std(), 4 * u[inside].std()])
        errors.append([*(traced - masked), traced[0] / traced[1] - masked[0] / masked[1]])
    ap, transverse, ratio = np.abs(errors).mean(axis=0)
    # Voxels are 1 mm. Measured: 0.19 and 0.41 mm, 0.27 and 0.49 mm, 0.024 and 0.038.
    assert ap < 0.5
    assert transverse < 0.6
    assert ratio < 0.045


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["errsm_11", "errsm_18"])
def test_the_marks_lie_between_the_labelled_middles_of_c2_and_t2(name: str) -> None:
    marks = _marks_along(name)
    middles = _labelled(name, "t2_landmarks_C2_T2_center.nii.gz")
    c2, t2 = (_canal(name).curve.to_canal(middles[value][0])[2] for value in (2, 9))
    assert c2 < marks[0] - 4
    assert marks[6] + 4 < t2 < marks[7] - 4
    assert np.diff(marks).min() > 10


@pytest.mark.shared_data
def test_the_marks_of_errsm_30_lie_between_the_vertebrae_that_were_labelled_in_a_part_of_it() -> None:
    """The labelled cord mask counts from one lower than the labelled bodies: its 2 is where body 3 is."""
    along = _canal("errsm_30").curve.to_canal
    marks = _marks_along("errsm_30")
    bodies = _labelled("sct_testing_t2", "t2_labeled_center_manual.nii.gz")
    assert sorted(bodies) == [3, 4, 5]
    for vertebra, points in bodies.items():
        assert marks[vertebra - 3] + 4 < along(points[0])[2] < marks[vertebra - 2] - 4
    cord = _labelled("sct_testing_t2", "t2_seg-manual_labeled.nii.gz")
    assert sorted(cord) == [2, 3, 4, 5]
    for value, upper in ((2, 1), (3, 2), (4, 3)):
        border = (along(cord[value])[:, 2].max() + along(cord[value + 1])[:, 2].min()) / 2
        assert abs(border - marks[upper]) < 3


@pytest.mark.shared_data
def test_the_marks_of_the_template_are_its_own_labels() -> None:
    """PAM50 counts discs by the vertebra below: 3 is C2/3."""
    discs = _labelled("PAM50_small", "PAM50_small_label_discPosterior.nii.gz")
    for number, mark in enumerate(SUBJECTS["PAM50_small"].disc_points):
        assert np.linalg.norm(discs[number + 3][0] - mark) < 1.5
    # The volume that the marks are on is the one that the labels are on.
    volume = NiftiVolume(SUBJECTS["PAM50_small"].path(shared_data("volumes")))
    labels = NiftiVolume(shared_data("volumes", "PAM50_small", "PAM50_small_label_disc.nii.gz"))
    assert np.allclose(volume.to_lps, labels.to_lps)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own, where a straight volume is made once for all tests here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "stenosis-trt" / "straight"


def _smaller(protocol: SeriesProtocol) -> SeriesProtocol:
    """The same slices with a quarter of the pixels: the middle of their field of view."""
    return replace(protocol, rows=protocol.rows // 2, columns=protocol.columns // 2)


@pytest.mark.slow
@pytest.mark.shared_data
def test_phantoms_with_real_anatomy_are_written_with_their_truth(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sample_sagittal_protocol", "sample_axial_protocol"):
        sample = getattr(phantom_study, name)
        monkeypatch.setattr(phantom_study, name, lambda rng, sample=sample: _smaller(sample(rng)))
    volumes = str(shared_data("volumes"))
    command = ["phantom", str(tmp_path / "out"), "--studies", "1", "--anatomy", volumes, "--grade", "2"]
    answer = CliRunner().invoke(app, [*command, "--subject", "errsm_20"])
    assert answer.exit_code == 0, answer.output
    assert [path.name for path in kept.iterdir()] == ["errsm_20-2.npz"]

    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "out" / "study_0001")])
    assert shown.exit_code == 0, shown.output
    assert "sagittal T2" in shown.stdout
    assert "axial T2" in shown.stdout
    with DicomReader() as reader:
        (study,) = reader.scan([tmp_path / "out" / "study_0001"]).studies
        choice = select_series(study)
        assert choice.problem is None
        slices, problems = reader.load(study.series[0].frames[:2])
        assert not problems
        assert max(int(item.stored.max()) for item in slices) > 300
    known = {frame.sop_instance_uid for series in study.series for frame in series.frames}
    with (tmp_path / "out" / "truth.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["level"] for row in rows] == list(LEVELS)
    assert {row["study_uid"] for row in rows} == {study.study_uid}
    assert {row["patient_id"] for row in rows} == {"SEMISYNTHETIC-errsm_20-0-0000"}
    assert {row["kang_grade"] for row in rows} == {"0", "2"}
    for row in rows:
        assert row["sagittal_sop_uid"] in known
        assert row["axial_sop_uid"] in known | {""}
        assert float(row["compression_ratio"]) >= float(row["narrowest_ratio"]) - 0.05


@pytest.mark.shared_data
def test_real_anatomy_gets_the_grades_that_are_asked_for(kept: Path) -> None:
    anatomies = SemisyntheticSource(("errsm_20",), shared_data("volumes"))
    assert anatomies.straightened_folder == kept
    for index in range(12):
        grade = index % 4
        levels = anatomies.sample(9, index, grade).anatomy.levels
        assert {level.grade for level in levels} == {0, grade}
        assert all(0.2 < level.compression_ratio < 0.9 for level in levels)


def _figures(name: str, distances: list[float | None], grade: int) -> SubjectAccuracy:
    levels = tuple(
        LevelAccuracy(level, distance, None if distance is None else grade, ())
        for level, distance in zip(LEVELS, distances, strict=True)
    )
    return SubjectAccuracy(name, "", levels, 0, None, None)


def test_the_summary_counts_levels_that_were_not_found_and_leaves_the_last_one_out() -> None:
    whole = summarise(
        [
            _figures("a", [1.0, 2.0, 3.0, 4.0, 5.0, 40.0], 0),
            _figures("b", [None, 2.0, 2.0, 2.0, 2.0, None], 1),
        ],
        [],
    )
    assert (whole["levels_found"], whole["levels_judged"]) == (9, 10)
    assert (whole["median_mm"], whole["largest_mm"], whole["highest_grade"]) == (2.0, 5.0, 1)


def test_a_subject_that_is_not_known_ends_the_command_with_2_and_the_known_ones(tmp_path: Path) -> None:
    command = ["phantom", str(tmp_path / "out"), "--anatomy", str(tmp_path), "--subject", "nobody"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 2
    assert "Subject nobody is not known. Give one of errsm_11, " in answer.output
    assert not (tmp_path / "out").exists()


def test_a_volume_that_is_not_there_ends_the_command_with_2_and_its_path(tmp_path: Path) -> None:
    command = ["phantom", str(tmp_path / "out"), "--anatomy", str(tmp_path), "--subject", "errsm_18"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 2
    missing = tmp_path / "errsm_18" / "t2.nii.gz"
    assert (
        answer.output.strip()
        == f"stenosis-trt: {missing}: No such file or directory. Give a folder with one folder a subject."
    )
    assert not (tmp_path / "out").exists()
