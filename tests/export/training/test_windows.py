"""Windows of tall images that are stored for training."""

from __future__ import annotations

import numpy as np
import pytest

from stenosis_trt.bench.phantom.conditions import Conditions
from stenosis_trt.bench.phantom.study import PhantomStudy, sample_study
from stenosis_trt.export.training import rendering
from stenosis_trt.export.training.rendering import NOT_SHOWN
from stenosis_trt.export.training.windows import Window, draw_window


def _study(index: int, **strengths: float) -> PhantomStudy:
    return sample_study(8, index, None, Conditions(**strengths))


def _windows(study: PhantomStudy, count: int) -> list[Window]:
    pose = study.sagittal.poses[0]
    return [draw_window(np.random.default_rng(k), pose, study.anatomy) for k in range(count)]


def _shown(study: PhantomStudy, window: Window) -> int:
    """Number of levels and landmarks whose row lies in a window."""
    points = [*(level.point for level in study.anatomy.levels), *study.anatomy.landmarks.values()]
    rows = study.sagittal.poses[0].to_pixels(np.array(points))[:, 1] - window.row
    return int(((rows >= 0) & (rows < window.rows)).sum())


@pytest.mark.parametrize("place", [-1.0, 0.0, 1.0])
def test_a_third_of_the_windows_show_nothing_of_the_neck_and_the_others_a_part(place: float) -> None:
    study = _study(2, field_mm=600.0, field_place=place)
    windows = _windows(study, 200)
    pose = study.sagittal.poses[0]
    shown = np.array([_shown(study, window) for window in windows])
    assert 0.22 < np.mean(shown == 0) < 0.45
    for window, points in zip(windows, shown, strict=True):
        assert 0 <= window.row <= pose.rows - window.rows
        assert 0 <= window.column <= pose.columns - window.columns
        height = window.rows * pose.row_spacing
        assert 299.0 <= height <= 360.0 or (points == 0 and height >= 159.0)
        assert window.columns in (pose.columns, *range(int(299.0 / pose.column_spacing), pose.columns))
    assert len({window.row for window in windows}) > 50


def test_images_of_few_pixels_and_ordinary_ones_are_stored_whole() -> None:
    rng = np.random.default_rng(1)
    for index in range(6):
        pose, study = _study(index).sagittal.poses[0], _study(index)
        assert draw_window(rng, pose, study.anatomy) == Window(0, 0, pose.rows, pose.columns)


def test_a_stored_window_has_the_pose_of_its_pixels_and_levels_outside_have_no_grade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendering, "_SAGITTAL_SLICES", 1)
    monkeypatch.setattr(rendering, "_AXIAL_SLICES", 1)
    study = next(
        item
        for item in (_study(index, field_mm=520.0, field_place=-1.0, spacing=1.01) for index in range(30))
        if max(item.sagittal.poses[0].rows, item.sagittal.poses[0].columns) > 448
    )
    item = rendering.render(study)
    pose = item.sagittal_poses[0]
    assert item.sagittal.shape[1:] == (pose.rows, pose.columns)
    assert pose.rows < study.sagittal.poses[0].rows
    number = next(
        k
        for k, whole in enumerate(study.sagittal.poses)
        if abs(whole.to_pixels(np.array(pose.origin))[2]) < 0.01
    )
    whole = study.sagittal.poses[number]
    column, row, _ = np.rint(whole.to_pixels(np.array(pose.origin))).astype(int)
    pixels = study.slice_pixels(study.sagittal, number)
    assert (pixels[row : row + pose.rows, column : column + pose.columns] == item.sagittal[0]).all()
    at = pose.to_pixels(item.level_points)[:, :2] * [pose.column_spacing, pose.row_spacing]
    size = np.array([pose.columns * pose.column_spacing, pose.rows * pose.row_spacing])
    inside = ((at > 8.5) & (at < size - 8.5)).all(axis=1)
    outside = ((at < 7.0) | (at > size - 9.0)).any(axis=1)
    assert (item.grades[inside] != NOT_SHOWN).all()
    assert (item.grades[outside] == NOT_SHOWN).all()
