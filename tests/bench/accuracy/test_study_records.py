"""Records of graded studies: what they hold of a study, and that they are made once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_records import MadeRequest, made_record, shifted
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.accuracy.acquired_requests import AcquiredRequest, tilted
from stenosis_trt.bench.accuracy.graded_studies import Graded, is_shown, record_study, slice_angle
from stenosis_trt.bench.accuracy.study_records import GraderSetting, grade_requests, read_record
from stenosis_trt.bench.accuracy.study_requests import StudyRequest, cut_short
from stenosis_trt.bench.phantom.conditions import ORDINARY
from stenosis_trt.bench.phantom.dicom_files import sop_instance_uid
from stenosis_trt.bench.phantom.scan.acquisition import SeriesProtocol
from stenosis_trt.bench.phantom.study import SeriesPlan, sample_study
from stenosis_trt.bench.semisynthetic.acquired import AcquiredStudy
from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import LEVELS, CordMeasurement

_REFUSED = Graded(None, "The levels were not found.", "levels", (2.0, 1.0))


def test_the_record_of_a_refused_study_has_the_truth() -> None:
    study = sample_study(5, 1)
    record = record_study("phantom", study, _REFUSED)
    assert (record.refused, record.refused_stage) == ("The levels were not found.", "levels")
    assert record.seconds == (2.0, 1.0)
    assert [level.level for level in record.levels] == list(LEVELS)
    assert [level.true_grade for level in record.levels] == [level.grade for level in study.anatomy.levels]
    assert all(level.shown for level in record.levels)
    assert record.c2_shown
    assert all(level.grade is level.ratio is level.point is None for level in record.levels)
    assert not record.misnumbered()


def test_an_operated_level_has_no_true_grade() -> None:
    study = sample_study(5, 1, conditions=replace(ORDINARY, metal=5.0))
    record = record_study("phantom", study, _REFUSED)
    assert [level.true_grade is None for level in record.levels] == list(study.anatomy.operated)
    assert any(study.anatomy.operated)


def test_a_level_is_misnumbered_at_a_landmark_disc_too() -> None:
    wrong = shifted(made_record(), 1.0).misnumbered()
    assert [level.level for level in wrong] == list(LEVELS)
    assert not shifted(made_record(), 0.3).misnumbered()


@pytest.mark.parametrize(
    ("cut", "shown", "c2"),
    [((-0.4, None), 6, False), ((0.5, None), 5, False), ((None, 4.5), 5, True), ((None, 3.5), 4, True)],
)
def test_a_study_that_is_cut_short_shows_the_levels_that_were_asked_for(
    cut: tuple[float | None, float | None], shown: int, c2: bool
) -> None:
    whole = sample_study(5, 2)
    study = cut_short(whole, *cut)
    record = record_study("phantom", study, _REFUSED)
    visible = [level.shown for level in record.levels]
    assert sum(visible) == shown
    assert visible == sorted(visible, reverse=cut[0] is None)
    assert record.c2_shown is c2
    assert 0 < len(study.axial.poses) <= len(whole.axial.poses)
    # Pixels that are left lie where they were.
    pose, before = study.sagittal.poses[0], whole.sagittal.poses[0]
    column, row, depth = before.to_pixels(np.asarray(pose.origin))
    assert (column, depth) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert row == pytest.approx(round(row), abs=1e-6)
    assert row >= 0
    assert row + pose.rows <= before.rows
    assert study.slice_pixels(study.sagittal, 0).shape == (pose.rows, pose.columns)


def test_the_true_angle_of_a_slice_is_that_by_which_it_was_tilted() -> None:
    angles = []
    for degrees in (0.0, 20.0):
        study = sample_study(5, 3, conditions=replace(ORDINARY, axial_tilt=degrees))
        curve = study.anatomy.curve
        found = []
        for number, pose in enumerate(study.axial.poses):
            points = study.anatomy.cord_points(pose)
            if points is None:
                continue
            a, b, c, d = ((float(x), float(y), float(z)) for x, y, z in points)
            cord = CordMeasurement(
                sop_instance_uid(study, study.axial, number), (a, b, c, d), 7.0, 12.0, 0.58, 0.9
            )
            angle = slice_angle(study, cord)
            along = curve.tangent[curve.index(float(curve.to_canal(points.mean(axis=0))[2]))]
            assert angle == pytest.approx(np.degrees(np.arccos(abs(along @ pose.normal))), abs=1e-6)
            found.append(angle)
        angles.append(np.mean(found))
    assert angles[1] > angles[0] + 8.0


def test_keys_of_requests_differ_with_everything_that_changes_the_study() -> None:
    plain = StudyRequest(7, 1)
    others = [
        replace(plain, seed=8),
        replace(plain, index=2),
        replace(plain, conditions=replace(ORDINARY, noise=0.03)),
        replace(plain, conditions=replace(ORDINARY, noise=0.06)),
        replace(plain, subjects=("errsm_11",), volumes=Path("volumes")),
        replace(plain, grade=0),
        replace(plain, cut=(0.5, None)),
        replace(plain, cut=(None, 0.5)),
    ]
    volume = AcquiredRequest("errsm_11", Path("volumes"))
    volumes = [volume, replace(volume, cut=(0.5, None)), replace(volume, pitch=20.0)]
    keys = [item.key for item in (plain, *others, *volumes)]
    assert len(set(keys)) == len(keys)


def test_a_tilted_volume_is_turned_about_the_point_that_is_given() -> None:
    pose = SlicePose((0.0, -80.0, 100.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0), 1.0, 1.0, 200, 160, 3.0)
    plan = SeriesPlan(SeriesProtocol("sagittal", 200, 160, 1.0, 3.0, 3.0, 1, 100.0, 3500.0, 16), (pose,))
    study = AcquiredStudy("made", None, plan, plan)  # type: ignore[arg-type]
    about = np.array([0.0, 10.0, 20.0])
    turned = tilted(study, 20.0, about).sagittal.poses[0]
    assert turned.to_pixels(about) == pytest.approx(pose.to_pixels(about))
    assert abs(np.dot(turned.column_direction, pose.column_direction)) == pytest.approx(
        np.cos(np.deg2rad(20))
    )
    assert is_shown(SeriesPlan(plan.protocol, (turned,)), (2.0, 10.0, 20.0))
    assert not is_shown(SeriesPlan(plan.protocol, (turned,)), (4.0, 10.0, 20.0))
    assert not is_shown(SeriesPlan(plan.protocol, (turned,)), (0.0, 10.0, 180.0))
    assert tilted(study, 0.0, about) is study


def _records(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((out / "studies").rglob("*.json"))}


def test_a_study_that_has_a_record_is_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_pack(tmp_path / "pack")
    setting, out = GraderSetting(tmp_path / "pack"), tmp_path / "out"
    requests = [MadeRequest(number) for number in range(3)]
    first = grade_requests(requests[:2], out, setting, 1)
    assert [study.index for study in first] == [0, 1]
    before = _records(out)
    again = grade_requests(requests, out, setting, 1)
    assert "3 studies, 1 of them to be made" in capsys.readouterr().err
    assert again[:2] == first
    after = _records(out)
    assert sorted(after) == ["0.json", "1.json", "2.json"]
    assert {name: after[name] for name in before} == before
    assert read_record(out / "studies" / "made" / "2.json") == made_record(index=2)


def test_a_folder_of_another_pack_or_program_is_refused(tmp_path: Path) -> None:
    write_tiny_pack(tmp_path / "pack")
    write_tiny_pack(tmp_path / "other", other=True)
    out = tmp_path / "out"
    grade_requests([MadeRequest(0)], out, GraderSetting(tmp_path / "pack"), 1)
    with pytest.raises(OutputError, match="another pack"):
        grade_requests([MadeRequest(1)], out, GraderSetting(tmp_path / "other"), 1)
    written = json.loads((out / "setting.json").read_text())
    (out / "setting.json").write_text(json.dumps({**written, "program_sha256": "0"}))
    with pytest.raises(OutputError, match="another program"):
        grade_requests([MadeRequest(1)], out, GraderSetting(tmp_path / "pack"), 1)
    assert list(_records(out)) == ["0.json"]


@pytest.mark.slow
def test_processes_share_the_studies(tmp_path: Path) -> None:
    write_tiny_pack(tmp_path / "pack")
    requests = [MadeRequest(number) for number in range(5)]
    found = grade_requests(requests, tmp_path / "out", GraderSetting(tmp_path / "pack"), 2)
    assert [study.index for study in found] == list(range(5))
