"""Rendered studies and the samples drawn from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stenosis_trt.bench.phantom.conditions import Conditions
from stenosis_trt.bench.phantom.study import PhantomSource, sample_study
from stenosis_trt.engine.packs.crop import crop_to_patient, heatmap_to_input, slice_roi
from stenosis_trt.export.training.augmentation import rotate_and_zoom
from stenosis_trt.export.training.recipe import CORD_INPUT, GRADER_INPUT, LEVELS_INPUT
from stenosis_trt.export.training.rendering import (
    OPERATED,
    RenderedStudySet,
    load_grades,
    load_rendered,
    render,
    render_set,
)
from stenosis_trt.export.training.samples import (
    CordSamples,
    GraderSamples,
    LevelSamples,
    StudyStore,
    gaussian_heatmaps,
    patient_to_region,
)
from stenosis_trt.kernels.decoding import decode_keypoints

PHANTOMS = RenderedStudySet("phantom", PhantomSource(), 71)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StudyStore:
    folder = tmp_path_factory.mktemp("rendered")
    render_set(folder, PHANTOMS, range(1), workers=1)
    return StudyStore([PHANTOMS.path(folder, 0)])


def test_a_rendered_study_holds_the_phantoms_truth(store: StudyStore) -> None:
    study, truth = store[0], sample_study(71, 0).anatomy
    assert load_grades(store.paths[0]).tolist() == [level.grade for level in truth.levels]
    assert np.allclose(study.level_points, [level.point for level in truth.levels])
    assert study.axial.shape[0] == len(study.axial_poses) == len(study.cord_points)
    for pose, points in zip(study.axial_poses, study.cord_points, strict=True):
        assert np.abs(pose.to_pixels(points)[:, 2]).max() < 0.05, "the cord's points lie in the slice"


def test_a_level_with_metal_is_stored_without_a_grade() -> None:
    study = sample_study(71, 1, conditions=Conditions(metal=6.0))
    # One slice of each kind is enough: the others are rendered alike.
    study = replace(study, axial=replace(study.axial, poses=study.axial.poses[:1]))
    anatomy = study.anatomy
    assert any(anatomy.operated)
    assert render(study).grades.tolist() == [
        OPERATED if operated else level.grade
        for level, operated in zip(anatomy.levels, anatomy.operated, strict=True)
    ]


def test_rendering_again_changes_nothing_that_is_there(store: StudyStore) -> None:
    before = store.paths[0].stat().st_mtime_ns
    render_set(store.paths[0].parent, PHANTOMS, range(1), workers=1)
    assert store.paths[0].stat().st_mtime_ns == before
    assert np.array_equal(load_rendered(store.paths[0]).sagittal, store[0].sagittal)


def test_heatmaps_decode_to_the_points_they_were_made_from() -> None:
    xy = np.array([[40.3, 77.9], [100.0, 30.5]])
    maps = gaussian_heatmaps(xy, np.array([1.0, 0.6]), (128, 128), 4)
    decoded = decode_keypoints(maps[None])[0]
    assert heatmap_to_input(decoded[:, :2], 4) == pytest.approx(xy, abs=0.1)
    assert decoded[:, 2] == pytest.approx([1.0, 0.6], rel=0.12)


def test_a_point_outside_the_input_has_no_peak() -> None:
    assert gaussian_heatmaps(np.array([[-3.0, 20.0]]), np.ones(1), (64, 64), 4).max() == 0.0


def test_turning_and_zooming_keep_the_regions_centre(store: StudyStore) -> None:
    pose = store[0].sagittal_poses[3]
    plain = slice_roi(pose, store[0].level_points[2], GRADER_INPUT)
    turned = rotate_and_zoom(plain, (128, 128), 25.0, 1.3)
    middle = [63.5, 63.5]
    assert crop_to_patient(pose, turned, middle) == pytest.approx(crop_to_patient(pose, plain, middle))
    step = crop_to_patient(pose, turned, [64.5, 63.5]) - crop_to_patient(pose, turned, middle)
    assert np.linalg.norm(step) == pytest.approx(GRADER_INPUT.spacing_mm / 1.3)


def test_points_and_affines_are_inverse(store: StudyStore) -> None:
    pose = store[0].axial_poses[0]
    affine = rotate_and_zoom(
        slice_roi(pose, store[0].cord_points[0].mean(axis=0), CORD_INPUT), (128, 128), -11.0, 0.9
    )
    points = store[0].cord_points[0]
    assert crop_to_patient(pose, affine, patient_to_region(affine, pose, points)) == pytest.approx(
        points, abs=0.05
    )


def test_samples_are_the_same_for_the_same_number_and_differ_for_others(store: StudyStore) -> None:
    for source in (
        LevelSamples(store, LEVELS_INPUT, 4),
        CordSamples(store, CORD_INPUT, 2),
        GraderSamples(store, GRADER_INPUT) if len(set(store[0].grades.tolist())) == 4 else None,
    ):
        if source is None:
            continue
        one, again, other = (source(np.random.default_rng([0, k])) for k in (5, 5, 6))
        assert np.array_equal(one[0], again[0])
        assert np.array_equal(one[1], again[1])
        assert not np.array_equal(one[0], other[0])
        assert one[0].dtype == np.float32
