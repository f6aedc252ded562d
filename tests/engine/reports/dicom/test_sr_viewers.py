"""The rules that viewers set on the tree of a structured report; docs/structured-report.md explains them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset
from report_samples import sample_report, with_levels
from sr_trees import children, descendants, documents, groups, name_of

from stenosis_trt.engine.records import HealthyComparison, LevelResult
from stenosis_trt.engine.reports.dicom import coded_values as codes
from stenosis_trt.engine.reports.study_report import ReportImage, StudyImages, StudyReport


def _changed(level: LevelResult) -> LevelResult:
    """Everything that a level can have, and levels that lack something."""
    level = replace(level, mscc=0.2, healthy=HealthyComparison(0.0, 0.0, 0.0, 50.0, 50.0, 50.0))
    if level.level == "C7/T1":
        return replace(level, point=None, grade=None, probabilities=None, cord=None)
    return replace(level, grade=None, probabilities=None) if level.level == "C6/7" else level


REPORTS = [sample_report, lambda: with_levels(sample_report(), _changed)]


@pytest.mark.parametrize("report", REPORTS)
def test_ohif_every_number_of_a_group_has_exactly_one_scoord(report: object) -> None:
    for document in documents(report()).values():  # type: ignore[operator]
        assert groups(document) != []
        for group in groups(document):
            numbers = children(group, None, "NUM")
            assert numbers != []
            for item in numbers:
                assert [child.ValueType for child in children(item)] == ["SCOORD"]
                assert float(item.MeasuredValueSequence[0].NumericValue) != 0


def test_ohif_axial_groups_have_both_diameters_and_the_ratio_on_the_slice() -> None:
    report = sample_report()
    assert report.images is not None
    document = documents(report)["sr_axial"]
    for level, group in zip(report.result.levels, groups(document), strict=True):
        numbers = children(group, None, "NUM")
        assert [name_of(item) for item in numbers] == [
            codes.AP_DIAMETER,
            codes.TRANSVERSE_DIAMETER,
            codes.COMPRESSION_RATIO,
        ]
        ap, transverse, ratio = (children(item)[0] for item in numbers)
        assert level.cord is not None
        image = report.images.axial[level.level]
        for item, points in ((ap, level.cord.points[:2]), (transverse, level.cord.points[2:])):
            assert item.GraphicType == "POLYLINE"
            _assert_at(item, image, np.array(points))
        assert ratio == transverse


def test_ohif_sagittal_groups_have_the_point_of_the_level() -> None:
    report = sample_report()
    assert report.images is not None
    for level, group in zip(report.result.levels, groups(documents(report)["sr_sagittal"]), strict=True):
        (number,) = children(group, None, "NUM")
        (item,) = children(number)
        assert item.GraphicType == "POINT"
        _assert_at(item, report.images.sagittal[level.level], np.array([level.point]))


def _assert_at(item: Dataset, image: ReportImage, points: np.ndarray) -> None:
    """The SCOORD lies where the points are in the patient, but for what they are off the plane."""
    (reference,) = children(item)
    (selected,) = reference.ReferencedSOPSequence
    assert selected.ReferencedSOPInstanceUID == image.dataset.SOPInstanceUID
    assert selected.ReferencedSOPClassUID == image.dataset.SOPClassUID
    pixels = np.array(item.GraphicData).reshape(-1, 2)
    # DICOM PS3.3, C.10.5.1: the centre of the first pixel is (0.5, 0.5).
    shown = image.pose.to_patient(pixels - 0.5)
    along = (points - shown) @ image.pose.normal
    assert np.abs(points - shown - along[:, None] * image.pose.normal).max() < 1e-3


@pytest.mark.parametrize("sr_for", ["ohif", "slicer"])
def test_the_centre_of_the_first_pixel_is_at_a_half(sr_for: str) -> None:
    report = sample_report()
    assert report.images is not None
    images = dict(report.images.sagittal)
    level = report.result.levels[0]
    point = images[level.level].pose.origin
    report = with_levels(report, lambda item: replace(item, point=point) if item.level == "C2/3" else item)
    first = groups(documents(report, sr_for)["sr_sagittal"])[0]
    (item,) = (child for child in descendants(first) if child.ValueType == "SCOORD")
    assert item.GraphicData == pytest.approx([0.5, 0.5], abs=1e-4)


@pytest.mark.parametrize("sr_for", ["ohif", "slicer"])
@pytest.mark.parametrize("report", REPORTS)
def test_every_group_names_its_level_in_one_comment(report: object, sr_for: str) -> None:
    for document in documents(report(), sr_for).values():  # type: ignore[operator]
        for group in groups(document):
            (comment,) = children(group, codes.COMMENT, "TEXT")
            words = comment.TextValue.split(" ")
            assert words[0] in codes.DISCS
            assert words[1:] == ["not", "graded"] or (words[1:3] == ["Kang", "grade"] and words[3] in "0123")
            (site,) = children(group, codes.FINDING_SITE)
            assert site.ConceptCodeSequence[0].CodeValue == codes.DISCS[words[0]].value


@pytest.mark.parametrize("sr_for", ["ohif", "slicer"])
def test_tracking_uids_are_unique(sr_for: str) -> None:
    """OHIF merges groups of one tracking UID."""
    found = [
        children(group, codes.TRACKING_UID)[0].UID
        for document in documents(sample_report(), sr_for).values()
        for group in groups(document)
    ]
    assert len(set(found)) == len(found)


def test_ohif_the_only_uid_in_a_group_is_its_tracking_uid() -> None:
    for document in documents(sample_report()).values():
        for group in groups(document):
            assert [name_of(item) for item in children(group, None, "UIDREF")] == [codes.TRACKING_UID]


@pytest.mark.parametrize("sr_for", ["ohif", "slicer"])
def test_weasis_coordinates_are_two_dimensional_and_of_one_image(sr_for: str) -> None:
    """Weasis ignored SCOORD3D before 2026; OHIF draws none either."""
    for document in documents(sample_report(), sr_for).values():
        items = list(descendants(document))
        assert not any(item.ValueType == "SCOORD3D" for item in items)
        scoords = [item for item in items if item.ValueType == "SCOORD"]
        assert len(scoords) >= 6
        for item in scoords:
            assert [child.ValueType for child in children(item)] == ["IMAGE"]
            assert children(item)[0].RelationshipType == "SELECTED FROM"


@pytest.mark.parametrize("report", REPORTS)
def test_slicer_every_group_is_a_planar_region(report: object) -> None:
    """QuantitativeReporting takes TID 1410 with a point or polyline, and the first series of the evidence."""
    both = documents(report(), "slicer")  # type: ignore[operator]
    for name, shape in (("sr_axial", "POLYLINE"), ("sr_sagittal", "POINT")):
        (study,) = both[name].CurrentRequestedProcedureEvidenceSequence
        assert len(study.ReferencedSeriesSequence) == 1
        for group in groups(both[name]):
            (template,) = group.ContentTemplateSequence
            assert template.TemplateIdentifier == "1410"
            (region,) = children(group, None, "SCOORD")
            assert name_of(region) == codes.IMAGE_REGION
            assert region.GraphicType == shape
            assert children(group, None, "NUM") != []
            assert not any(children(item) for item in children(group, None, "NUM"))


def test_slicer_a_level_has_two_regions_on_its_axial_slice() -> None:
    shown = groups(documents(sample_report(), "slicer")["sr_axial"])
    assert [[name_of(item).value for item in children(group, None, "NUM")] for group in shown] == (
        [["CORDAP"], ["CORDTR", "CORDCR"]] * 6
    )


@pytest.mark.parametrize("sr_for", ["ohif", "slicer"])
def test_a_frame_of_a_multi_frame_object_is_named(sr_for: str) -> None:
    both = documents(_as_frames(sample_report()), sr_for)
    for document in both.values():
        references = [item for item in descendants(document) if item.ValueType == "IMAGE"]
        for item in references:
            (reference,) = item.ReferencedSOPSequence
            assert reference.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.4.1"
            assert reference.ReferencedFrameNumber == 7
        (study,) = document.CurrentRequestedProcedureEvidenceSequence
        for evidence in study.ReferencedSeriesSequence[0].ReferencedSOPSequence:
            assert "ReferencedFrameNumber" not in evidence


def test_a_single_frame_object_has_no_frame_number() -> None:
    for document in documents(sample_report()).values():
        for item in descendants(document):
            assert item.ValueType != "IMAGE" or "ReferencedFrameNumber" not in item.ReferencedSOPSequence[0]


def _as_frames(report: StudyReport) -> StudyReport:
    """The report, as if each image were frame 7 of an Enhanced MR object."""
    assert report.images is not None

    def framed(image: ReportImage) -> ReportImage:
        image.dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
        return replace(image, frame=replace(image.frame, frame_number=7, index=6))

    def of_frames(level: LevelResult) -> LevelResult:
        cord = None if level.cord is None else replace(level.cord, frame_number=7)
        return replace(level, sagittal_frame_number=7, cord=cord)

    images = StudyImages(
        {level: framed(image) for level, image in report.images.sagittal.items()},
        {level: framed(image) for level, image in report.images.axial.items()},
    )
    return replace(with_levels(report, of_frames), images=images)
