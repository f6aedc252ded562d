"""Findings in semi-synthetic studies: the same definition as in phantoms, over a subject's tissue."""

from __future__ import annotations

import numpy as np
import pytest
from made_subject import SAC_AP, TONES, made_subject

from stenosis_trt.bench.phantom.conditions import ORDINARY, Conditions, condition_rng
from stenosis_trt.bench.phantom.painting.finding_tissue import FindingTissues
from stenosis_trt.bench.phantom.painting.tissue_traits import sample_signals
from stenosis_trt.bench.phantom.patient.findings import draw_findings
from stenosis_trt.bench.semisynthetic.anatomy import SemisyntheticPatient, sample_patient
from stenosis_trt.bench.semisynthetic.deformation import Deformation
from stenosis_trt.bench.semisynthetic.source import SemisyntheticStudy, sample_semisynthetic
from stenosis_trt.bench.semisynthetic.straightened import StraightenedSubject
from stenosis_trt.bench.semisynthetic.tissue import RealTissues

_SIGNALS = sample_signals(np.random.default_rng(4))


@pytest.fixture(scope="module")
def subject() -> StraightenedSubject:
    return made_subject("errsm_11")


def _study(
    subject: StraightenedSubject, index: int, grade: int | None = None, **strengths: float
) -> SemisyntheticStudy:
    return sample_semisynthetic(subject, 3, index, grade, Conditions(**strengths))


def _signal(study: SemisyntheticStudy, u: object, v: object, s: object) -> np.ndarray:
    points = np.broadcast_arrays(*(np.asarray(axis, dtype=np.float32) for axis in (u, v, s)))
    flat = [axis.ravel() for axis in points]
    tissues = study.tissues(_SIGNALS)
    assert isinstance(tissues, FindingTissues)
    return tissues.with_spine(np.zeros_like(flat[0]), *flat, edge=0.3).reshape(points[0].shape)


def test_an_ordinary_study_is_the_same_with_and_without_conditions(subject: StraightenedSubject) -> None:
    one, other = sample_semisynthetic(subject, 3, 0), sample_semisynthetic(subject, 3, 0, None, ORDINARY)
    assert isinstance(one.tissues(_SIGNALS), RealTissues)
    assert one.uid_source == other.uid_source
    assert one.anatomy.levels == other.anatomy.levels
    number = len(one.axial.poses) // 2
    assert np.array_equal(one.slice_pixels(one.axial, number), other.slice_pixels(other.axial, number))


def test_kyphosis_takes_so_many_degrees_from_the_subjects_lordosis(subject: StraightenedSubject) -> None:
    def bend(patient: SemisyntheticPatient) -> float:
        curve = patient.anatomy.curve
        rows = curve.index(patient.anatomy.discs[[0, 5]])
        upper, lower = curve.tangent[rows]
        return float(np.rad2deg(np.arcsin(curve.lateral[rows].mean(axis=0) @ np.cross(upper, lower))))

    for seed in range(6):
        found = draw_findings(Conditions(kyphosis=25.0), condition_rng(seed, 0, "findings"))
        before, after = (
            bend(sample_patient(np.random.default_rng(seed), subject, None, 0.5, *findings))
            for findings in ((), (found,))
        )
        assert before - after == pytest.approx(25.0, abs=1.5)


def test_a_syrinx_has_the_signal_of_csf_and_raises_no_grade(subject: StraightenedSubject) -> None:
    for index in range(6):
        study = _study(subject, index, syrinx=0.4)
        anatomy, drawn = study.anatomy, study.anatomy.findings.syrinx
        assert drawn is not None
        s = float(np.interp(drawn.centre, np.arange(9), anatomy.discs))
        row = anatomy.curve.index(s)
        u = drawn.offset_u * anatomy.cord_transverse[row] / 2
        v = anatomy.cord_centre[row] + drawn.offset_v * anatomy.cord_ap[row] / 2
        if not 45 > s > -30:
            continue
        assert _signal(study, u, v, s) == pytest.approx(_SIGNALS.csf, abs=0.05)
        plain = sample_semisynthetic(subject, 3, index)
        assert [x.grade for x in anatomy.levels] == [x.grade for x in plain.anatomy.levels]


def test_an_oedema_makes_deformed_levels_grade_3_and_brightens_the_deformed_cord(
    subject: StraightenedSubject,
) -> None:
    seen = 0
    for index in range(6):
        study, bare = _study(subject, index, oedema=0.35), sample_semisynthetic(subject, 3, index)
        plain = RealTissues(study.patient, _SIGNALS, study.painted)
        assert not study.anatomy.lesion.any()
        for before, after in zip(bare.anatomy.levels, study.anatomy.levels, strict=True):
            assert after.grade == (3 if before.grade >= 2 else before.grade)
            row = study.anatomy.curve.index(after.s)
            u = np.linspace(-0.8, 0.8, 17)[:, None] * study.anatomy.cord_transverse[row] / 2
            v = study.anatomy.cord_centre[row] + np.linspace(-0.8, 0.8, 9) * study.anatomy.cord_ap[row] / 2
            points = [axis.ravel().astype(np.float32) for axis in np.broadcast_arrays(u, v, after.s)]
            added = _signal(study, u, v, after.s).ravel() - plain.with_spine(
                np.zeros_like(points[0]), *points, edge=0.3
            )
            if after.grade == 3:
                seen += 1
                assert added.max() > 0.2
    assert seen > 4


def test_the_band_of_bone_lies_in_what_it_takes_of_the_deformed_sac(subject: StraightenedSubject) -> None:
    for index in range(6):
        study = _study(subject, index, 0, ossification=0.8)
        anatomy, band = study.anatomy, study.anatomy.findings.ossification
        assert band is not None
        s = (anatomy.discs[band.first] + anatomy.discs[band.first + 1]) / 2
        row = anatomy.curve.index(s)
        front = -anatomy.sac_ap[row] / 2
        middle = np.array([front + 0.5, front + anatomy.encroach_anterior[row] - 0.8])
        assert (_signal(study, band.side, middle, s) < 0.15).all()
        # The deformation moves the wall of the subject's sac to where the band ends.
        edge = np.float32(front + anatomy.encroach_anterior[row] + np.array([-0.2, 0.2]))
        _, source_v, _, _ = Deformation(study.patient).to_subject(
            np.zeros(2, np.float32), edge, np.full(2, s, np.float32)
        )
        wall = -SAC_AP / 2
        assert source_v[0] < wall < source_v[1]


def test_fused_discs_become_marrow_of_the_subject(subject: StraightenedSubject) -> None:
    disc, marrow = TONES[2], TONES[1]
    assert abs(disc - marrow) > 0.1
    for index in range(4):
        study = _study(subject, index, 0, fusion=1.0)
        (fused,) = study.anatomy.findings.fused
        s = study.anatomy.discs[fused]
        v = -study.anatomy.canal_ap[study.anatomy.curve.index(s)] / 2 - 4.0
        across = np.linspace(-3, 3, 7)
        at_disc, in_body = (_signal(study, across, v, s + away).mean() for away in (0.0, 7.0))
        assert at_disc == pytest.approx(in_body, rel=0.15)
        assert not any(study.anatomy.operated)


def test_metal_is_void_and_its_levels_are_operated(subject: StraightenedSubject) -> None:
    for index in range(4):
        study = _study(subject, index, metal=5.0)
        (fused,) = study.anatomy.findings.fused
        assert study.anatomy.operated[fused]
        s = study.anatomy.discs[fused] + np.arange(-12.0, 12.5, 0.5)
        wall = study.anatomy.canal_ap[study.anatomy.curve.index(s)] / 2
        assert (_signal(study, 4.0, -wall - 12.0, s) < 0.05).sum() >= 10
