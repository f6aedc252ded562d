"""Conditions of position and scan in semi-synthetic studies."""

from __future__ import annotations

import numpy as np
import pytest
from made_subject import made_subject

from stenosis_trt.bench.phantom.conditions import Conditions
from stenosis_trt.bench.phantom.painting.tissue_traits import sample_signals
from stenosis_trt.bench.semisynthetic.source import SemisyntheticStudy, sample_semisynthetic
from stenosis_trt.bench.semisynthetic.straightened import StraightenedSubject


@pytest.fixture(scope="module")
def subject() -> StraightenedSubject:
    return made_subject()


def _study(subject: StraightenedSubject, index: int = 0, **strengths: float) -> SemisyntheticStudy:
    return sample_semisynthetic(subject, 3, index, None, Conditions(**strengths))


def test_fields_larger_than_the_volume_are_painted_beyond_it(subject: StraightenedSubject) -> None:
    assert {_study(subject, index).painted for index in range(8)} == {True, False}
    assert all(_study(subject, index, field_mm=550.0).painted for index in range(8))
    study = _study(subject, 0, field_mm=550.0, field_place=-1.0)
    signals = sample_signals(np.random.default_rng(1))
    low = float(study.anatomy.discs[15])
    s = np.linspace(low + 8.0, low + 14.0, 40, dtype=np.float32)
    u, v = np.zeros_like(s), np.full_like(s, -22.0)
    tissues = study.tissues(signals)
    seen = tissues.with_spine(tissues.surroundings(u, v, s, 0.8), u, v, s, 0.8)
    assert float(np.median(seen)) == pytest.approx(signals.marrow, rel=0.4)


def test_a_longer_spine_shows_the_same_neck(subject: StraightenedSubject) -> None:
    plain, tall = _study(subject, 1), _study(subject, 1, field_mm=550.0)
    assert plain.anatomy.levels == tall.anatomy.levels
    places = np.array([-40.0, 0.0, 60.0])
    before, after = (study.patient.source_s[study.anatomy.curve.index(places)] for study in (plain, tall))
    assert after == pytest.approx(before, abs=1e-6)
    steps = np.diff(tall.patient.source_s)
    assert (steps > 0.0).all()
    assert steps[[0, -1]] == pytest.approx(0.1 / tall.anatomy.scale, rel=1e-6)


def test_a_turned_patient_keeps_its_tissue_and_turns_its_truth(subject: StraightenedSubject) -> None:
    plain, turned = _study(subject, 2), _study(subject, 2, pitch=15.0)
    assert turned.patient.anatomy is turned.anatomy
    points = [np.array([level.point for level in study.anatomy.levels]) for study in (plain, turned)]
    spans = [np.linalg.norm(item[5] - item[0]) for item in points]
    assert spans[0] == pytest.approx(spans[1], abs=1e-6)
    assert np.abs(points[0][0] - points[1][0]).max() > 4.0
    signals = sample_signals(np.random.default_rng(1))
    u, v, s = (np.linspace(low, high, 50, dtype=np.float32) for low, high in ((-8, 8), (-6, 6), (-30, 40)))
    blank = np.zeros_like(u)
    seen = [study.tissues(signals).with_spine(blank, u, v, s, 0.5) for study in (plain, turned)]
    assert seen[0] == pytest.approx(seen[1], abs=1e-6)


def test_suppressed_fat_darkens_bright_tissue_around_the_spine_alone(subject: StraightenedSubject) -> None:
    study = sample_semisynthetic(subject, 3, 3, 0, Conditions(fat_suppression=1.0))
    plain = sample_semisynthetic(subject, 3, 3, 0).sagittal.scanner.signals
    water = study.sagittal.scanner.signals
    rng = np.random.default_rng(2)
    u, v, s = (
        rng.uniform(low, high, 4000).astype(np.float32) for low, high in ((-15, 15), (-5, 30), (-30, 40))
    )
    blank = np.zeros_like(u)
    before, after = (study.tissues(item).with_spine(blank, u, v, s, 0.5) for item in (plain, water))
    assert (after <= before + 1e-5).all()
    in_sac = (np.abs(u) < 3.0) & (np.abs(v) < 2.0)
    assert in_sac.sum() > 50
    assert after[in_sac] == pytest.approx(before[in_sac], abs=1e-5)
