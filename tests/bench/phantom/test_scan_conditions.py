"""Conditions of position and scan: what they change in planes, truth, contrast and images, and what not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from stenosis_trt.bench.phantom.conditions import (
    ALLOWED,
    CONDITION_RANGES,
    ORDINARY,
    Conditions,
    condition_rng,
    conditions_of,
    draw_conditions,
    parse_conditions,
)
from stenosis_trt.bench.phantom.dicom_files import phantom_uid, write_study
from stenosis_trt.bench.phantom.painting.tissue_traits import sample_signals
from stenosis_trt.bench.phantom.scan.artefacts import (
    Artefacts,
    Shading,
    acquired_pose,
    depths,
    with_amplified_noise,
    with_ghosts,
    zero_filled,
)
from stenosis_trt.bench.phantom.scan.scan_conditions import scanned_signals
from stenosis_trt.bench.phantom.study import PhantomSource, PhantomStudy, PlannedSeries, sample_study
from stenosis_trt.engine.geometry import FloatArray

SEED = 5


def _study(index: int = 0, **strengths: float) -> PhantomStudy:
    return sample_study(SEED, index, None, Conditions(**strengths))


def _centres(study: PhantomStudy) -> FloatArray:
    places = np.array([level.s for level in study.anatomy.levels])
    return study.anatomy.curve.to_patient(0.0, 0.0, places)


def _middle(series: PlannedSeries) -> int:
    return len(series.poses) // 2


def _pixels(study: PhantomStudy, plane: str) -> FloatArray:
    series: PlannedSeries = getattr(study, plane)
    return study.slice_pixels(series, _middle(series)).astype(np.float64) / series.scanner.gain


def _angles_to_the_cord(study: PhantomStudy) -> FloatArray:
    """Degrees between the cord and the normal of the axial slice nearest to each level, float64 (6,)."""
    angles = []
    for level, centre in zip(study.anatomy.levels, _centres(study), strict=True):
        pose = min(study.axial.poses, key=lambda item: abs(float(item.to_pixels(centre)[2])))
        along = study.anatomy.curve.tangent[study.anatomy.curve.index(level.s)]
        angles.append(np.rad2deg(np.arccos(min(abs(float(pose.normal @ along)), 1.0))))
    return np.array(angles)


def test_names_that_are_allowed_are_those_of_the_fields_and_contain_what_is_drawn_and_evaluated() -> None:
    assert list(ALLOWED) == list(vars(ORDINARY))
    for name, item in CONDITION_RANGES.items():
        assert all(ALLOWED[name][0] <= strength <= ALLOWED[name][1] for strength in item.strengths)
    drawn = [draw_conditions(condition_rng(1, index, "conditions")) for index in range(300)]
    for name in ("field_mm", "field_place", "echo", "noise", "interpolation", "acceleration", "axial_tilt"):
        low, high = ALLOWED[name]
        values = [item.differences()[name] for item in drawn if name in item.differences()]
        assert len(values) > 5
        assert low <= min(values)
        assert max(values) <= high


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["nois=0.1"], "'nois' is not known: give one of kyphosis, "),
        (["noise"], "give noise=STRENGTH with a number from 0 to 0.2"),
        (["noise=much"], "give noise=STRENGTH with a number from 0 to 0.2"),
        (["noise=nan"], "give noise=STRENGTH with a number from 0 to 0.2"),
        (["pitch=-31"], "give pitch=STRENGTH with a number from -30 to 30"),
        (["fusion=1.5"], "with a whole number"),
        (["noise=0.1", "noise=0.1"], "is given twice"),
        (["field_place=1"], "give field_mm too"),
    ],
)
def test_a_condition_that_cannot_be_says_what_is_allowed(texts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse_conditions(texts)
    assert str(caught.value).count(". ") == 0


def test_conditions_are_parsed_from_text() -> None:
    assert parse_conditions(["pitch=-10", "field_mm = 450", "field_place=-1"]) == Conditions(
        pitch=-10.0, field_mm=450.0, field_place=-1.0
    )
    assert parse_conditions([]) == ORDINARY


def test_only_studies_with_conditions_have_other_uids() -> None:
    assert phantom_uid(_study(), "study") == phantom_uid(sample_study(SEED, 0), "study")
    uids = {phantom_uid(_study(**{name: 0.05}), "study") for name in ("noise", "ghosts", "motion")}
    assert len({*uids, phantom_uid(_study(noise=0.06), "study"), phantom_uid(_study(), "study")}) == 5


def test_a_varied_source_draws_conditions_a_study_and_keeps_those_that_are_given() -> None:
    varied = [PhantomSource(varied=True).sample(3, index).conditions for index in range(12)]
    assert varied == [PhantomSource(varied=True).sample(3, index).conditions for index in range(12)]
    assert len(set(varied)) > 6
    fixed = conditions_of(Conditions(noise=0.2), True, 3, 0)
    assert fixed == Conditions(**{**varied[0].differences(), "noise": 0.2})


@pytest.mark.parametrize("name", ["yaw", "roll", "pitch"])
def test_a_turned_patient_is_turned_against_both_stacks(name: str) -> None:
    for index in (1, 3):
        plain, turned = _study(index), _study(index, **{name: 12.0})
        number = {"yaw": 2, "roll": 1, "pitch": 0}[name]
        axis = np.eye(3)[number]
        for before, after in ((plain.sagittal, turned.sagittal), (plain.axial, turned.axial)):
            assert before.poses[0].row_direction == pytest.approx(after.poses[0].row_direction)
            assert before.poses[0].column_direction == pytest.approx(after.poses[0].column_direction)
        moved = _centres(turned) - turned.anatomy.curve.to_patient(0.0, 0.0, 0.0)
        stayed = _centres(plain) - plain.anatomy.curve.to_patient(0.0, 0.0, 0.0)
        # Turned about the axis: distances along it stay, and the directions across it differ by 12°.
        assert moved @ axis == pytest.approx(stayed @ axis, abs=1e-6)
        assert np.linalg.norm(moved, axis=1) == pytest.approx(np.linalg.norm(stayed, axis=1), abs=1e-6)
        across, before = (points - np.outer(points @ axis, axis) for points in (moved[0], stayed[0]))
        if name != "yaw":
            cosine = float(across[0] @ before[0]) if across.ndim > 1 else float(across @ before)
            lengths = np.linalg.norm(across) * np.linalg.norm(before)
            assert np.rad2deg(np.arccos(cosine / lengths)) == pytest.approx(12.0, abs=0.1)
        points = np.array([level.point for level in turned.anatomy.levels])
        walls = np.array([level.point for level in plain.anatomy.levels])
        assert np.linalg.norm(points - _centres(turned), axis=1) == pytest.approx(
            np.linalg.norm(walls - _centres(plain), axis=1), abs=1e-6
        )
        assert [level.grade for level in turned.anatomy.levels] == [
            level.grade for level in plain.anatomy.levels
        ]


def test_pitch_makes_axial_slices_oblique_and_keeps_the_canal_in_the_sagittal_plane() -> None:
    plain, turned = _study(3), _study(3, pitch=18.0)
    assert np.abs(_angles_to_the_cord(turned) - 18.0).max() < 7.0
    away = [
        np.abs(study.sagittal.poses[_middle(study.sagittal)].to_pixels(_centres(study))[:, 2])
        for study in (plain, turned)
    ]
    assert away[1].max() < away[0].max() + 1.5


@pytest.mark.parametrize("tilt", [-35.0, -15.0, 15.0, 35.0])
def test_tilted_axial_slices_meet_the_cord_at_the_angle_and_show_every_level_in_the_image(
    tilt: float,
) -> None:
    # One stack, and blocks per disc.
    for index, several in ((1, False), (3, True)):
        study = _study(index, axial_tilt=tilt)
        directions = {pose.column_direction for pose in study.axial.poses}
        assert (len(directions) > 1) == several
        assert np.abs(_angles_to_the_cord(study).mean() - abs(tilt)) < 5.0
        assert len(study.axial.poses) <= 48
        for centre in _centres(study):
            pose = min(study.axial.poses, key=lambda item: abs(float(item.to_pixels(centre)[2])))
            column, row, away = pose.to_pixels(centre)
            assert abs(away) <= study.axial.protocol.slice_distance
            assert 10.0 < column * pose.column_spacing < (pose.columns - 1) * pose.column_spacing - 10.0
            assert 10.0 < row * pose.row_spacing < (pose.rows - 1) * pose.row_spacing - 10.0
        assert None not in study.slice_compressions()


def test_the_front_edge_of_slices_of_positive_tilt_is_moved_to_the_feet() -> None:
    pose = _study(1, axial_tilt=20.0).axial.poses[0]
    front = pose.to_patient(np.array([pose.columns / 2, 0.0]))
    back = pose.to_patient(np.array([pose.columns / 2, pose.rows - 1.0]))
    assert front[2] < back[2] - 20.0


def test_the_true_ratio_of_an_oblique_slice_is_that_of_the_cord_and_not_of_the_cut() -> None:
    for index in range(3):
        straight, oblique = _study(index, axial_tilt=1e-6), _study(index, axial_tilt=32.0)
        pairs = zip(straight.slice_compressions(), oblique.slice_compressions(), strict=True)
        for level, (before, after) in zip(straight.anatomy.levels, pairs, strict=True):
            assert before is not None
            assert after is not None
            # An oblique slice crosses a narrow place in part; an even cord has the same ratio at any angle.
            far = 0.02 if level.csf_fraction > 0.5 else 0.15
            assert after.compression_ratio == pytest.approx(before.compression_ratio, abs=far)
        cuts = [
            oblique.anatomy.cord_points(oblique.axial.poses[item.number])
            for item in oblique.slice_compressions()
            if item is not None
        ]
        stretched = [float(np.linalg.norm(cut[0] - cut[1])) for cut in cuts if cut is not None]
        measured = [item.ap_mm for item in oblique.slice_compressions() if item is not None]
        assert np.mean(np.array(stretched) / np.array(measured)) > 1.08


def test_coarser_scans_keep_the_field_of_view() -> None:
    plain, coarse = _study(1), _study(1, spacing=1.5)
    for plane in ("sagittal", "axial"):
        before, after = getattr(plain, plane).protocol, getattr(coarse, plane).protocol
        assert after.pixel_spacing == pytest.approx(1.5 * before.pixel_spacing, abs=0.001)
        assert after.slice_distance == pytest.approx(1.5 * before.slice_distance, abs=0.006)
        assert after.rows * after.pixel_spacing == pytest.approx(before.rows * before.pixel_spacing, abs=10.0)
        assert after.thickness >= after.slice_distance / 1.35
    assert len(coarse.sagittal.poses) >= 9


def test_a_zero_filled_matrix_shows_the_same_field_with_no_more_detail() -> None:
    plain, fine = _study(1), _study(1, interpolation=0.5)
    pose, before = fine.sagittal.poses[3], plain.sagittal.poses[3]
    assert (pose.rows, pose.columns) == (2 * before.rows, 2 * before.columns)
    assert pose.origin == before.origin
    assert acquired_pose(pose, fine.sagittal.scanner.artefacts) == before
    image = fine.slice_pixels(fine.sagittal, 3).astype(np.float64)
    coarse = plain.slice_pixels(plain.sagittal, 3).astype(np.float64)
    # Rounding and the magnitude aside, every second pixel is that of the acquired matrix.
    assert np.abs(image[::2, ::2] - coarse).max() <= 1.0
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(image))) ** 2
    rows, columns = (slice(size // 4 + 4, 3 * size // 4 - 4) for size in image.shape)
    inner = spectrum[rows, columns].sum()
    assert (spectrum.sum() - inner) / spectrum.sum() < 2e-3


def test_zero_filling_keeps_the_acquired_samples_of_odd_and_even_sizes() -> None:
    rng = np.random.default_rng(1)
    for size in ((16, 18), (17, 16)):
        image = rng.standard_normal(size) + 0j
        spectrum = np.fft.fftshift(np.fft.fft2(image, norm="ortho"))
        filled = zero_filled(spectrum, 2 * size[0], 2 * size[1])
        larger = np.fft.ifft2(np.fft.ifftshift(filled), norm="ortho")
        assert np.abs(larger[::2, ::2] - image).max() < 1e-9


def test_a_slab_has_a_flatter_profile_of_the_same_thickness() -> None:
    pose = _study().axial.poses[0]
    profile = dict(depths(pose, Artefacts(volumetric=1.0)))
    assert len(profile) == 8
    assert sum(profile.values()) == pytest.approx(1.0)
    assert set(profile.values()) == {1.0 / 8.0}
    half = dict(depths(pose, Artefacts(volumetric=0.5)))
    assert sum(half.values()) == pytest.approx(1.0)
    assert max(half.values()) > 1.0 / 8.0 > min(half.values())


def test_ghosts_of_bright_tissue_lie_at_their_shift_and_at_twice_it() -> None:
    image = np.zeros((100, 40))
    image[50, 20], image[50, 10] = 1.0, 0.3
    ghosts = np.abs(with_ghosts(image, Artefacts(ghosts=0.12, ghost_shift=0.2), np.random.default_rng(1)))
    assert ghosts[[30, 70], 20] == pytest.approx([0.12, 0.12])
    assert ghosts[[10, 90], 20] == pytest.approx([0.04, 0.04])
    assert ghosts[:, 10].sum() == pytest.approx(0.3)


def test_parallel_imaging_amplifies_noise_in_the_middle_and_repeats_it_where_images_were_folded() -> None:
    blank = np.zeros((240, 200))
    noisy = with_amplified_noise(blank, 0.1, Artefacts(acceleration=2.5), np.random.default_rng(2))
    middle, edge = noisy.real[100:140, 60:140].std(), noisy.real[:20].std()
    assert middle == pytest.approx(0.1 * np.sqrt(2.3**2 - 1.0), rel=0.25)
    assert edge < 0.5 * middle
    assert np.corrcoef(noisy.real[:100].ravel(), noisy.real[120:220].ravel())[0, 1] > 0.6
    assert with_amplified_noise(blank, 0.1, Artefacts(), np.random.default_rng(2)) is blank


def test_shading_is_a_ramp_with_a_blob() -> None:
    shading = Shading((0.0, 0.0, 1.0), (0.0, 0.0, 0.0), 200.0, 1.0, (0.0, 50.0, 0.0), 10.0, 0.5)
    points = np.array([[0.0, 0.0, -100.0], [0.0, 0.0, 100.0], [0.0, 50.0, 0.0], [0.0, 0.0, 900.0]])
    assert np.log(shading.factor(points)) == pytest.approx([-0.5, 0.5, 0.5, 0.75], abs=1e-4)


def test_noise_and_motion_add_to_those_of_the_scanner_and_are_seen() -> None:
    plain, noisy = _study(1), _study(1, noise=0.06)
    corner = [_pixels(study, "axial")[:24, :24].mean() for study in (plain, noisy)]
    assert corner[1] > 1.8 * corner[0]
    moved = _study(1, motion=0.4)
    assert moved.sagittal.scanner.motion == pytest.approx(plain.sagittal.scanner.motion + 0.4)
    assert np.abs(_pixels(moved, "sagittal") - _pixels(plain, "sagittal")).mean() > 0.005


def test_a_long_echo_darkens_the_cord_and_a_short_one_brightens_it_without_changing_the_order() -> None:
    for seed in range(20):
        signals = sample_signals(np.random.default_rng(seed))
        series = [scanned_signals(signals, Conditions(echo=echo)) for echo in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        for name in ("cord", "muscle", "marrow", "fat", "disc"):
            values = [getattr(item, name) for item in series]
            assert values == sorted(values, reverse=True)
        assert series[2] == signals
        assert all(item.cord < item.grey_matter < item.csf for item in series)
        assert all(0.05 < item.cord <= 0.7201 for item in series)
        assert [item.lesion for item in series] == sorted(item.lesion for item in series)


def test_fat_suppression_darkens_fat_and_marrow_alone_and_volumes_have_less_contrast() -> None:
    signals = sample_signals(np.random.default_rng(4))
    water = scanned_signals(signals, Conditions(fat_suppression=1.0))
    assert water.fat == pytest.approx(0.1 * signals.fat)
    assert water.marrow == pytest.approx(0.4 * signals.marrow)
    assert (water.cord, water.muscle, water.disc) == (signals.cord, signals.muscle, signals.disc)
    slab = scanned_signals(signals, Conditions(volumetric=1.0))
    assert slab.csf - slab.cord < signals.csf - signals.cord
    assert slab.grey_matter - slab.cord < signals.grey_matter - signals.cord


def test_the_header_says_that_fat_is_suppressed(tmp_path: Path) -> None:
    for strength, options in ((0.0, ""), (0.5, "FS")):
        study = _study(2, fat_suppression=strength)
        few = replace(
            study,
            sagittal=replace(study.sagittal, poses=study.sagittal.poses[:1]),
            axial=replace(study.axial, poses=study.axial.poses[:1]),
        )
        write_study(few, tmp_path / options, "explicit")
        found = [pydicom.dcmread(path) for path in (tmp_path / options).glob("*_t2/*.dcm")]
        assert [item.ScanOptions or "" for item in found] == [options] * 2


def test_strengths_change_the_strength_alone() -> None:
    weak, strong = _study(2, bias_field=0.5), _study(2, bias_field=1.0)
    first, second = weak.axial.scanner.artefacts.shading, strong.axial.scanner.artefacts.shading
    assert first is not None
    assert second is not None
    assert (first.direction, first.blob_centre) == (second.direction, second.blob_centre)
    assert (second.ramp, second.blob) == pytest.approx((2 * first.ramp, 2 * first.blob))
    assert weak.anatomy.levels == strong.anatomy.levels == _study(2).anatomy.levels
