"""Findings of phantom patients: the truth follows, tissue is painted where it should be, and only there."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from stenosis_trt.bench.phantom.conditions import ORDINARY, Conditions, condition_rng
from stenosis_trt.bench.phantom.painting.finding_tissue import with_findings
from stenosis_trt.bench.phantom.painting.tissue import Tissues
from stenosis_trt.bench.phantom.painting.tissue_traits import sample_signals
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy, sample_anatomy
from stenosis_trt.bench.phantom.patient.deformity import MAX_KYPHOSIS
from stenosis_trt.bench.phantom.patient.findings import NO_FINDINGS, Findings, draw_findings
from stenosis_trt.bench.phantom.patient.hardware import BODY_DEPTH_MM, Implant
from stenosis_trt.bench.phantom.study import sample_study
from stenosis_trt.bench.phantom.writing import truth_rows

_SIGNALS = sample_signals(np.random.default_rng(4))
_SEEDS = range(12)


def _findings(seed: int, **strengths: float) -> Findings:
    return draw_findings(Conditions(**strengths), condition_rng(seed, 0, "findings"))


def _anatomy(seed: int, grade: int | None = None, **strengths: float) -> Anatomy:
    return sample_anatomy(np.random.default_rng(seed), grade, _findings(seed, **strengths))


def _signals(anatomy: Anatomy, u: object, v: object, s: object) -> tuple[np.ndarray, np.ndarray]:
    """Signal with and without the findings, at points that are broadcast together."""
    points = np.broadcast_arrays(*(np.asarray(axis, dtype=np.float32) for axis in (u, v, s)))
    flat = [axis.ravel() for axis in points]
    plain = Tissues(anatomy, _SIGNALS)
    found = with_findings(plain, anatomy, _SIGNALS)
    surroundings = plain.surroundings(*flat, edge=0.3)
    return tuple(
        tissues.with_spine(surroundings, *flat, edge=0.3).reshape(points[0].shape)
        for tissues in (found, plain)
    )


def _bend(anatomy: Anatomy) -> float:
    """Lordosis between C2/3 and C7/T1, from the curve's tangents in its own sagittal plane, in degrees."""
    rows = anatomy.curve.index(anatomy.discs[[0, 5]])
    across = anatomy.curve.lateral[rows].mean(axis=0)
    upper, lower = anatomy.curve.tangent[rows]
    return float(np.rad2deg(np.arcsin(across @ np.cross(upper, lower))))


def _shift(anatomy: Anatomy) -> np.ndarray:
    """Sideways distance of the canal from the line through its ends, C2/3 to T3/4, mm."""
    rows = np.arange(anatomy.curve.index(anatomy.discs[0]), anatomy.curve.index(anatomy.discs[-1]))
    x = anatomy.curve.centre[rows, 0]
    return x - np.linspace(x[0], x[-1], len(x))


def test_an_ordinary_patient_is_the_same_with_and_without_findings() -> None:
    assert draw_findings(ORDINARY, np.random.default_rng(1)) == NO_FINDINGS
    one, other = sample_anatomy(np.random.default_rng(8)), _anatomy(8)
    for item in fields(Anatomy):
        first, second = getattr(one, item.name), getattr(other, item.name)
        if isinstance(first, np.ndarray):
            assert np.array_equal(first, second), item.name
    assert one.levels == other.levels
    assert one.operated == (False,) * 6
    tissues = Tissues(one, _SIGNALS)
    assert with_findings(tissues, one, _SIGNALS) is tissues


def test_a_stronger_finding_is_at_the_same_place_as_a_weaker_one() -> None:
    for name in ("syrinx", "ossification", "oedema", "metal"):
        weak, strong = _findings(3, **{name: 0.2}), _findings(3, **{name: 0.4})
        assert weak != strong
        if weak.syrinx and strong.syrinx:
            assert weak.syrinx.centre == strong.syrinx.centre
            assert strong.syrinx.half_v == pytest.approx(2 * weak.syrinx.half_v)
        assert weak.patches == strong.patches
        assert weak.fused == strong.fused


def test_a_finding_leaves_everything_else_of_the_patient_as_it_was() -> None:
    plain, found = _anatomy(5), _anatomy(5, syrinx=0.4)
    assert plain.levels == found.levels
    assert plain.stenoses == found.stenoses
    assert plain.texture_seed == found.texture_seed


@pytest.mark.parametrize("degrees", [10.0, 40.0])
def test_kyphosis_takes_so_many_degrees_from_the_lordosis(degrees: float) -> None:
    for seed in _SEEDS:
        before, after = _bend(_anatomy(seed)), _bend(_anatomy(seed, kyphosis=degrees))
        assert after >= -MAX_KYPHOSIS - 2.0
        if before - degrees > -MAX_KYPHOSIS + 2.0:
            assert before - after == pytest.approx(degrees, abs=1.5)


def test_a_bent_canal_is_smooth_and_its_coordinates_can_be_inverted() -> None:
    for seed in _SEEDS[:6]:
        curve = _anatomy(seed, kyphosis=30.0, scoliosis=12.0).curve
        turn = np.rad2deg(np.linalg.norm(np.diff(curve.tangent, axis=0), axis=1)) / np.diff(curve.s)
        assert turn.max() < 1.2
        assert np.abs(np.diff(turn)).max() < 0.05
        canal = np.random.default_rng(0).uniform([-15, -30, -45], [15, 30, 65], (60, 3))
        assert np.abs(curve.to_canal(curve.to_patient(*canal.T)) - canal).max() < 0.3


def test_scoliosis_moves_the_canal_sideways() -> None:
    moved = [np.ptp(_shift(_anatomy(seed, scoliosis=12.0)) - _shift(_anatomy(seed))) for seed in _SEEDS]
    assert np.median(moved) > 5.0


def test_a_syrinx_is_as_bright_as_csf_inside_the_cord_and_raises_no_grade() -> None:
    for seed in _SEEDS:
        anatomy = _anatomy(seed, syrinx=0.35)
        drawn = anatomy.findings.syrinx
        assert drawn is not None
        middle = float(np.interp(drawn.centre, np.arange(9), anatomy.discs))
        row = anatomy.curve.index(middle)
        u = drawn.offset_u * anatomy.cord_transverse[row] / 2
        v = anatomy.cord_centre[row] + drawn.offset_v * anatomy.cord_ap[row] / 2
        found, plain = _signals(anatomy, u, v, middle)
        assert found == pytest.approx(_SIGNALS.csf, abs=0.05)
        assert plain < 0.9 * found
        # A rim of cord stays, and beyond the ends nothing changes.
        edge = anatomy.cord_centre[row] + 0.85 * anatomy.cord_ap[row] / 2
        assert np.array_equal(*_signals(anatomy, 0.0, edge, middle))
        ends = middle + np.array([-1.0, 1.0]) * (drawn.length / 2 + 1.0)
        assert np.array_equal(*_signals(anatomy, u, v, ends))
        assert [level.grade for level in anatomy.levels] == [level.grade for level in _anatomy(seed).levels]


def test_with_an_oedema_every_deformed_level_is_grade_3_and_no_other() -> None:
    seen = set()
    for seed in _SEEDS:
        plain, anatomy = _anatomy(seed), _anatomy(seed, oedema=0.3)
        for before, after in zip(plain.levels, anatomy.levels, strict=True):
            assert after.grade == (3 if before.grade >= 2 else before.grade)
            assert replace(after, grade=before.grade) == before
            seen.add((before.grade, after.grade))
        assert not anatomy.lesion.any()
    assert {(2, 3), (3, 3)} <= seen


def test_an_oedema_brightens_the_cord_at_deformed_levels_alone() -> None:
    lengths, asymmetric = [], 0
    for seed in _SEEDS[:8]:
        anatomy = _anatomy(seed, oedema=0.3)
        for number, level in enumerate(anatomy.levels):
            s = level.s + np.arange(-15.0, 15.1, 1.0)
            row = anatomy.curve.index(s)
            half_u, half_v = anatomy.cord_transverse[row] / 2, anatomy.cord_ap[row] / 2
            x, y = np.linspace(-0.9, 0.9, 19)[:, None, None], np.linspace(-0.9, 0.9, 13)[:, None]
            found, plain = _signals(anatomy, x * half_u, anatomy.cord_centre[row] + y * half_v, s)
            added = found - plain
            assert added.min() > -1e-5
            assert added.max() < 0.3 * 1.4 + 0.01
            if level.grade == 3:
                assert added[:, :, 15].max() > 0.15, "it reaches the disc"
                lengths.append(int((added.max(axis=(0, 1)) > 0.05).sum()))
                asymmetric += np.abs(added - added[::-1]).max() > 0.1
            elif all(anatomy.levels[k].grade < 2 for k in (number - 1, number + 1) if 0 <= k < 6):
                assert not added.any()
        outside = anatomy.cord_centre[row] + 1.15 * half_v
        assert np.array_equal(*_signals(anatomy, 0.0, outside, s))
    assert min(lengths) >= 4
    assert max(lengths) <= 27
    assert max(lengths) - min(lengths) > 5
    assert asymmetric > len(lengths) / 2


def test_an_ossification_takes_its_share_of_the_reserve_behind_its_bodies() -> None:
    for seed in _SEEDS:
        for share in (0.3, 0.6, 0.9):
            plain, anatomy = _anatomy(seed, 0), _anatomy(seed, 0, ossification=share)
            band = anatomy.findings.ossification
            assert band is not None
            assert 1 <= band.bodies <= 3
            body = (anatomy.discs[band.first] + anatomy.discs[band.first + 1]) / 2
            row = anatomy.curve.index(body)
            reserve = anatomy.sac_ap[row] - plain.cord_ap[row]
            assert anatomy.encroach_anterior[row] == pytest.approx(share * reserve, rel=1e-6)
            assert (anatomy.encroach_anterior >= plain.encroach_anterior - 1e-12).all()
            far = np.abs(anatomy.curve.s - body) > 70.0
            assert np.array_equal(anatomy.encroach_anterior[far], plain.encroach_anterior[far])


def test_csf_fraction_and_grade_follow_an_ossification() -> None:
    changed = 0
    for seed in _SEEDS:
        plain, anatomy = _anatomy(seed, 0), _anatomy(seed, 0, ossification=0.9)
        for before, after in zip(plain.levels, anatomy.levels, strict=True):
            assert after.csf_fraction <= before.csf_fraction + 1e-9
            rows = anatomy.curve.index(np.linspace(after.s - 6, after.s + 6, 121))
            pressed = (anatomy.encroach_anterior + anatomy.encroach_posterior)[rows]
            left = 1.0 - pressed / (anatomy.sac_ap - plain.cord_ap)[rows]
            assert after.csf_fraction == pytest.approx(max(left.min(), 0.0), abs=1e-6)
            if after.grade < 2:
                assert after.grade == int(after.csf_fraction < 0.5)
            changed += after.grade != before.grade
    assert changed > 5


def test_a_band_of_bone_is_dark_broad_and_ends_before_the_dura() -> None:
    for seed in _SEEDS[:6]:
        anatomy = _anatomy(seed, 0, ossification=0.8)
        band = anatomy.findings.ossification
        assert band is not None
        s = (anatomy.discs[band.first] + anatomy.discs[band.first + 1]) / 2
        row = anatomy.curve.index(s)
        front = -anatomy.sac_ap[row] / 2 + anatomy.encroach_anterior[row]
        u = band.side + np.linspace(-0.35, 0.35, 9) * band.width
        found, _ = _signals(anatomy, u, -anatomy.sac_ap[row] / 2 + 0.5, s)
        assert found.max() < _SIGNALS.cortex * 1.4
        assert np.array_equal(*_signals(anatomy, band.side, front + np.array([0.3, 0.8]), s))


def test_fused_discs_become_marrow_and_lose_height_and_keep_their_grades() -> None:
    for seed in _SEEDS[:8]:
        plain, anatomy = _anatomy(seed), _anatomy(seed, fusion=2.0)
        discs = anatomy.findings.fused
        assert len(discs) == 2
        assert 1 <= discs[0] < discs[1] <= 4
        lost = np.diff(plain.discs) - np.diff(anatomy.discs)
        assert lost[discs[0]] == pytest.approx(1.2)
        assert not anatomy.operated[discs[0]]
        for disc in discs:
            s = anatomy.discs[disc]
            front = -anatomy.canal_ap[anatomy.curve.index(s)] / 2 - 1.0
            v = front - BODY_DEPTH_MM / 2 * anatomy.scale
            found, bare = _signals(anatomy, np.linspace(-4, 4, 9), v, s)
            bodies, _ = _signals(anatomy, np.linspace(-4, 4, 9), v, s + np.array([[-6.0], [6.0]]))
            assert found.mean() == pytest.approx(bodies.mean(), rel=0.25)
            assert np.abs(found - bare).max() > 0.02


def test_metal_holds_a_disc_even_where_none_was_to_be_fused() -> None:
    for seed in _SEEDS:
        anatomy = _anatomy(seed, metal=2.0)
        (disc,) = anatomy.findings.fused
        assert anatomy.operated[disc]
        assert _findings(seed).fused == ()


def test_metal_leaves_a_void_and_a_bright_rim_on_one_side() -> None:
    brighter = 0
    for seed in _SEEDS[:8]:
        anatomy = _anatomy(seed, metal=4.0)
        implant = Implant(anatomy.findings, anatomy.curve.s, anatomy.discs, anatomy.canal_ap, anatomy.scale)
        place = anatomy.discs[anatomy.findings.fused[0]]
        grid = np.meshgrid(
            np.arange(-12, 12, 2.0), np.arange(-40, 10, 1.0), place + np.arange(-25, 25, 1.0), indexing="ij"
        )
        distance = implant.distance(*(axis.astype(np.float32) for axis in grid))
        found, plain = _signals(anatomy, *grid)
        assert found[distance < 0.4 * 4.0].max() < 0.05
        assert (distance < 0.0).any()
        # Distortion decays; far from the metal nothing has changed.
        assert np.abs(found - plain)[distance > 4.0 * 1.5 + 16.0].max() == 0.0
        brighter += int((found - plain)[(distance > 4.0) & (distance < 8.0)].max() > 0.2)
    assert brighter >= 6


def test_a_larger_void_hides_more_levels_and_the_truth_has_no_grade_there() -> None:
    hidden = {void: sum(sum(_anatomy(seed, metal=void).operated) for seed in _SEEDS) for void in (2.0, 8.0)}
    assert hidden[2.0] >= len(_SEEDS)
    assert hidden[8.0] > hidden[2.0]
    study = sample_study(9, 0, conditions=Conditions(fusion=2.0, metal=6.0))
    rows = truth_rows(study)
    assert [row["kang_grade"] == "" for row in rows] == list(study.anatomy.operated)
    assert sum(study.anatomy.operated) >= 2
    for row in rows:
        assert all(value != "" for name, value in row.items() if name in ("x_mm", "narrowest_ratio"))


def test_a_study_with_findings_is_the_same_every_time() -> None:
    conditions = Conditions(oedema=0.3, metal=3.0, kyphosis=10.0)
    one, other = (sample_study(9, 1, conditions=conditions) for _ in range(2))
    assert one.anatomy.levels == other.anatomy.levels
    assert one.anatomy.findings == other.anatomy.findings
    number = len(one.sagittal.poses) // 2
    pixels = one.slice_pixels(one.sagittal, number)
    assert np.array_equal(pixels, other.slice_pixels(other.sagittal, number))
