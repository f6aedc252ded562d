"""Selection of the series of a study, and the reasons for the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from dicom_factory import AXIAL, dataset, write
from header_factory import T2, axial, sagittal, stack, study, with_poses
from pydicom.uid import generate_uid
from shared_data import shared_data

from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import Contrast, SeriesHeader, Stage
from stenosis_trt.engine.selection.select import SeriesSelection, select_series

T1 = Contrast(12, 600, scanning_sequence=("SE",))


def _reasons(choice: SeriesSelection) -> dict[str, str]:
    return {verdict.series.series_uid: verdict.reason for verdict in choice.decisions}


def test_sagittal_and_axial_t2_are_taken() -> None:
    one, two = sagittal("1"), axial("2")
    choice = select_series(study(two, one))
    assert choice.sagittal is one
    assert choice.axial is two
    assert choice.same_frame_of_reference
    assert choice.problem is None
    assert choice.warnings == ()
    assert [verdict.role for verdict in choice.decisions] == ["axial T2", "sagittal T2"]


def test_every_series_gets_a_verdict_in_the_order_of_the_study() -> None:
    series = [sagittal("5", contrast=T1), axial("4"), sagittal("3"), sagittal("2", modality="CT")]
    choice = select_series(study(*series))
    assert [verdict.series for verdict in choice.decisions] == series
    assert all(verdict.reason for verdict in choice.decisions)


def test_only_sagittal_is_graded_without_a_ratio() -> None:
    choice = select_series(study(sagittal("1")))
    assert choice.sagittal is not None
    assert choice.problem is None
    assert choice.warnings == ("no_axial_series",)


@pytest.mark.parametrize("others", [(), (sagittal("9", contrast=T1),)])
def test_only_axial_cannot_be_graded(others: tuple[SeriesHeader, ...]) -> None:
    choice = select_series(study(axial("1"), *others))
    assert choice.sagittal is None
    assert choice.problem is not None
    assert choice.problem.stage is Stage.CHOOSE
    assert choice.problem.reason.startswith("cannot grade: there is an axial T2 but no sagittal T2")
    assert "inspect" in choice.problem.advice


def test_a_study_without_any_series_cannot_be_graded() -> None:
    choice = select_series(study())
    assert choice.problem is not None
    assert choice.problem.reason == "cannot grade: it has no series of images."


def test_a_study_that_cannot_be_graded_says_how_far_its_nearest_series_got() -> None:
    choice = select_series(
        study(sagittal("1", modality="CT"), sagittal("2", contrast=T1), sagittal("3", count=2))
    )
    assert choice.problem is not None
    assert "none of 3 series" in choice.problem.reason
    assert "T1 weighting" in choice.problem.reason
    assert choice.problem.study_uid == "1.2"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"modality": "CT"}, "CT"),
        ({"body_part": "LSPINE", "description": "t2 sag lumbar"}, "lumbar"),
        ({"body_part": "BRAIN", "description": "t2 sag brain"}, "brain"),
    ],
)
def test_another_region_or_modality_cannot_be_graded_and_says_so(
    changes: dict[str, Any], expected: str
) -> None:
    choice = select_series(study(sagittal("1", **changes), axial("2", **changes)))
    assert (choice.sagittal, choice.axial) == (None, None)
    assert choice.problem is not None
    assert choice.problem.reason.startswith("cannot grade: ")
    assert expected in choice.problem.reason


def test_another_frame_of_reference_leaves_the_axial_series_unmatched() -> None:
    choice = select_series(study(sagittal("1"), axial("2", frame_of_reference_uid="1.2.77")))
    assert choice.axial is not None
    assert not choice.same_frame_of_reference
    assert choice.warnings == ("axial_unmatched",)


def test_frames_of_reference_that_are_not_given_are_not_the_same() -> None:
    choice = select_series(
        study(sagittal("1", frame_of_reference_uid=""), axial("2", frame_of_reference_uid=""))
    )
    assert choice.warnings == ("axial_unmatched",)


def test_the_axial_series_in_the_sagittals_frame_is_preferred() -> None:
    choice = select_series(study(sagittal("1"), axial("2", frame_of_reference_uid="1.2.77"), axial("3")))
    assert choice.axial is not None
    assert choice.axial.series_uid == "3"
    assert "frame of reference differs" in _reasons(choice)["2"]


def test_of_two_sagittals_the_one_that_axial_slices_can_be_matched_to_is_taken() -> None:
    """The patient was moved: the second sagittal series shares its frame with the axial one."""
    choice = select_series(
        study(
            sagittal("1"),
            sagittal("2", frame_of_reference_uid="1.2.77"),
            axial("3", frame_of_reference_uid="1.2.77"),
        )
    )
    assert choice.sagittal is not None
    assert choice.sagittal.series_uid == "2"
    assert choice.same_frame_of_reference
    assert "no axial T2 series can be matched" in _reasons(choice)["1"]


def test_axial_slices_of_another_place_are_refused() -> None:
    """A study of the whole spine in one frame of reference: lumbar slices lie 400 mm below."""
    choice = select_series(study(sagittal("1"), axial("2", (0.0, 0.0, -400.0))))
    assert choice.axial is None
    assert choice.warnings == ("no_axial_series",)
    assert "none of its slices lies within" in _reasons(choice)["2"]


def test_the_axial_series_with_more_slices_within_the_sagittal_image_is_taken() -> None:
    choice = select_series(
        study(sagittal("1"), axial("2", (0.0, 0.0, -140.0), count=36), axial("3", count=26))
    )
    assert choice.axial is not None
    assert choice.axial.series_uid == "3"
    assert "covers less" in _reasons(choice)["2"]


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ({"description": "t2 sag thoracic spine"}, "names another region"),
        ({"body_part": "LSPINE"}, "names another region"),
        ({"image_type": ("DERIVED", "SECONDARY")}, "derived"),
        ({"contrast": replace(T2, contrast_agent=True)}, "contrast agent"),
        ({"description": "t2_tse_sag_fs"}, "fat is suppressed"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "DIXON", "WATER")}, "fat is suppressed"),
        ({"description": "sag"}, "does not say T2"),
        ({"size": 190}, "covers less"),
        ({"count": 8}, "covers less"),
        ({"spacing": 0.9}, "pixels are larger"),
        ({"count": 12}, "fewer slices"),
    ],
)
def test_the_better_of_two_candidates_is_selected_and_the_other_has_the_reason(
    worse: dict[str, Any], why: str
) -> None:
    # The worse one has the lower UID and comes first, so that neither can have decided.
    choice = select_series(study(sagittal("1", **worse), sagittal("2")))
    assert choice.sagittal is not None
    assert choice.sagittal.series_uid == "2"
    assert _reasons(choice)["1"].startswith("another sagittal T2 series is selected: ")
    assert why in _reasons(choice)["1"]


def test_a_series_that_names_the_neck_is_preferred_to_one_that_names_nothing() -> None:
    choice = select_series(study(sagittal("1"), sagittal("2", description="t2_tse_sag_hws")))
    assert choice.sagittal is not None
    assert choice.sagittal.series_uid == "2"


def test_a_dedicated_series_is_preferred_to_a_whole_spine_with_larger_pixels() -> None:
    whole = sagittal("1", spacing=1.1, size=640)
    choice = select_series(study(whole, sagittal("2")))
    assert choice.sagittal is not None
    assert choice.sagittal.series_uid == "2"
    assert "pixels are larger" in _reasons(choice)["1"]


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"acquired": 20240131100500.0}, {"acquired": 20240131101500.0}),
        ({"series_number": 4}, {"series_number": 7}),
        ({"acquired": 1.0, "series_number": 7}, {"acquired": 2.0, "series_number": 4}),
        ({"acquired": 1.0}, {"acquired": 2.0, "frame_of_reference_uid": "1.2.77"}),
    ],
)
def test_of_equal_candidates_the_repetition_is_taken(worse: dict[str, Any], better: dict[str, Any]) -> None:
    """A series is repeated after the patient moved."""
    choice = select_series(study(sagittal("1", **worse), sagittal("2", **better)))
    assert choice.sagittal is not None
    assert choice.sagittal.series_uid == "2"
    assert "acquired again later" in _reasons(choice)["1"]


def test_of_the_stations_of_a_spine_the_uppermost_is_taken() -> None:
    """The lower one is no repetition, though it was taken later."""
    upper, lower = (
        replace(
            with_poses(sagittal(uid), stack("sagittal", 13, 0.7, 3.3, 320, centre=(0.0, 0.0, z))),
            acquired=when,
        )
        for uid, z, when in (("2", 0.0, 1.0), ("1", -180.0, 2.0))
    )
    choice = select_series(study(lower, upper))
    assert choice.sagittal is upper
    assert "nearer to the head" in _reasons(choice)["1"]


def test_a_stack_of_slices_is_preferred_to_an_isotropic_volume() -> None:
    contrast = Contrast(120, 1500, scanning_sequence=("SE",))
    space = sagittal(
        "1", count=64, step=0.9, contrast=contrast, acquisition_3d=True, description="t2_spc_hws"
    )
    choice = select_series(study(space, sagittal("2", description="sag"), axial("3")))
    assert choice.sagittal is not None
    assert choice.sagittal.series_uid == "2"
    assert choice.warnings == ()
    assert "3-D" in _reasons(choice)["1"]


def test_the_echo_time_of_a_t2_is_preferred() -> None:
    early = sagittal("1", contrast=replace(T2, echo_time_ms=62))
    late = sagittal("2", contrast=replace(T2, echo_time_ms=200))
    choice = select_series(study(early, late, sagittal("3"), axial("4")))
    assert choice.sagittal is not None
    assert choice.sagittal.series_uid == "3"
    assert "echo time" in _reasons(choice)["1"]
    assert "echo time" in _reasons(choice)["2"]


def test_of_two_volumes_of_one_series_the_choice_does_not_depend_on_their_order() -> None:
    one = sagittal("1", contrast=replace(T2, echo_time_ms=95))
    two = sagittal("1", contrast=replace(T2, echo_time_ms=105))
    for order in ((one, two), (two, one)):
        choice = select_series(study(*order, axial("9")))
        assert choice.sagittal is one
        (reason,) = [verdict.reason for verdict in choice.decisions if verdict.series is two]
        assert "equal in all criteria" in reason
        assert "echo time" in reason


def test_slices_in_another_plane_are_left_out_of_a_series_and_flagged() -> None:
    """A sagittal reference image among axial ones, and a pack that follows a steep disc."""
    for tilt in (45.0, 90.0):
        odd = stack("axial", 3, 0.5, 3.5, 320, tilt)
        mixed = with_poses(axial("2"), [*stack("axial", 24, 0.5, 3.5, 320, 15.0), *odd])
        choice = select_series(study(sagittal("1"), mixed))
        assert choice.axial is not None
        assert choice.axial.frames == mixed.frames[:24]
        assert choice.warnings == ("slices_left_out",)
        assert choice.decisions[1].series is mixed
        assert "3 slices in another plane left out" in choice.decisions[1].reason


def test_axial_slices_count_where_the_neck_can_be() -> None:
    """A whole-spine image, with one axial series across the neck and a longer one across the loins."""
    whole = sagittal("1", spacing=1.0, size=600)
    choice = select_series(
        study(whole, axial("2", (0.0, 0.0, 200.0), count=25), axial("3", (0.0, 0.0, -200.0), count=40))
    )
    assert choice.axial is not None
    assert choice.axial.series_uid == "2"
    assert "none of its slices lies within the upper" in _reasons(choice)["3"]


def test_below_a_whole_head_the_axial_series_of_the_neck_is_taken() -> None:
    """It lies 250 mm below the upper edge; another one across the loins lies 500 mm below it."""
    whole = sagittal("1", spacing=1.0, size=600)
    choice = select_series(
        study(whole, axial("2", (0.0, 0.0, 50.0), count=25), axial("3", (0.0, 0.0, -200.0), count=40))
    )
    assert choice.axial is not None
    assert choice.axial.series_uid == "2"


@pytest.mark.parametrize("make", [sagittal, axial])
def test_equal_candidates_do_not_depend_on_their_order(make: Callable[..., SeriesHeader]) -> None:
    one, two, partner = make("1"), make("2"), (axial if make is sagittal else sagittal)("9")
    for order in ((one, two), (two, one)):
        choice = select_series(study(*order, partner))
        assert one in (choice.sagittal, choice.axial)
        assert "equal in all criteria" in _reasons(choice)["2"]


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"body_part": "LSPINE"}, "body_part_not_cervical"),
        ({"description": "t2 sag lumbar"}, "body_part_not_cervical"),
        ({"description": "t2 sag lumbar", "body_part": "CSPINE"}, "body_part_not_cervical"),
        ({"contrast": replace(T2, contrast_agent=True)}, "contrast_agent"),
        ({"contrast": replace(T2, fat_suppressed=True)}, "fat_suppressed"),
        ({"description": "t2_tse_sag fatsat"}, "fat_suppressed"),
        ({"description": "SAG T2 FAT"}, "fat_suppressed"),
        ({"description": "WATER: SAG T2 IDEAL"}, "fat_suppressed"),
        ({"step": 1.0, "count": 40}, "thin_slices"),
    ],
)
def test_peculiarities_of_the_only_candidate_are_flagged(changes: dict[str, Any], warning: str) -> None:
    choice = select_series(study(sagittal("1", **changes), axial("2")))
    assert choice.problem is None
    assert choice.warnings == (warning,)


@pytest.mark.parametrize(
    "words", ["SAG T2 NO FAT SAT", "t2 sag without fat sat", "T2 sag ohne FS", "T2 NON-FS"]
)
def test_fat_that_is_said_not_to_be_suppressed_is_not_flagged(words: str) -> None:
    assert select_series(study(sagittal("1", description=words), axial("2"))).warnings == ()


def test_the_name_of_the_whole_examination_flags_no_series() -> None:
    series = sagittal("1", description="SAG T2", protocol="C AND L-SPINE FS"), axial("2")
    assert select_series(study(*series)).warnings == ()


def test_a_body_part_that_the_description_contradicts_is_not_flagged() -> None:
    choice = select_series(study(sagittal("1", body_part="HEAD", description="t2_tse_sag_hws"), axial("2")))
    assert choice.warnings == ()


def _write(folder: Path, name: str, orientation: list[float] | None = None, **tags: Any) -> None:
    """A series of eleven slices as DICOM files, sagittal unless told otherwise."""
    for number in range(11):
        if orientation == AXIAL:
            tags["ImageOrientationPatient"] = AXIAL
            tags["ImagePositionPatient"] = [-100.0, -100.0, -18.0 + 3.6 * number]
        content = dataset(
            number,
            SeriesInstanceUID=generate_uid(entropy_srcs=[name]),
            SOPInstanceUID=generate_uid(entropy_srcs=[name, str(number)]),
            **tags,
        )
        write(folder / name / f"{number}.dcm", content)


def test_series_of_files_are_selected_by_their_headers(tmp_path: Path) -> None:
    _write(tmp_path, "t2_sag", SeriesDescription="sag", InversionTime=0)
    _write(tmp_path, "t1_sag", SeriesDescription="sag", EchoTime=11.0, RepetitionTime=550.0)
    _write(tmp_path, "stir_sag", SeriesDescription="sag", InversionTime=160.0)
    _write(tmp_path, "t2star_ax", AXIAL, SeriesDescription="ax", ScanningSequence="GR", EchoTime=17.0)
    _write(tmp_path, "t2_ax", AXIAL, SeriesDescription="ax")
    _write(tmp_path, "ct", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    with DicomReader() as reader:
        scan = reader.scan([tmp_path])
    assert scan.problems == ()
    (found,) = scan.studies
    choice = select_series(found)
    verdicts = {v.series.frames[0].path.parent.name: (v.role, v.reason) for v in choice.decisions}
    assert choice.warnings == ()
    assert {name: role for name, (role, _) in verdicts.items() if role} == {
        "t2_sag": "sagittal T2",
        "t2_ax": "axial T2",
    }
    assert "T1 weighting" in verdicts["t1_sag"][1]
    assert "STIR" in verdicts["stir_sag"][1]
    assert "gradient echo" in verdicts["t2star_ax"][1]
    assert "CT" in verdicts["ct"][1]


def _pack(uid: str, z: float, count: int = 4, **changes: Any) -> SeriesHeader:
    """A few axial slices around the height z."""
    return axial(uid, (0.0, 0.0, z), count, **changes)


def _axials(choice: SeriesSelection) -> list[str]:
    return [item.series_uid for item in (choice.axial, *choice.axial_packs) if item is not None]


def test_axial_packs_planned_disc_by_disc_are_joined() -> None:
    packs = [_pack(str(k), 40.0 - 17.0 * k) for k in range(2, 7)]
    choice = select_series(study(sagittal("1"), *packs))
    assert sorted(_axials(choice)) == ["2", "3", "4", "5", "6"]
    assert choice.warnings == ()
    assert {verdict.role for verdict in choice.decisions[1:]} == {"axial T2"}
    assert sum("joined to series" in verdict.reason for verdict in choice.decisions) == 4


def test_nothing_is_joined_to_a_stack_that_shows_the_same_discs() -> None:
    choice = select_series(study(sagittal("1"), axial("2"), _pack("3", 0.0), _pack("4", 20.0, 6)))
    assert _axials(choice) == ["2"]
    assert "only 4 axial slices" in _reasons(choice)["3"]
    assert "covers less" in _reasons(choice)["4"]


def test_of_a_pack_and_its_repetition_the_later_one_is_joined() -> None:
    packs = [_pack("2", 20.0, 6), _pack("3", -20.0, 6, acquired=1.0), _pack("4", -20.0, 6, acquired=2.0)]
    assert sorted(_axials(select_series(study(sagittal("1"), *packs)))) == ["2", "4"]


@pytest.mark.parametrize(
    "other",
    [
        {"frame_of_reference_uid": "1.2.77"},
        {"contrast": T1},
        {"contrast": replace(T2, contrast_agent=True)},
        {"description": "t2_tse_tra_fs"},
    ],
)
def test_packs_of_another_frame_or_kind_are_not_joined(other: dict[str, Any]) -> None:
    choice = select_series(study(sagittal("1"), _pack("2", 20.0, 6), _pack("3", -20.0, 6, **other)))
    assert _axials(choice) == ["2"]


def test_axial_slices_that_are_not_one_stack_are_flagged() -> None:
    choice = select_series(study(sagittal("1"), axial("2", defect="two acquisitions are interleaved")))
    assert choice.axial is None
    assert choice.warnings == ("no_axial_series", "axial_slices_mixed")


def test_a_pack_below_the_neck_is_not_joined() -> None:
    assert _axials(select_series(study(sagittal("1"), _pack("2", 0.0, 6), _pack("3", -300.0, 6)))) == ["2"]


def test_packs_that_have_too_few_slices_even_together_are_no_axial_series() -> None:
    choice = select_series(study(sagittal("1"), _pack("2", 20.0, 2), _pack("3", -20.0, 2)))
    assert choice.axial is None
    assert choice.warnings == ("no_axial_series",)
    assert _reasons(choice)["2"] == "it has only 2 axial slices"


def test_a_sagittal_series_that_was_tried_gives_way_to_the_next_best() -> None:
    series = study(sagittal("1", spacing=0.9), axial("2"), sagittal("3"))
    first = select_series(series)
    assert first.sagittal_index == 2
    second = select_series(series, [2])
    assert second.sagittal_index == 0
    assert _reasons(second)["3"] == "it was tried and could not be graded"
    assert select_series(series, [0, 2]).sagittal is None


def test_a_refusal_names_the_series_that_came_nearest_by_its_number() -> None:
    choice = select_series(study(axial("1"), sagittal("2", modality="CT"), sagittal("3", contrast=T1)))
    assert choice.problem is not None
    assert choice.problem.reason == (
        "cannot grade: there is an axial T2 but no sagittal T2, on which Kang's grade is defined "
        "(the nearest, series 3: TE 12 and TR 600 ms are T1 weighting)."
    )


@cache
def _real_verdicts() -> dict[str, set[str]]:
    """Every reason given below each folder of ../shared/data/dicom."""
    root = shared_data("dicom")
    with DicomReader() as reader:
        studies = reader.scan([root]).studies
    reasons: dict[str, set[str]] = {}
    for found in studies:
        choice = select_series(found)
        assert choice.problem is not None
        assert choice.sagittal is None
        for verdict in choice.decisions:
            folder = verdict.series.frames[0].path.relative_to(root).parts[0]
            reasons.setdefault(folder, set()).add(verdict.reason)
    return reasons


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("bad_orientation_philips", "only 2 sagittal slices"),
        ("bits_signed", "mosaics"),
        ("float_rescale", "projection or reformat"),
        ("ge_mr750", "only 4 sagittal slices"),
        ("hyperfine_enhanced", "too coarse"),
        ("philips_classic_sag", "cover only 6 mm"),
        ("philips_enhanced", "too coarse"),
        ("philips_enhanced_achieva", "cover only"),
        ("philips_intera_implicit", "coronal"),
        ("pydicom_dicomdir", "several planes"),
        ("pydicom_mr", "only 1 axial slice"),
        ("pydicom_odd", "CT, not MR"),
        ("siemens_mosaic", "mosaics"),
        ("siemens_prone_HFP", "apart"),
        ("siemens_supine_HFS", "apart"),
        ("siemens_trio", "only 4 sagittal slices"),
        ("siemens_xa30_classic_sag", "too coarse"),
        ("siemens_xa30_enhanced_sag", "too coarse"),
        ("toshiba_galan_sag", "too coarse"),
        ("transfer_syntax_siemens_trio", "mosaics"),
    ],
)
def test_real_series_that_are_no_cervical_t2_are_refused_with_their_reason(
    folder: str, expected: str
) -> None:
    assert any(expected in reason for reason in _real_verdicts()[folder])


CONTRAST_OF_REAL_HEADERS = [
    ("ge_mr750", "gradient echo"),
    ("philips_classic_sag", "gradient echo"),
    ("philips_enhanced_achieva", "T1 weighting"),
    ("philips_intera_implicit", "inversion recovery"),
    ("siemens_supine_HFS", "gradient echo"),
    ("siemens_trio", "FLAIR"),
    ("hyperfine_enhanced", "inversion recovery"),
    ("siemens_xa30_enhanced_sag", "echo-planar"),
    ("siemens_xa30_classic_sag", "echo-planar"),
    ("toshiba_galan_sag", "echo-planar"),
    ("bad_orientation_philips", ""),
]


@pytest.mark.shared_data
@pytest.mark.parametrize(("folder", "expected"), CONTRAST_OF_REAL_HEADERS)
def test_contrast_is_told_from_real_headers_of_many_vendors(folder: str, expected: str) -> None:
    """The files are a few slices of a series; a whole stack in their place leaves the contrast to judge."""
    with DicomReader() as reader:
        found = reader.scan([shared_data("dicom", folder)]).studies[0].series[0]
    whole = with_poses(replace(found, body_part=""), stack("sagittal", 13, 0.7, 3.3, 320))
    (verdict,) = select_series(study(whole)).decisions
    if expected:
        assert verdict.role == ""
        assert expected in verdict.reason
    else:
        assert verdict.role == "sagittal T2"


def test_a_series_that_is_no_stack_is_refused_with_its_defect_which_the_study_names() -> None:
    defect = "its 24 slices lie 0.36 to 2.94 mm apart"
    choice = select_series(study(sagittal("1", defect=defect), axial("2")))
    assert _reasons(choice)["1"] == defect
    assert choice.problem is not None
    assert defect in choice.problem.reason
