"""Semi-synthetic studies of a subject with an exactly known canal: deformation, truth, UIDs, cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_subject import (
    CORD_AP,
    CORD_CENTRE,
    CORD_TRANSVERSE,
    SAC_AP,
    SAC_TRANSVERSE,
    SPOT_U,
    SPOT_V,
    made_subject,
)

from stenosis_trt.bench.phantom.dicom_files import phantom_uid
from stenosis_trt.bench.phantom.painting.tissue_traits import sample_signals
from stenosis_trt.bench.phantom.patient.anatomy import DEFORMED_FRACTION, LevelTruth
from stenosis_trt.bench.semisynthetic import straightened
from stenosis_trt.bench.semisynthetic.anatomy import SemisyntheticPatient, sample_patient
from stenosis_trt.bench.semisynthetic.canal import NiftiVolume, trace_canal
from stenosis_trt.bench.semisynthetic.deformation import Deformation
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource, sample_semisynthetic
from stenosis_trt.bench.semisynthetic.straightened import StraightenedSubject, load_straightened
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS, Subject
from stenosis_trt.bench.semisynthetic.tissue import RealTissues

_FINE_MM = 0.1
_ACROSS = np.arange(-11.0, 11.0, _FINE_MM)
_BEHIND = np.arange(-8.0, 8.0, _FINE_MM)


@pytest.fixture(scope="module")
def subject() -> StraightenedSubject:
    return made_subject()


def _patient(
    subject: StraightenedSubject, seed: int, grade: int | None = None, variety: float = 0.0
) -> SemisyntheticPatient:
    return sample_patient(np.random.default_rng(seed), subject, grade, variety)


def _changed(patient: SemisyntheticPatient, **profiles: np.ndarray | float) -> SemisyntheticPatient:
    """The patient with profiles of its anatomy replaced; a number stands all along."""
    length = len(patient.anatomy.curve.s)
    wide = {name: np.broadcast_to(np.asarray(value, float), length) for name, value in profiles.items()}
    return replace(patient, anatomy=replace(patient.anatomy, **wide))


def _from_behind(patient: SemisyntheticPatient) -> SemisyntheticPatient:
    """The patient with what presses from the front pressing from behind, and the other way about."""
    anatomy = patient.anatomy
    return _changed(
        patient,
        encroach_anterior=anatomy.encroach_posterior,
        encroach_posterior=anatomy.encroach_anterior,
        cord_centre=-anatomy.cord_centre,
    )


def _moved(patient: SemisyntheticPatient, u: object, v: object, s: object) -> list[np.ndarray]:
    """Where points (broadcast together) come from in the subject: u, v and s."""
    points = np.broadcast_arrays(*(np.asarray(axis, dtype=np.float32) for axis in (u, v, s)))
    moved = Deformation(patient).to_subject(*(axis.ravel() for axis in points))
    return [axis.reshape(points[0].shape) for axis in moved[:3]]


def _labels(patient: SemisyntheticPatient, u: object, v: object, s: object) -> tuple[np.ndarray, np.ndarray]:
    """Cord and sac of the subject, pulled back to points of the patient."""
    source_u, source_v, _ = _moved(patient, u, v, s)
    cord = (source_u / (CORD_TRANSVERSE / 2)) ** 2 + ((source_v - CORD_CENTRE) / (CORD_AP / 2)) ** 2 < 1
    return cord, (source_u / (SAC_TRANSVERSE / 2)) ** 2 + (source_v / (SAC_AP / 2)) ** 2 < 1


def _cord_across(patient: SemisyntheticPatient, s: float) -> np.ndarray:
    """The cord's label on the 0.1 mm grid of the plane at `s`, (v, u)."""
    return _labels(patient, _ACROSS, _BEHIND[:, None], s)[0]


def _diameters(label: np.ndarray) -> tuple[float, float]:
    """Back-to-front at the mid-line, and transverse, in mm, of a label on that grid."""
    middle = int(np.argmin(np.abs(_ACROSS)))
    return label[:, middle].sum() * _FINE_MM, label.any(axis=0).sum() * _FINE_MM


def _mid_line(patient: SemisyntheticPatient, level: LevelTruth) -> tuple[float, float]:
    """Narrowest cord and CSF at the mid-line within 6 mm of a level, in mm, on deformed labels."""
    fine = np.arange(-8.0, 8.0, 0.02)
    cord, sac = _labels(patient, 0.0, fine, level.s + np.arange(-6.0, 6.1, 0.5)[:, None])
    return cord.sum(axis=1).min() * 0.02, (sac & ~cord).sum(axis=1).min() * 0.02


def _signal(patient: SemisyntheticPatient, u: object, v: object, s: object) -> np.ndarray:
    points = np.broadcast_arrays(*(np.asarray(axis, dtype=np.float32) for axis in (u, v, s)))
    flat = [axis.ravel() for axis in points]
    tissues = RealTissues(patient, sample_signals(np.random.default_rng(4)), painted=False)
    return tissues.with_spine(np.zeros_like(flat[0]), *flat, edge=0.3).reshape(points[0].shape)


def _hit(patient: SemisyntheticPatient, grade: int) -> LevelTruth:
    return next(level for level in patient.anatomy.levels if level.grade == grade)


def test_without_variety_and_with_nothing_pressing_every_point_stays_where_it_is(
    subject: StraightenedSubject,
) -> None:
    patient = _changed(_patient(subject, 0, 0), encroach_anterior=0.0, encroach_posterior=0.0)
    rng = np.random.default_rng(1)
    u, v, s = rng.uniform([-20, -20, -40], [20, 20, 55], (5000, 3)).T
    source_u, source_v, source_s = _moved(replace(patient, mirrored=False), u, v, s)
    assert np.abs(source_u - u).max() < 1e-3
    assert np.abs(source_v - v).max() < 1e-3
    assert np.abs(source_s - s).max() <= 0.051, "profiles are looked up every 0.1 mm"


def test_far_from_the_canal_a_patient_is_scaled_and_no_more(subject: StraightenedSubject) -> None:
    patient = replace(_patient(subject, 2, 3, variety=1.0), mirrored=False)
    scale = patient.anatomy.scale
    assert abs(scale - 1.0) > 0.01
    v = np.arange(22.0, 40.0, 1.0)
    for sign in (-1.0, 1.0):
        source_u, source_v, _ = _moved(patient, [[-15.0], [3.0], [20.0]], sign * v, patient.anatomy.discs[3])
        assert np.allclose(source_u, np.array([[-15.0], [3.0], [20.0]]) / scale, atol=1e-4)
        assert np.allclose(np.diff(source_v, axis=1), sign / scale, atol=1e-4)


def test_a_mirrored_patient_has_left_and_right_exchanged(subject: StraightenedSubject) -> None:
    patient = replace(_patient(subject, 0, 0), mirrored=False)
    mirrored = replace(patient, mirrored=True)
    u, s = np.linspace(-15, 15, 31), patient.anatomy.discs[2]
    one, other = _moved(patient, u, 2.0, s), _moved(mirrored, u, 2.0, s)
    assert np.array_equal(one[0], -other[0])
    assert np.array_equal(one[1], other[1])
    for item, side in ((patient, 1.0), (mirrored, -1.0)):
        with_vessel, without = _signal(item, [side * SPOT_U, -side * SPOT_U], SPOT_V, s)
        assert with_vessel > 3 * without


@pytest.mark.parametrize("variety", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_whatever_presses_no_tissue_is_folded_and_only_csf_is_left_out(
    seed: int, variety: float, subject: StraightenedSubject
) -> None:
    drawn = _patient(subject, seed, 3, variety)
    discs = drawn.anatomy.discs[:6]
    # Close together at the sac's edge, where its outline is steepest.
    u = np.concatenate([-np.arange(10.0, 12.0, 0.2)[::-1], np.arange(-9.0, 15.1, 1.0)])
    v = np.arange(-30.0, 30.0, _FINE_MM)
    s = np.concatenate([discs, discs[:5] + 2.0, discs[2:4] + 8.0])
    one_sided = {"side": 2.5, "breadth": 6.5}
    for patient in (
        drawn,
        _from_behind(drawn),
        _changed(drawn, **one_sided),
        _changed(_from_behind(drawn), **one_sided),
        _changed(drawn, sac_transverse=1.1 * SAC_TRANSVERSE),
    ):
        source_u, source_v, _ = _moved(patient, u[:, None, None], v, s[:, None])
        steps = np.diff(source_v, axis=-1)
        assert steps.min() > -1e-4
        assert (np.diff(source_u, axis=0) * (-1 if patient.mirrored else 1)).min() > 0.0
        # Tissue is pressed to half its depth at the most; where more is passed over in a step, it is CSF.
        passed = _passes_cord_or_wall(source_u[..., 1:], source_v)
        assert steps[passed].max() < 0.45


def _passes_cord_or_wall(u: np.ndarray, source_v: np.ndarray) -> np.ndarray:
    """Which steps of `source_v` pass over more than the CSF before, behind or beside the subject's cord."""
    edge = 0.45
    wall = SAC_AP / 2 * np.sqrt(np.clip(1 - (u / (SAC_TRANSVERSE / 2)) ** 2, 0, 1))
    half = CORD_AP / 2 * np.sqrt(np.clip(1 - (u / (CORD_TRANSVERSE / 2)) ** 2, 0, 1))
    front, back = np.clip(CORD_CENTRE - half, -wall, wall), np.clip(CORD_CENTRE + half, -wall, wall)
    first, last = source_v[..., :-1], source_v[..., 1:]
    before = (first > -wall - edge) & (last < front + edge)
    behind = (first > back - edge) & (last < wall + edge)
    beside = (half == 0) & (first > -wall - edge) & (last < wall + edge)
    return ~(before | behind | beside)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_while_csf_is_left_the_map_is_continuous_in_every_direction(
    seed: int, subject: StraightenedSubject
) -> None:
    patient = _patient(subject, seed, 0)
    fine, coarse = np.arange(-14.0, 14.0, _FINE_MM)[:, None, None], np.arange(-14.0, 14.0, 1.0)[:, None]
    s = np.arange(-40.0, 57.0, 3.0)
    along = np.arange(-40.0, 57.0, _FINE_MM)[:, None, None]
    for points in ((fine, coarse, s), (coarse, fine, s), (coarse, np.arange(-14.0, 14.0, 2.0), along)):
        for axis in _moved(patient, *points):
            assert np.abs(np.diff(axis, axis=0)).max() < 0.25


@pytest.mark.parametrize("grade", [0, 1, 2, 3])
def test_the_deformed_cord_measures_what_the_truth_says(grade: int, subject: StraightenedSubject) -> None:
    for seed, variety in ((0, 0.0), (1, 1.0)):
        anatomy = (patient := _patient(subject, seed, grade, variety)).anatomy
        for level in anatomy.levels:
            near = np.arange(level.s - 6.0, level.s + 6.0, 0.1)
            rows = anatomy.curve.index(near)
            worst = rows[np.argmin(anatomy.cord_ap[rows] / anatomy.cord_transverse[rows])]
            ap, transverse = _diameters(_cord_across(patient, anatomy.curve.s[worst]))
            assert ap == pytest.approx(anatomy.cord_ap[worst], abs=0.15)
            assert transverse == pytest.approx(anatomy.cord_transverse[worst], abs=0.25)
            assert ap / transverse == pytest.approx(level.compression_ratio, abs=0.02)


def test_the_deformed_labels_and_the_signal_have_the_grades_that_the_truth_says(
    subject: StraightenedSubject,
) -> None:
    """Kang's definition once more, from what lies where: CSF, then the cord's shape, then its signal."""
    seen = set()
    for seed in range(4):
        patient = _patient(subject, seed)
        without = _changed(patient, lesion=0.0)
        for level in patient.anatomy.levels:
            cord, csf = _mid_line(patient, level)
            middle = patient.anatomy.cord_centre[patient.anatomy.curve.index(level.s)]
            raised = _signal(patient, 1.0, middle, level.s) - _signal(without, 1.0, middle, level.s)
            if cord < CORD_AP * (1.0 - DEFORMED_FRACTION):
                grade = 3 if raised > 0.15 else 2
            else:
                grade = 1 if csf < (SAC_AP - CORD_AP) / 2 else 0
            assert grade == level.grade
            seen.add(grade)
    assert seen == {0, 1, 2, 3}


def test_at_grade_1_the_csf_is_reduced_by_more_than_half_and_the_cord_is_as_it_was(
    subject: StraightenedSubject,
) -> None:
    patient = _patient(subject, 5, 1)
    cord, csf = _mid_line(patient, level := _hit(patient, 1))
    assert csf < (SAC_AP - CORD_AP) / 2
    assert cord == pytest.approx(CORD_AP, abs=0.05)
    assert _diameters(_cord_across(patient, level.s)) == pytest.approx((CORD_AP, CORD_TRANSVERSE), abs=0.2)


def test_at_grade_2_the_cord_is_flattened_and_wider_and_keeps_most_of_its_area(
    subject: StraightenedSubject,
) -> None:
    for seed in range(4):
        patient = _patient(subject, seed, 2)
        label = _cord_across(patient, _hit(patient, 2).s)
        ap, transverse = _diameters(label)
        assert ap < CORD_AP * (1.0 - DEFORMED_FRACTION)
        assert transverse > CORD_TRANSVERSE + 0.1
        area = label.sum() * _FINE_MM**2
        assert 0.6 < area / (np.pi / 4 * CORD_AP * CORD_TRANSVERSE) < 1.0


def test_at_grade_3_the_cords_core_is_brighter_and_nothing_else(subject: StraightenedSubject) -> None:
    patient = _patient(subject, 0, 3)
    level = _hit(patient, 3)
    points = _ACROSS[None, ::2], _BEHIND[::2, None], level.s
    raised = _signal(patient, *points) - _signal(_changed(patient, lesion=0.0), *points)
    cord = _cord_across(patient, level.s)[::2, ::2]
    assert raised[cord].max() > 0.2
    assert 0.1 < (raised > 0.1).sum() / cord.sum() < 0.6
    # An edge fades over 0.3 mm.
    assert np.abs(raised[~cord]).max() < 0.02


@pytest.mark.parametrize("grade", [0, 1, 2, 3])
def test_a_stenosis_has_the_grade_that_was_asked_for(grade: int, subject: StraightenedSubject) -> None:
    for index in range(8):
        grades = [level.grade for level in sample_semisynthetic(subject, 5, index, grade).anatomy.levels]
        assert set(grades) <= {0, grade}
        assert grade in grades


def test_a_study_is_the_same_for_the_same_subject_seed_and_index(subject: StraightenedSubject) -> None:
    one, again = (sample_semisynthetic(subject, 3, 4) for _ in range(2))
    assert one.anatomy.levels == again.anatomy.levels
    assert one.axial.poses == again.axial.poses
    middle = len(one.axial.poses) // 2
    pixels = one.slice_pixels(one.axial, middle)
    assert np.array_equal(pixels, again.slice_pixels(again.axial, middle))
    assert pixels.max() > 10 * np.median(pixels), "the spine is in the slice"
    assert sample_semisynthetic(subject, 3, 5).anatomy.levels != one.anatomy.levels
    assert sample_semisynthetic(subject, 4, 4).anatomy.levels != one.anatomy.levels


def test_studies_of_different_subjects_and_of_phantoms_share_no_uid(subject: StraightenedSubject) -> None:
    other = made_subject("other")
    studies = [sample_semisynthetic(item, 3, 4, grade) for item in (subject, other) for grade in (None, 2)]
    assert len({phantom_uid(study, "study") for study in studies}) == 4
    assert {study.patient_id for study in studies} == {
        "SEMISYNTHETIC-made-3-0004",
        "SEMISYNTHETIC-other-3-0004",
    }
    assert studies[0].anatomy.levels != studies[2].anatomy.levels


def test_beyond_the_volume_a_painted_study_goes_on_and_another_is_black(subject: StraightenedSubject) -> None:
    study = sample_semisynthetic(subject, 3, 4)
    rng = np.random.default_rng(0)
    signals = sample_signals(rng)
    u = np.zeros(400, dtype=np.float32)
    v, s = (rng.uniform(low, high, 400).astype(np.float32) for low, high in ((-45, -25), (-30, 30)))
    for painted in (True, False):
        tissues = RealTissues(study.patient, signals, painted)
        signal = tissues.with_spine(tissues.surroundings(u, v, s, 0.6), u, v, s, 0.6)
        assert (signal.mean() > 0.02) == painted


def test_a_straight_volume_is_made_once_and_read_as_it_was(
    subject: StraightenedSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def straighten(item: Subject, volumes: Path) -> StraightenedSubject:
        made.append(item.name)
        return subject

    monkeypatch.setattr(straightened, "straighten", straighten)
    for _ in range(2):
        loaded = load_straightened(SUBJECTS["errsm_20"], tmp_path, tmp_path / "kept")
    assert made == ["errsm_20"]
    assert np.abs(loaded.signal - subject.signal).max() < 1e-3
    assert np.array_equal(loaded.canal.curve.centre, subject.canal.curve.centre)
    assert np.array_equal(loaded.canal.cord_ap, subject.canal.cord_ap)
    assert (loaded.canal.first, loaded.canal.last) == (subject.canal.first, subject.canal.last)
    assert np.array_equal(loaded.discs, subject.discs)
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_canal_is_found_in_a_volume_with_its_diameters(tmp_path: Path) -> None:
    """A leaning tube in voxels of 1 mm, marked 2 mm beside its middle. It has no roots: its width comes out
    half a millimetre smaller."""
    x, y, z = np.meshgrid(np.arange(40.0), np.arange(50.0), np.arange(110.0), indexing="ij")
    u, v = x - 20.0, y - 25.0 - 0.1 * (z - 55.0)
    tube = np.where((u / 10) ** 2 + (v / 6.5) ** 2 < 1, 1000.0, 200.0)
    tube[(u / 6.3) ** 2 + (v / 3.7) ** 2 < 1] = 450.0
    path = tmp_path / "t2.nii"
    nibabel.Nifti1Image(tube.astype(np.float32), np.eye(4)).to_filename(path)
    volume = NiftiVolume(path)
    marks = tuple((-18.5, -26.0 - 0.1 * (height - 55.0), height) for height in (100.0, 75.0, 50.0, 30.0, 8.0))
    canal = trace_canal(volume, Subject("tube", path.name, marks, (), (0.0, 0.0, 0.0)), (-20.0, -25.0, 55.0))
    rows = canal.curve.index(np.arange(-35.0, 35.0, 5.0))
    middle = canal.to_patient(0.0, 0.0, canal.curve.s[rows])
    assert np.abs(middle[:, 0] + 20.0).max() < 0.4
    assert np.abs(middle[:, 1] + 25.0 + 0.1 * (middle[:, 2] - 55.0)).max() < 0.4
    for found, true, within in (
        (canal.cord_ap, 7.4, 0.5),
        (canal.cord_transverse, 12.1, 0.5),
        (canal.sac_ap, 13.0, 0.8),
        (canal.sac_transverse, 20.0, 0.8),
    ):
        assert np.abs(found[rows] - true).max() < within


def test_a_subject_that_is_not_known_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Subject nobody is not known\. Give one of errsm_11"):
        SemisyntheticSource(("errsm_20", "nobody"), tmp_path)
    with pytest.raises(ValueError, match=r"\(none\)"):
        SemisyntheticSource((), tmp_path)
    with pytest.raises(FileNotFoundError):
        SemisyntheticSource(("errsm_20",), tmp_path)
