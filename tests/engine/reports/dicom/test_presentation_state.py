"""Presentation states: valid, without a VOI LUT, with graphics where the pose says."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from picture_samples import made_report, without_axial
from pydicom import Dataset
from pydicom.dataset import FileDataset
from report_samples import sample_report, with_headers, with_warnings
from viewer_tools import command_path, need_commands

from stenosis_trt.engine.reports.dicom import presentation_state
from stenosis_trt.engine.reports.study_report import CannotReport, ReportOptions, StudyReport


def _states(report: StudyReport) -> dict[str, FileDataset]:
    files = presentation_state.make(report, ReportOptions())
    return {name: pydicom.dcmread(io.BytesIO(content)) for name, content in files.items()}


def _annotations(state: Dataset) -> list[Dataset]:
    """Annotations of single images."""
    return [item for item in state.GraphicAnnotationSequence if "ReferencedImageSequence" in item]


def test_there_is_one_state_for_each_series_of_images() -> None:
    report = sample_report()
    states = _states(report)
    assert list(states) == ["gsps/001_sagittal.dcm", "gsps/002_axial.dcm"]
    assert [x.ReferencedSeriesSequence[0].SeriesInstanceUID for x in states.values()] == [
        report.result.sagittal_series_uid,
        report.result.axial_series_uid,
    ]
    assert len({x.SeriesInstanceUID for x in states.values()}) == 1
    assert len({x.SOPInstanceUID for x in states.values()}) == 2


def test_several_axial_series_have_a_state_each() -> None:
    report = sample_report()
    assert report.images is not None
    report.images.axial["C2/3"].dataset.SeriesInstanceUID = "1.2.99"
    assert list(_states(report)) == ["gsps/001_sagittal.dcm", "gsps/002_axial.dcm", "gsps/003_axial.dcm"]


def test_no_state_has_a_window() -> None:
    for state in _states(sample_report()).values():
        assert "SoftcopyVOILUTSequence" not in state
        assert not [
            x for x in state.iterall() if x.keyword in {"WindowCenter", "WindowWidth", "VOILUTSequence"}
        ]
        assert state.PresentationLUTShape == "IDENTITY"


def test_lines_and_points_lie_where_the_pose_says() -> None:
    report = sample_report()
    assert report.images is not None
    sagittal, axial = _states(report).values()
    levels = [level for level in report.result.levels if level.cord]
    for annotation, level in zip(_annotations(axial), levels, strict=True):
        assert level.cord is not None
        image = report.images.axial[level.level]
        # The first pixel's centre is (0.5, 0.5).
        expected = image.pose.to_pixels(level.cord.points)[:, :2] + 0.5
        lines = [np.reshape(x.GraphicData, (-1, 2)) for x in annotation.GraphicObjectSequence]
        assert [x.GraphicType for x in annotation.GraphicObjectSequence] == ["POLYLINE"] * 2 + ["POINT"] * 4
        assert np.allclose(np.concatenate(lines), np.concatenate([expected, expected]), atol=1e-3)
        assert annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID == level.cord.sop_instance_uid
        lengths = [np.linalg.norm((x[1] - x[0]) * image.pose.column_spacing) for x in lines[:2]]
        assert lengths == pytest.approx([level.cord.ap_mm, level.cord.transverse_mm], abs=0.05)
    for annotation, level in zip(_annotations(sagittal), report.result.levels, strict=True):
        expected = report.images.sagittal[level.level].pose.to_pixels(level.point)[:2] + 0.5
        assert np.allclose(annotation.GraphicObjectSequence[0].GraphicData, expected, atol=1e-3)


def test_texts_name_the_finding_and_that_it_is_not_for_clinical_use() -> None:
    report = sample_report()
    sagittal, axial = _states(report).values()
    texts = [item.TextObjectSequence[0].UnformattedTextValue for item in _annotations(sagittal)]
    assert "C5/6 Kang grade 3" in texts
    words = _annotations(axial)[3].TextObjectSequence[0].UnformattedTextValue
    assert words.startswith("C5/6: AP ")
    assert ", ratio 0." in words
    for state in (sagittal, axial):
        last = state.GraphicAnnotationSequence[-1]
        assert last.TextObjectSequence[0].UnformattedTextValue == "Not for clinical use."
    clinical = replace(report, provenance=replace(report.provenance, clinical_use=True))
    assert all("clinical" not in str(state.GraphicAnnotationSequence) for state in _states(clinical).values())


def test_the_whole_of_every_image_is_shown() -> None:
    report = sample_report()
    assert report.images is not None
    for state, images in zip(
        _states(report).values(), (report.images.sagittal, report.images.axial), strict=True
    ):
        area = state.DisplayedAreaSelectionSequence[0]
        image = images["C5/6"]
        assert list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
        assert list(area.DisplayedAreaBottomRightHandCorner) == [image.pose.columns, image.pose.rows]
        assert area.PresentationPixelSpacing == [image.pose.row_spacing, image.pose.column_spacing]


def test_frames_of_multi_frame_images_are_referred_to_by_number() -> None:
    sagittal, axial = _states(made_report(multiframe=True)).values()
    frames = [x.ReferencedImageSequence[0].ReferencedFrameNumber for x in _annotations(axial)]
    assert frames == [1, 2, 3, 4, 5]
    (reference,) = axial.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert list(reference.ReferencedFrameNumber) == [1, 2, 3, 4, 5]
    (reference,) = sagittal.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert reference.ReferencedFrameNumber == 5


def test_images_that_are_stored_inverted_are_presented_inverted() -> None:
    report = with_headers(
        sample_report(), lambda dataset: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1")
    )
    assert {state.PresentationLUTShape for state in _states(report).values()} == {"INVERSE"}


def test_the_rescaling_of_the_images_is_kept() -> None:
    def rescale(dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -100

    for state in _states(with_headers(sample_report(), rescale)).values():
        assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (2, -100, "US")
    assert all("RescaleSlope" not in state for state in _states(sample_report()).values())


def test_levels_without_axial_image_are_left_out() -> None:
    report = without_axial(made_report(), "C5/6", "no_axial_slice")
    axial = _states(report)["gsps/002_axial.dcm"]
    texts = [item.TextObjectSequence[0].UnformattedTextValue[:4] for item in _annotations(axial)]
    assert texts == ["C2/3", "C3/4", "C4/5", "C6/7"]


def test_the_wrong_images_are_refused() -> None:
    report = made_report()
    assert report.images is not None
    image = report.images.sagittal["C4/5"]
    object.__setattr__(image, "frame", replace(image.frame, sop_instance_uid="1.2.9"))
    with pytest.raises(CannotReport, match="is not the one"):
        presentation_state.make(report, ReportOptions())
    with pytest.raises(CannotReport, match="not available"):
        presentation_state.make(replace(report, images=None), ReportOptions())


def test_images_that_share_a_uid_are_not_marked() -> None:
    with pytest.raises(CannotReport, match="share a SOP Instance UID"):
        presentation_state.make(with_warnings(sample_report(), "sop_uid_shared"), ReportOptions())


def test_highdicom_agrees_with_the_modules() -> None:
    state = _states(sample_report())["gsps/002_axial.dcm"]
    for item in state.GraphicAnnotationSequence:
        for graphic in item.get("GraphicObjectSequence", []):
            made = highdicom.pr.GraphicObject(
                graphic.GraphicType, np.reshape(graphic.GraphicData, (-1, 2)), "PIXEL", is_filled=False
            )
            assert list(made.GraphicData) == pytest.approx(list(graphic.GraphicData), abs=1e-4)
            assert made.NumberOfGraphicPoints == graphic.NumberOfGraphicPoints


@pytest.mark.parametrize("report", [sample_report, lambda: made_report(multiframe=True)])
def test_dciodvfy_finds_no_error(report: Any, tmp_path: Path) -> None:
    need_commands("dciodvfy")
    for name, content in presentation_state.make(report(), ReportOptions()).items():
        path = tmp_path / Path(name).name
        path.write_bytes(content)
        ran = subprocess.run(
            [command_path("dciodvfy"), str(path)], capture_output=True, text=True, check=False
        )
        assert "GrayscaleSoftcopyPresentationState" in ran.stderr + ran.stdout
        assert "Error" not in ran.stderr + ran.stdout
