"""Fields of view of 160 to 600 mm: matrix, place of the neck, and what lies beyond it."""

from __future__ import annotations

import numpy as np
import pytest

from stenosis_trt.bench.phantom.conditions import Conditions
from stenosis_trt.bench.phantom.painting.tall_tissue import TallTissues, painted
from stenosis_trt.bench.phantom.painting.tissue import Tissues
from stenosis_trt.bench.phantom.painting.tissue_traits import sample_signals
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.patient.tall_spine import L5_S1, NECK_DISCS, T12_L1
from stenosis_trt.bench.phantom.study import PhantomStudy, sample_study
from stenosis_trt.engine.geometry import FloatArray

SEED = 6
SIGNALS = sample_signals(np.random.default_rng(1))


def _tall(index: int, field: float, place: float = -1.0) -> PhantomStudy:
    return sample_study(SEED, index, None, Conditions(field_mm=field, field_place=place))


def _rows(study: PhantomStudy, places: FloatArray) -> FloatArray:
    """Distance in mm of canal points from the upper edge of the middle sagittal slice."""
    pose = study.sagittal.poses[len(study.sagittal.poses) // 2]
    return pose.to_pixels(study.anatomy.curve.to_patient(0.0, 0.0, places))[:, 1] * pose.row_spacing


@pytest.mark.parametrize("field", [300.0, 420.0, 600.0])
def test_tall_fields_have_the_matrix_and_spacing_of_such_scans_and_some_are_rectangular(field: float) -> None:
    widths = []
    for index in range(6):
        pose = _tall(index, field).sagittal.poses[0]
        assert 320 <= pose.rows <= 640
        assert 0.6 <= pose.row_spacing <= 1.1
        assert pose.rows * pose.row_spacing == pytest.approx(field, abs=9.0)
        widths.append(pose.columns * pose.column_spacing)
    assert all(240.0 < width < 310.0 or width == pytest.approx(field, abs=9.0) for width in widths)
    if field > 310.0:
        assert {width < 310.0 for width in widths} == {True, False}


@pytest.mark.parametrize("field", [320.0, 600.0])
def test_the_neck_lies_at_the_end_of_the_image_that_is_asked_for(field: float) -> None:
    for index in range(3):
        top, bottom = _tall(index, field, -1.0), _tall(index, field, 1.0)
        discs, scale = top.anatomy.discs, top.anatomy.scale
        assert 20.0 <= _rows(top, np.array([discs[0] - 12.0 * scale]))[0] <= 46.0
        height = bottom.sagittal.protocol.rows * bottom.sagittal.protocol.pixel_spacing
        assert 19.0 <= height - _rows(bottom, np.array([discs[5]]))[0] <= 46.0
        middle = _rows(_tall(index, field, 0.0), discs[2:3])[0]
        assert abs(middle - height / 2) < 30.0


def test_small_fields_may_cut_a_level_and_its_truth_stays() -> None:
    cut = 0
    for index in range(12):
        study = _tall(index, 160.0, (-1.0) ** index)
        rows = _rows(study, study.anatomy.discs[:6])
        cut += int((rows < 0).any() or (rows > 160.0).any())
        assert [level.grade for level in study.anatomy.levels] == [
            level.grade for level in sample_study(SEED, index).anatomy.levels
        ]
    assert 0 < cut < 12


def _far(first: Anatomy, second: Anatomy) -> FloatArray:
    places = np.arange(-140.0, 180.0, 10.0)
    return np.abs(first.curve.to_patient(0.0, 0.0, places) - second.curve.to_patient(0.0, 0.0, places))


def test_the_spine_goes_on_to_the_sacrum_and_the_neck_stays_as_it_was() -> None:
    for index in range(5):
        plain, tall = sample_study(SEED, index).anatomy, _tall(index, 600.0).anatomy
        assert tall.levels == plain.levels
        assert tall.discs[:NECK_DISCS] == pytest.approx(plain.discs)
        assert _far(plain, tall).max() < 1e-6
        pitch = np.diff(tall.discs) / tall.scale
        assert ((pitch[8:T12_L1] > 19.0) & (pitch[8:T12_L1] < 29.0)).all()
        assert ((pitch[T12_L1:L5_S1] > 27.0) & (pitch[T12_L1:L5_S1] < 39.0)).all()
        down = np.rad2deg(np.arctan2(tall.curve.tangent[:, 1], -tall.curve.tangent[:, 2]))
        bend = down[tall.curve.index(tall.discs)]
        # Kyphosis of the chest, then lordosis of the loin.
        assert bend[T12_L1] < bend[L5_S1] - 15.0
        assert bend[T12_L1] < 0.0
        frame = np.stack([tall.curve.tangent, tall.curve.lateral, tall.curve.posterior], axis=1)
        assert np.abs(frame @ frame.transpose(0, 2, 1) - np.eye(3)).max() < 1e-6
        assert np.linalg.norm(np.diff(tall.curve.centre, axis=0), axis=1) == pytest.approx(0.1, abs=1e-4)
        assert np.abs(np.diff(tall.curve.tangent, axis=0)).max() < 2e-3


def test_slices_through_the_neck_show_the_spine_down_to_the_sacrum() -> None:
    for index in range(5):
        study = _tall(index, 600.0)
        pose = study.sagittal.poses[len(study.sagittal.poses) // 2]
        below = study.anatomy.curve.to_patient(0.0, 0.0, study.anatomy.discs[:L5_S1])
        assert np.abs(pose.to_pixels(below)[:, 2]).max() < 12.0


def _signal(tissues: Tissues, points: list[tuple[float, float, float]]) -> FloatArray:
    u, v, s = (np.array(axis, dtype=np.float32) for axis in zip(*points, strict=True))
    return np.asarray(tissues.with_spine(tissues.surroundings(u, v, s, 0.8), u, v, s, 0.8), dtype=np.float64)


def test_vertebrae_discs_and_fluid_are_painted_in_chest_and_loin() -> None:
    anatomy = _tall(1, 600.0).anatomy
    tissues = painted(anatomy, SIGNALS)
    assert isinstance(tissues, TallTissues)
    for above in (12, T12_L1 + 1):
        first, second = float(anatomy.discs[above]), float(anatomy.discs[above + 1])
        row = anatomy.curve.index((first + second) / 2)
        front = -float(anatomy.canal_ap[row]) / 2
        body = [(u, front - 12.0, (first + second) / 2) for u in np.linspace(-6.0, 6.0, 9)]
        annulus = [(u, front - 1.5, first) for u in np.linspace(-4.0, 4.0, 9)]
        sac_v, centre = float(anatomy.sac_ap[row]) / 2, float(anatomy.cord_centre[row])
        fluid = [(0.0, (-sac_v + centre - float(anatomy.cord_ap[row]) / 2) / 2, (first + second) / 2)]
        assert _signal(tissues, body).mean() == pytest.approx(SIGNALS.marrow, rel=0.35)
        assert _signal(tissues, annulus).mean() < 0.6 * SIGNALS.marrow
        assert _signal(tissues, fluid)[0] > 0.6


def test_the_neck_is_painted_as_in_an_ordinary_image() -> None:
    plain, tall = sample_study(SEED, 2).anatomy, _tall(2, 600.0).anatomy
    rng = np.random.default_rng(3)
    u, v = rng.uniform(-14.0, 14.0, 3000), rng.uniform(-25.0, 35.0, 3000)
    s = rng.uniform(plain.discs[0] - 15.0, plain.discs[4], 3000)
    points = list(zip(u.tolist(), v.tolist(), s.tolist(), strict=True))
    before, after = (_signal(painted(item, SIGNALS), points) for item in (plain, tall))
    assert np.mean(np.abs(before - after) < 0.02) > 0.98


def test_a_head_lies_above_the_neck_with_air_around_it() -> None:
    anatomy = _tall(0, 600.0, 1.0).anatomy
    tissues = painted(anatomy, SIGNALS)
    c1 = float(anatomy.discs[0] - 27.0 * anatomy.scale)
    brain = [(8.0, v, c1 - 115.0 * anatomy.scale) for v in np.linspace(-30.0, 20.0, 12)]
    assert 0.6 * SIGNALS.cord < np.median(_signal(tissues, brain)) < 1.6 * SIGNALS.cord
    air = [(0.0, 0.0, c1 - 190.0), (0.0, -140.0, c1 - 90.0), (0.0, 140.0, c1 - 90.0)]
    assert _signal(tissues, air) == pytest.approx(SIGNALS.air, abs=1e-3)


def test_an_ordinary_anatomy_is_painted_by_the_ordinary_tissue() -> None:
    assert type(painted(sample_study(SEED, 0).anatomy, SIGNALS)) is Tissues
    assert type(painted(_tall(0, 180.0).anatomy, SIGNALS)) is Tissues
