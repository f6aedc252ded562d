"""Eligibility of one series, and the reason if it has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from header_factory import T2, axial, sagittal, stack, with_poses

from stenosis_trt.engine.records import Contrast
from stenosis_trt.engine.selection.eligibility import (
    AXIAL_ROLE,
    SAGITTAL_ROLE,
    check_series,
    count_positions,
    slice_step,
)

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "T1": ({"contrast": Contrast(12, 600, scanning_sequence=("SE",)), "description": "t1_tse"}, "T1"),
    "T1 by its times, whatever the words": ({"contrast": Contrast(12, 600)}, "T1"),
    "T1 by image type": ({"image_type": ("ORIGINAL", "PRIMARY", "T1", "NONE")}, "T1"),
    "proton density": ({"contrast": Contrast(30, 3000, scanning_sequence=("SE",))}, "proton density"),
    "intermediate": ({"contrast": Contrast(52, 3000, scanning_sequence=("SE",))}, "intermediate"),
    "short repetition": ({"contrast": Contrast(100, 500, scanning_sequence=("SE",))}, "TR 500"),
    "STIR by inversion time": ({"contrast": replace(T2, inversion_time_ms=160)}, "STIR"),
    "STIR by description": ({"description": "T2 STIR sag"}, "STIR"),
    "STIR by sequence": ({"contrast": replace(T2, scanning_sequence=("SE", "IR"))}, "inversion recovery"),
    "STIR by sequence name": (
        {"contrast": replace(T2, scanning_sequence=(), sequence_name="*tir2d1_13")},
        "inversion recovery",
    ),
    "FLAIR": ({"contrast": replace(T2, inversion_time_ms=2400)}, "FLAIR"),
    "FLAIR by description": ({"description": "t2_tse_dark-fluid"}, "FLAIR"),
    "T2* gradient echo": ({"contrast": Contrast(15, 600, scanning_sequence=("GR",))}, "gradient echo"),
    "T2* with a long echo": ({"contrast": replace(T2, scanning_sequence=("GR", "RM"))}, "gradient echo"),
    "T2* by sequence name": (
        {"contrast": replace(T2, scanning_sequence=(), sequence_name="*me2d1r3")},
        "gradient echo",
    ),
    "T2* by words alone": (
        {"contrast": replace(T2, scanning_sequence=()), "description": "t2_star_sag"},
        "T2*",
    ),
    "MPRAGE": ({"contrast": Contrast(3, 2000, 900, scanning_sequence=("GR", "IR"))}, "gradient echo"),
    "echo planar": ({"contrast": replace(T2, scanning_sequence=("EP", "SE"))}, "echo-planar"),
    "myelogram": ({"contrast": replace(T2, echo_time_ms=800)}, "fluid alone"),
    "missing times, no hint": ({"contrast": Contrast(), "description": "sag"}, "missing"),
    "missing times, T1 in words": ({"contrast": Contrast(), "description": "sT1W_TSE sag"}, "T1"),
    "times of zero, T2* in words": ({"contrast": Contrast(0, 0), "description": "T2* sag"}, "T2*"),
    "CT": ({"modality": "CT"}, "CT"),
    "no modality": ({"modality": ""}, "not given"),
    "localizer by type": ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer"),
    "localizer by words": ({"description": "3-plane survey"}, "localizer"),
    "mosaic": ({"image_type": ("ORIGINAL", "PRIMARY", "M", "MOSAIC")}, "mosaic"),
    "projection": ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, "projection"),
    "diffusion": ({"image_type": ("DERIVED", "PRIMARY", "ADC")}, "diffusion"),
    "diffusion by words": ({"description": "DTI 30 directions"}, "diffusion"),
    "phase image": ({"image_type": ("ORIGINAL", "PRIMARY", "P", "ND")}, "phase image"),
    "subtraction": ({"image_type": ("DERIVED", "PRIMARY", "M", "SUB")}, "subtraction"),
    "fat image by type": ({"image_type": ("DERIVED", "PRIMARY", "DIXON", "FAT")}, "fat image"),
    "fat image by words": (
        {"description": "t2_tse_dixon_sag_F", "protocol": "t2_tse_dixon_sag"},
        "fat image",
    ),
    "opposed phase": ({"description": "t2_tse_dixon_sag_opp"}, "opposed-phase"),
    "screenshot": ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, "not an MR image"),
    "lumbar by tag and words": ({"body_part": "LSPINE", "description": "t2 sag LWS"}, "lumbar"),
    "lumbar in French": ({"body_part": "LSPINE", "description": "T2 sag rachis lombaire"}, "lumbar"),
    "brain by tag and words": ({"body_part": "BRAIN", "description": "t2 sag head"}, "brain"),
    "brain in German": ({"body_part": "HEAD", "description": "t2 sag Schädel"}, "brain"),
    "shoulder": ({"body_part": "SHOULDER", "description": "t2 sag shoulder"}, "limb"),
    "myelogram by words": ({"description": "t2_haste_myelo_sag"}, "myelogram"),
    "myelogram in German": ({"description": "MR-Myelographie sag"}, "myelogram"),
    "GE's fat image": ({"description": "FAT: SAG T2 IDEAL"}, "fat image"),
    "STIR by protocol where nothing is described": ({"description": "", "protocol": "SAG STIR"}, "STIR"),
    "lumbar by tag and, where nothing is described, protocol": (
        {"body_part": "LSPINE", "description": "", "protocol": "LUMBAR"},
        "lumbar",
    ),
}

ACCEPTED: dict[str, dict[str, Any]] = {
    "no description, no body part": {"description": "", "body_part": ""},
    "lumbar by tag alone": {"body_part": "LSPINE"},
    "brain by words alone": {"description": "t2 sag head"},
    "tag says head, words say neck": {"body_part": "HEAD", "description": "t2 sag HWS"},
    "missing times, T2 in words": {"contrast": Contrast()},
    "missing times, T2 and a vertebra T1 in words": {"contrast": Contrast(), "description": "T2W sag C1-T1"},
    "times of zero, T2 in words": {"contrast": Contrast(0, 0)},
    "SPACE by sequence name": {"contrast": Contrast(120, 1500, sequence_name="*spcR3d1_65")},
    "words that only look like hints": {"description": "t2 sag different medical effect swimmer"},
    "T1 in words against T2 tags": {"description": "after t1, sag"},
    "T2* in words against a spin echo tag": {"description": "t2* replacement"},
    "gradient and spin echo": {"contrast": replace(T2, scanning_sequence=("SE", "GR"))},
    "inversion time of zero": {"contrast": replace(T2, inversion_time_ms=0.0)},
    "3-D with a nominal echo time": {"contrast": replace(T2, echo_time_ms=400), "acquisition_3d": True},
    "enhanced, flavour T2": {
        "image_type": ("ORIGINAL", "PRIMARY", "T2", "NONE"),
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4.1",
    },
    "in-phase image": {"description": "t2_tse_dixon_sag_in", "image_type": ("DERIVED", "DIXON", "IN_PHASE")},
    "water image": {"image_type": ("DERIVED", "PRIMARY", "DIXON", "WATER")},
    "myelopathy": {"description": "SAG T2 cervical myelopathy"},
    "myelomalacia": {"description": "SAG T2 ?myelomalacia"},
    "the cord in German": {"description": "t2 sag Myelon HWS"},
    # On GE the protocol is the name of the whole examination.
    "an examination with a STIR in it": {"description": "SAG T2 FRFSE", "protocol": "C-SPINE W STIR"},
    "an examination with diffusion in it": {"description": "SAG T2 FRFSE", "protocol": "CERVICAL + DTI"},
    "an examination of two regions": {
        "description": "SAG T2",
        "protocol": "BRAIN AND TSPINE",
        "body_part": "HEAD",
    },
    "fat, which may be saturated": {"description": "SAG T2 FAT"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_series_that_is_no_t2_of_the_neck_is_refused_with_its_reason(name: str) -> None:
    changes, expected = REFUSED[name]
    eligibility = check_series(sagittal("1", **changes))
    assert eligibility.role == ""
    assert expected in eligibility.reason


@pytest.mark.parametrize("name", REFUSED)
def test_the_same_holds_for_axial_series(name: str) -> None:
    changes, expected = REFUSED[name]
    eligibility = check_series(axial("1", **changes))
    assert eligibility.role == ""
    assert expected in eligibility.reason


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_header_that_is_poor_or_odd_but_not_wrong_is_accepted(name: str) -> None:
    eligibility = check_series(sagittal("1", **ACCEPTED[name]))
    assert (eligibility.role, eligibility.reason) == (SAGITTAL_ROLE, "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"count": 3}, "only 3 sagittal slices"),
        ({"count": 1}, "only 1 sagittal slice"),
        ({"spacing": 2.0}, "too coarse"),
        ({"size": 120}, "field of view"),
        ({"step": 9.0}, "apart"),
        ({"count": 8, "step": 1.0}, "cover only 8 mm"),
        ({"count": 20, "step": 0.0}, "only 1 sagittal slice (of 20 images)"),
    ],
)
def test_insufficient_sampling_is_refused_with_its_reason(changes: dict[str, Any], expected: str) -> None:
    eligibility = check_series(sagittal("1", **changes))
    assert eligibility.role == ""
    assert expected in eligibility.reason


@pytest.mark.parametrize("plane", ["coronal", "oblique"])
def test_other_planes_are_refused_by_name(plane: str) -> None:
    assert plane in check_series(with_poses(sagittal("1"), stack(plane, 12, 0.7, 3.3, 320))).reason


def test_slices_that_are_tilted_too_far_are_refused_with_their_angle() -> None:
    reason = check_series(with_poses(axial("1"), stack("axial", 24, 0.5, 3.5, 320, 44.0))).reason
    assert "44° from the axial plane" in reason


def test_two_images_in_every_plane_cover_what_their_planes_cover() -> None:
    """Two stations of 13 slices each, whose planes are the same."""
    poses = [
        pose
        for pair in zip(
            stack("sagittal", 13, 0.7, 3.3, 320),
            stack("sagittal", 13, 0.7, 3.3, 320, centre=(0.0, 0.0, -180.0)),
            strict=True,
        )
        for pose in pair
    ]
    series = with_poses(sagittal("1"), poses)
    assert (count_positions(series), slice_step(series)) == (13, pytest.approx(3.3))
    assert check_series(series).role == SAGITTAL_ROLE


def test_slices_in_three_planes_are_a_localizer() -> None:
    poses = [pose for plane in ("sagittal", "axial", "coronal") for pose in stack(plane, 3, 0.8, 10, 320)]
    assert "several planes" in check_series(with_poses(sagittal("1", description=""), poses)).reason


def test_a_series_without_positions_is_refused() -> None:
    series = sagittal("1")
    frames = tuple(replace(frame, pose=None) for frame in series.frames)
    assert "no usable position" in check_series(replace(series, frames=frames)).reason


@pytest.mark.parametrize("tilt", [-38.0, 0.0, 38.0])
def test_axial_slices_may_follow_the_discs(tilt: float) -> None:
    assert check_series(with_poses(axial("1"), stack("axial", 24, 0.5, 3.5, 320, tilt))).role == AXIAL_ROLE


def test_axial_packs_tilted_to_each_disc_are_one_axial_series() -> None:
    poses = [
        pose
        for number, tilt in enumerate((-5.0, 10.0, 25.0))
        for pose in stack("axial", 5, 0.5, 3.3, 320, tilt, (0.0, 0.0, 18.0 * number))
    ]
    assert check_series(with_poses(axial("1"), poses)).role == AXIAL_ROLE


def test_sagittal_images_whose_rows_run_along_the_spine_are_measured_along_it() -> None:
    """The image is 260 mm along the patient's axis and 90 mm across, whichever of them its rows are."""
    lying = [
        replace(pose, row_direction=(0.0, 0.0, -1.0), column_direction=(0.0, 1.0, 0.0), rows=128, columns=370)
        for pose in stack("sagittal", 13, 0.7, 3.3, 370)
    ]
    assert check_series(with_poses(sagittal("1"), lying)).role == SAGITTAL_ROLE
    across = [
        replace(pose, row_direction=(0.0, 1.0, 0.0), column_direction=(0.0, 0.0, -1.0)) for pose in lying
    ]
    assert "field of view" in check_series(with_poses(sagittal("1"), across)).reason


def test_isotropic_three_dimensional_t2_is_a_sagittal_t2() -> None:
    contrast = Contrast(echo_time_ms=120, repetition_time_ms=1500, scanning_sequence=("SE",))
    volume = sagittal("1", count=64, spacing=1.0, step=1.0, size=256, contrast=contrast, acquisition_3d=True)
    assert check_series(volume).role == SAGITTAL_ROLE


def test_a_sagittal_stack_turned_to_the_spine_keeps_its_role() -> None:
    """A slice 25° from the patient's plane still runs along the cord."""
    angle = np.deg2rad(25.0)
    turned = [
        replace(pose, row_direction=(float(np.sin(angle)), float(np.cos(angle)), 0.0))
        for pose in stack("sagittal", 13, 0.7, 3.3, 320)
    ]
    assert check_series(with_poses(sagittal("1"), turned)).role == SAGITTAL_ROLE


def test_a_modality_that_is_no_code_is_not_repeated() -> None:
    reason = check_series(sagittal("1", modality="\x1b[31mX" * 40)).reason
    assert "\x1b" not in reason
    assert len(reason) < 80


def test_the_further_a_series_gets_the_more_checks_it_has_passed() -> None:
    passed = [
        check_series(series).checks_passed
        for series in (
            sagittal("1", modality="CT"),
            sagittal("1", body_part="LSPINE", description="lumbar"),
            sagittal("1", count=2),
            sagittal("1", contrast=Contrast(12, 600)),
            sagittal("1"),
        )
    ]
    assert passed == sorted(set(passed))
