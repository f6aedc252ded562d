"""The phantom's geometry and truth, checked against independent computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stenosis_trt.bench.phantom.painting.canal_contents import ROOTS_MM
from stenosis_trt.bench.phantom.painting.tissue import Tissues
from stenosis_trt.bench.phantom.painting.tissue_traits import sample_signals
from stenosis_trt.bench.phantom.patient.anatomy import DEFORMED_FRACTION, Anatomy, sample_anatomy
from stenosis_trt.bench.phantom.scan.acquisition import plan_axial, sample_axial_protocol
from stenosis_trt.bench.phantom.study import sample_study
from stenosis_trt.engine.records import LEVELS


@pytest.fixture(scope="module")
def anatomies() -> list[Anatomy]:
    return [sample_anatomy(np.random.default_rng(seed)) for seed in range(40)]


def test_canal_coordinates_invert_patient_coordinates(anatomies: list[Anatomy]) -> None:
    rng = np.random.default_rng(0)
    for anatomy in anatomies[:10]:
        canal = rng.uniform([-15.0, -15.0, -35.0], [15.0, 15.0, 55.0], size=(50, 3))
        points = anatomy.curve.to_patient(canal[:, 0], canal[:, 1], canal[:, 2])
        # The table has a step of 0.1 mm, so arc length is exact to that and position to a little more.
        assert np.abs(anatomy.curve.to_canal(points) - canal).max() < 0.15


def test_grade_follows_from_space_deformation_and_lesion(anatomies: list[Anatomy]) -> None:
    seen = set()
    for anatomy in anatomies:
        for truth, stenosis in zip(anatomy.levels, anatomy.stenoses, strict=True):
            rows = anatomy.curve.index(np.linspace(truth.s - 6, truth.s + 6, 121))
            room = (anatomy.sac_ap - anatomy.encroach_anterior - anatomy.encroach_posterior)[rows]
            deformed = (anatomy.cord_ap[rows] >= room - 1e-9).any()
            expected = (3 if stenosis.lesion else 2) if deformed else (1 if truth.csf_fraction < 0.5 else 0)
            assert truth.grade == expected
            seen.add(truth.grade)
    assert seen == {0, 1, 2, 3}


def test_compression_ratio_is_the_smallest_near_the_disc(anatomies: list[Anatomy]) -> None:
    for anatomy in anatomies:
        for truth in anatomy.levels:
            rows = anatomy.curve.index(np.linspace(truth.s - 6, truth.s + 6, 121))
            ratios = anatomy.cord_ap[rows] / anatomy.cord_transverse[rows]
            assert truth.compression_ratio == pytest.approx(ratios.min(), abs=1e-9)
            assert truth.compression_ratio == pytest.approx(truth.ap_mm / truth.transverse_mm)


def test_healthy_diameters_are_those_of_the_literature(anatomies: list[Anatomy]) -> None:
    healthy = [t for a in anatomies for t in a.levels if t.grade == 0 and t.level in ("C4/5", "C5/6")]
    ap, transverse = np.mean([t.ap_mm for t in healthy]), np.mean([t.transverse_mm for t in healthy])
    assert ap == pytest.approx(7.5, abs=0.4)
    assert transverse == pytest.approx(13.0, abs=0.6)


def test_asked_grade_is_the_only_stenosis() -> None:
    for grade in (1, 2, 3):
        for index in range(5):
            grades = [t.grade for t in sample_study(5, index, grade).anatomy.levels]
            assert set(grades) <= {0, grade}
            assert grade in grades


def test_deformed_cord_has_lost_more_than_the_threshold(anatomies: list[Anatomy]) -> None:
    for anatomy in anatomies:
        for truth in anatomy.levels:
            healthy = [t.ap_mm for t in anatomy.levels if t.grade < 2]
            if truth.grade >= 2 and healthy:
                assert truth.ap_mm < max(healthy) * (1.0 - DEFORMED_FRACTION / 2)


def test_cord_points_lie_on_the_cords_edge() -> None:
    """Across the outline the painted signal changes by half at the truth's point, to a quarter of a mm.

    At the sides it does so beyond the point by the roots.
    """
    rng = np.random.default_rng(3)
    anatomy = sample_anatomy(rng, grade=0)
    tissues = Tissues(anatomy, sample_signals(rng))
    pose = plan_axial(anatomy, sample_axial_protocol(rng), rng)[12]
    points = anatomy.cord_points(pose)
    assert points is not None
    centre = points.mean(axis=0)
    for point, roots in zip(points, (0.0, 0.0, ROOTS_MM, ROOTS_MM), strict=True):
        outward = (point - centre) / np.linalg.norm(point - centre)
        steps = np.linspace(-1.2, 1.2, 97)
        u, v, s = anatomy.curve.to_canal(point + steps[:, None] * outward).T.astype(np.float32)
        signal = tissues.with_spine(np.zeros_like(u), u, v, s, edge=0.2)
        inner, outer = signal[:20].mean(), signal[-20:].mean()
        crossing = steps[np.argmax(signal > (inner + outer) / 2)]
        assert abs(crossing - roots) < 0.25


def test_cord_points_measure_the_cords_diameters() -> None:
    for index in range(6):
        study = sample_study(17, index)
        anatomy = study.anatomy
        for pose in study.axial.poses[::5]:
            points = anatomy.cord_points(pose)
            if points is None:
                continue
            row = anatomy.curve.index(anatomy.curve.to_canal(points.mean(axis=0))[2])
            tilt = float(abs(pose.normal @ anatomy.curve.tangent[row]))
            assert tilt > 0.8
            ap, transverse = np.linalg.norm(points[0] - points[1]), np.linalg.norm(points[2] - points[3])
            assert transverse == pytest.approx(anatomy.cord_transverse[row], rel=0.06)
            # A plane that is not square to the cord cuts it longer, by 1 / cosine at the most, and the
            # cord's own AP changes by a few per cent over the height of the cut.
            assert anatomy.cord_ap[row] * 0.90 <= ap <= anatomy.cord_ap[row] / tilt * 1.12


def test_cord_points_are_averaged_over_the_slice_as_its_signal_is() -> None:
    study = sample_study(17, 1, 3)
    pose = study.axial.poses[len(study.axial.poses) // 2]
    thick = study.anatomy.cord_points(pose)
    assert thick is not None
    assert pose.thickness is not None
    thin = np.zeros((4, 3))
    for depth, weight in ((-0.42, 0.19), (-0.14, 0.31), (0.14, 0.31), (0.42, 0.19)):
        origin = np.asarray(pose.origin) + depth * pose.thickness * pose.normal
        cut = study.anatomy.cord_points(replace(pose, origin=tuple(origin), thickness=0.0))
        assert cut is not None
        assert np.abs((cut - origin) @ pose.normal).max() < 1e-6
        thin += weight * cut
    assert np.allclose(thick, thin, atol=1e-9)


def test_the_seen_compression_is_the_smallest_ratio_on_the_slices_near_a_level() -> None:
    for index in range(3):
        study = sample_study(17, index)
        anatomy = study.anatomy
        places = np.array([level.s for level in anatomy.levels])
        near: dict[int, list[tuple[float, int]]] = {level: [] for level in range(len(LEVELS))}
        for number, pose in enumerate(study.axial.poses):
            points = anatomy.cord_points(pose)
            if points is not None:
                s = anatomy.curve.to_canal(points.mean(axis=0))[2]
                away = np.abs(places - s)
                along = anatomy.curve.tangent[anatomy.curve.index(s)]
                # Lengths orthogonal to the canal, by Pythagoras.
                lines = points[[0, 2]] - points[[1, 3]]
                ap, transverse = np.sqrt((lines**2).sum(axis=1) - (lines @ along) ** 2)
                if away.min() <= 6.0:
                    near[int(away.argmin())].append((ap / transverse, number))
        for level, seen in enumerate(study.slice_compressions()):
            if seen is None:
                assert near[level] == []
            else:
                assert (pytest.approx(seen.compression_ratio), seen.number) == min(near[level])
                # No slice shows the cord narrower than it is, but for what the slice's tilt does to it.
                assert seen.compression_ratio > anatomy.levels[level].compression_ratio - 0.03


def test_level_points_run_from_head_to_foot(anatomies: list[Anatomy]) -> None:
    for anatomy in anatomies:
        assert tuple(truth.level for truth in anatomy.levels) == LEVELS
        heights = [truth.point[2] for truth in anatomy.levels]
        assert heights == sorted(heights, reverse=True)
        gaps = -np.diff(heights)
        assert gaps.min() > 9.0
        assert gaps.max() < 28.0
