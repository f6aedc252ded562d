"""Error of the ratio on slices that are oblique to the cord, and the choice of the slice of a level."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stenosis_trt.bench.accuracy import slice_choice
from stenosis_trt.bench.accuracy.cord_angle import slice_errors, turned
from stenosis_trt.bench.accuracy.slice_choice import LevelCandidates, candidates, summary
from stenosis_trt.bench.phantom.dicom_files import phantom_uid, sop_instance_uid
from stenosis_trt.bench.phantom.study import sample_study


def test_a_slice_turns_about_its_centre_in_the_sagittal_plane() -> None:
    pose = sample_study(1, 0).axial.poses[3]
    moved = turned(pose, 20.0)
    assert moved.centre == pytest.approx(pose.centre)
    assert np.degrees(np.arccos(moved.normal @ pose.normal)) == pytest.approx(20.0, abs=0.2)
    assert moved.column_direction[2] > pose.column_direction[2], "the back edge moves to the head"


@pytest.mark.parametrize("degrees", [-30.0, 0.0, 30.0])
def test_measured_across_the_cord_the_ratio_does_not_rise_with_the_tilt_of_the_slices(degrees: float) -> None:
    """The figures of docs/decisions/cord-angle.md, on three phantoms."""
    rng = np.random.default_rng(2)
    errors = [item for index in range(3) for item in slice_errors(sample_study(7, index), degrees, rng)]
    assert len(errors) > 30
    across, shown = np.array([x.across for x in errors]), np.array([x.in_slice for x in errors])
    assert np.abs(across).mean() <= 0.015
    assert abs(across.mean()) <= 0.01
    assert np.abs(across).max() <= 0.1
    assert shown.mean() == pytest.approx(0.09 if degrees else 0.0, abs=0.03)


def test_the_slice_nearest_to_the_disc_is_taken_of_those_within_the_tolerance() -> None:
    level = LevelCandidates(
        1, 0.5, np.array([1.0, 2.0, 5.0]), np.array([0.53, 0.505, 0.49]), np.array([0.5, 0.5, 0.5])
    )
    assert [round(level.error(x), 3) for x in (0.0, 0.01, 0.02, 0.05)] == [-0.01, -0.01, 0.005, 0.03]
    text = list(summary([level, level]))
    assert text[0] == "bias of single slices: grade 1 +0.0083"
    assert text[1] == (
        "tolerance 0.000: all -0.0100 (0.0100), -0.0183 (0.0183); grade 1 -0.0100 (0.0100), -0.0183 (0.0183)"
    )


def test_the_true_ratios_of_a_phantoms_slices_are_those_of_its_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = sample_study(3, 0)
    levels = [{"level": x.level, "point": x.point, "confidence": 1.0} for x in study.anatomy.levels]
    cords = [
        {
            "sop_instance_uid": sop_instance_uid(study, study.axial, k),
            "compression_ratio": 9.0,
            "warnings": [],
        }
        for k in range(len(study.axial.poses))
    ]
    result = {"study_uid": phantom_uid(study, "study"), "levels": levels, "cord_slices": cords}
    found = list(candidates(study, result))
    assert len(found) == 6
    for item, best in zip(found, study.slice_compressions(), strict=True):
        assert best is not None
        assert item.true_ratio == best.compression_ratio
        assert item.true_ratios.min() == pytest.approx(best.compression_ratio)
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(result) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["slice_choice", str(path), "--seed", "4"])
        with pytest.raises(SystemExit):
            slice_choice.main()
    assert "of other phantoms" in capsys.readouterr().err
