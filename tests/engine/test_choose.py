"""Which series is taken, and the reason for each that is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stenosis_trt.engine.choose import choose
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.inspection import inspection_lines
from stenosis_trt.engine.records import Contrast, FrameHeader, SeriesHeader, StudyHeader

T2 = Contrast(echo_time_ms=100, repetition_time_ms=3500, scanning_sequence=("SE",))


def _poses(
    plane: str, count: int, spacing: float, step: float, size: int, tilt: float = 0.0
) -> list[SlicePose]:
    angle = np.deg2rad(tilt)
    row, column, normal = {
        "sagittal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
        "axial": ((1, 0, 0), (0, np.cos(angle), np.sin(angle)), (0, -np.sin(angle), np.cos(angle))),
        "coronal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    }[plane]
    return [
        SlicePose(tuple(np.array(normal) * step * k), row, column, spacing, spacing, size, size, step)  # type: ignore[arg-type]
        for k in range(count)
    ]


def _series(
    uid: str,
    plane: str = "sagittal",
    count: int = 13,
    spacing: float = 0.7,
    step: float = 3.3,
    size: int = 320,
    tilt: float = 0.0,
    **changes: object,
) -> SeriesHeader:
    frames = tuple(
        FrameHeader(Path(f"/study/{uid}/{k}.dcm"), 0, f"{uid}.{k}", pose)
        for k, pose in enumerate(_poses(plane, count, spacing, step, size, tilt))
    )
    series = SeriesHeader(
        study_uid="1.2",
        series_uid=uid,
        modality="MR",
        frames=frames,
        frame_of_reference_uid="1.2.99",
        description=f"t2_tse_{plane[:3]}",
        contrast=T2,
    )
    return replace(series, **changes)  # type: ignore[arg-type]


def _axial(uid: str, **changes: object) -> SeriesHeader:
    return _series(uid, "axial", 30, 0.5, 3.5, 320, 15.0, **changes)


def _study(*series: SeriesHeader) -> StudyHeader:
    return StudyHeader("1.2", "/study", series)


def test_sagittal_and_axial_t2_are_taken() -> None:
    sagittal, axial = _series("1"), _axial("2")
    choice = choose(_study(axial, sagittal))
    assert (choice.sagittal, choice.axial) == (sagittal, axial)
    assert choice.same_frame_of_reference
    assert choice.problem is None
    assert choice.flags == ()


def test_only_sagittal_is_graded_without_a_ratio() -> None:
    choice = choose(_study(_series("1")))
    assert choice.sagittal is not None
    assert choice.problem is None
    assert choice.flags == ("no_axial_series",)


def test_only_axial_cannot_be_graded() -> None:
    choice = choose(_study(_axial("1")))
    assert choice.sagittal is None
    assert choice.problem is not None
    assert choice.problem.reason.startswith("cannot grade: ")
    assert "inspect" in choice.problem.advice


def test_no_series_of_use_cannot_be_graded() -> None:
    choice = choose(_study(_series("1", "coronal"), _series("2", modality="CT")))
    assert choice.problem is not None
    assert "none of 2 series" in choice.problem.reason


def test_other_frame_of_reference_leaves_the_axial_series_unmatched() -> None:
    choice = choose(_study(_series("1"), _axial("2", frame_of_reference_uid="1.2.77")))
    assert choice.axial is not None
    assert not choice.same_frame_of_reference
    assert choice.flags == ("axial_unmatched",)


def test_axial_series_in_the_sagittals_frame_is_preferred() -> None:
    choice = choose(_study(_series("1"), _axial("2", frame_of_reference_uid="1.2.77"), _axial("3")))
    assert choice.axial is not None
    assert choice.axial.series_uid == "3"


REJECTED: dict[str, tuple[dict[str, object], str]] = {
    "T1": ({"contrast": Contrast(12, 600, scanning_sequence=("SE",)), "description": "t1_tse"}, "T1"),
    "proton density": ({"contrast": Contrast(30, 3000, scanning_sequence=("SE",))}, "proton density"),
    "STIR by inversion time": ({"contrast": replace(T2, inversion_time_ms=160)}, "STIR"),
    "STIR by description": ({"description": "T2 STIR sag"}, "STIR"),
    "FLAIR": ({"contrast": replace(T2, inversion_time_ms=2400)}, "FLAIR"),
    "T2* gradient echo": ({"contrast": Contrast(15, 600, scanning_sequence=("GR",))}, "gradient echo"),
    "T2* with a long echo": ({"contrast": replace(T2, scanning_sequence=("GR",))}, "gradient echo"),
    "echo planar": ({"contrast": replace(T2, scanning_sequence=("EP",))}, "echo-planar"),
    "missing times, no hint": ({"contrast": Contrast(), "description": "sag"}, "missing"),
    "missing times, T1 in words": ({"contrast": Contrast(), "description": "T1 sag"}, "T1"),
    "CT": ({"modality": "CT"}, "CT"),
    "localizer by type": ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer"),
    "localizer by words": ({"description": "3-plane survey"}, "localizer"),
    "mosaic": ({"image_type": ("ORIGINAL", "PRIMARY", "M", "MOSAIC")}, "mosaic"),
    "projection": ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, "projection"),
    "diffusion": ({"image_type": ("DERIVED", "PRIMARY", "ADC")}, "diffusion"),
    "screenshot": ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, "not an MR image"),
    "lumbar by tag and words": ({"body_part": "LSPINE", "description": "t2 sag LWS"}, "lumbar"),
    "brain by tag and words": ({"body_part": "BRAIN", "description": "t2 sag head"}, "brain"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_series_that_is_no_t2_of_the_neck_is_refused_with_its_reason(name: str) -> None:
    changes, words = REJECTED[name]
    choice = choose(_study(_series("1", **changes)))  # type: ignore[arg-type]
    assert choice.sagittal is None
    assert words in choice.verdicts[0].reason
    assert choice.problem is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plane": "coronal"}, "coronal"),
        ({"count": 3}, "only 3"),
        ({"spacing": 2.0}, "too coarse"),
        ({"size": 120}, "field of view"),
        ({"step": 9.0}, "apart"),
    ],
)
def test_geometry_that_cannot_be_graded_is_refused_with_its_reason(
    changes: dict[str, object], words: str
) -> None:
    verdict = choose(_study(_series("1", **changes))).verdicts[0]  # type: ignore[arg-type]
    assert verdict.role == ""
    assert words in verdict.reason


def test_slices_in_three_planes_are_a_localizer() -> None:
    frames = tuple(
        FrameHeader(Path(f"/{k}"), 0, str(k), pose)
        for k, pose in enumerate(
            _poses("sagittal", 3, 0.8, 10, 320)
            + _poses("axial", 3, 0.8, 10, 320)
            + _poses("coronal", 3, 0.8, 10, 320)
        )
    )
    verdict = choose(_study(_series("1", frames=frames, description=""))).verdicts[0]
    assert "several planes" in verdict.reason


def test_axial_packs_tilted_to_each_disc_are_one_axial_series() -> None:
    frames = tuple(
        FrameHeader(Path(f"/{tilt}/{k}"), 0, f"{tilt}.{k}", pose)
        for tilt in (-5.0, 10.0, 25.0)
        for k, pose in enumerate(_poses("axial", 5, 0.5, 3.3, 320, tilt))
    )
    assert choose(_study(_series("1"), _axial("2", frames=frames))).axial is not None


def test_body_part_alone_rejects_nothing_but_is_flagged() -> None:
    choice = choose(_study(_series("1", body_part="LSPINE")))
    assert choice.sagittal is not None
    assert "body_part_not_cervical" in choice.flags


def test_missing_body_part_and_description_are_no_obstacle() -> None:
    assert choose(_study(_series("1", description="", body_part=""))).sagittal is not None


def test_missing_times_are_made_up_for_by_a_description_that_says_t2() -> None:
    assert choose(_study(_series("1", contrast=Contrast()))).sagittal is not None


def test_three_dimensional_t2_is_taken() -> None:
    contrast = Contrast(echo_time_ms=120, repetition_time_ms=1500, scanning_sequence=("SE",))
    wide = _series("1", count=64, spacing=1.0, step=1.0, size=256, contrast=contrast, acquisition_3d=True)
    assert choose(_study(wide)).sagittal is wide


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ({"description": "t2 sag thoracic spine"}, "another region"),
        ({"image_type": ("DERIVED", "SECONDARY")}, "derived"),
        ({"contrast": replace(T2, contrast_agent=True)}, "contrast agent"),
        ({"description": "sag"}, "does not say T2"),
        ({"size": 200}, "covers less"),
        ({"spacing": 0.9, "size": 249}, "pixels are larger"),
    ],
)
def test_of_two_candidates_the_better_is_taken_and_the_other_told_why(
    worse: dict[str, object], why: str
) -> None:
    # The worse one has the lower UID and comes first, so that neither can have decided.
    choice = choose(_study(_series("1", **worse), _series("2")))  # type: ignore[arg-type]
    assert choice.sagittal is not None
    assert choice.sagittal.series_uid == "2"
    assert why in choice.verdicts[0].reason


def test_equal_candidates_do_not_depend_on_their_order() -> None:
    one, two = _series("1"), _series("2")
    assert choose(_study(one, two)).sagittal is one
    assert choose(_study(two, one)).sagittal is one


def test_the_table_shows_every_series_with_its_reason_and_no_identifier() -> None:
    choice = choose(_study(_series("1", patient_id="SECRET"), _series("2", "coronal", patient_id="SECRET")))
    lines = list(inspection_lines([choice]))
    assert len(lines) == 3
    assert "sagittal T2" in lines[1]
    assert "coronal" in lines[2]
    assert not any("SECRET" in line for line in lines)
