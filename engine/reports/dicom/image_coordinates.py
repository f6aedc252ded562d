"""Where the results of a study lie on its images, in the form that a structured report refers to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.dicom.series import SOP_UID_SHARED
from stenosis_trt.engine.dicom.uids import is_replacement
from stenosis_trt.engine.geometry import Vector
from stenosis_trt.engine.records import CordMeasurement, LevelResult
from stenosis_trt.engine.reports.dicom.content_items import ImageReference
from stenosis_trt.engine.reports.dicom.patient_study import required_uid
from stenosis_trt.engine.reports.study_report import CannotReport, ReportImage, StudyReport

Point = tuple[float, float]
_FIRST_PIXEL_CENTRE = 0.5
"""Of both coordinates: (0, 0) is the corner of the image (PS3.3, C.10.5.1)."""


@dataclass(frozen=True)
class PlacedImage:
    """An image that a report may refer to.

    Attributes:
        image: the image.
        reference: its UIDs and frame.
        series_uid: Series Instance UID.
    """

    image: ReportImage
    reference: ImageReference
    series_uid: str


@dataclass(frozen=True)
class PlacedLevel:
    """A level with what was found of it on one image, as (column, row).

    Attributes:
        level: result of the level.
        placed: the image.
        points: the level's point, or anterior, posterior, left and right point of the cord.
    """

    level: LevelResult
    placed: PlacedImage
    points: tuple[Point, ...]

    @property
    def cord(self) -> CordMeasurement:
        """The cord's measurement; for axial images alone."""
        assert self.level.cord is not None
        return self.level.cord


def check_reportable(report: StudyReport) -> None:
    """Refuse a study in which a reference could mean another image.

    Raises:
        CannotReport: there are no images, their SOP Instance UIDs are not unique, or the study's UID is none.
    """
    if report.images is None:
        raise CannotReport(
            "The images are not available, and a structured report refers to them.",
            "Give the folder of the images: stenosis-trt report RESULTS IMAGES.",
        )
    if SOP_UID_SHARED in report.result.warnings:
        raise CannotReport(
            "Images share a SOP Instance UID, so that a structured report could refer to the wrong one.",
            "Export the scanner's original images, and grade them.",
        )
    if is_replacement(report.result.study_uid):
        raise CannotReport(
            "The Study Instance UID is not valid, so that a structured report would belong to no study.",
            "Export the scanner's original images, and grade them.",
        )


def sagittal_levels(report: StudyReport) -> list[PlacedLevel]:
    """Return the graded levels whose point lies on the sagittal image that was graded."""
    assert report.images is not None
    return [
        placed
        for level in report.result.levels
        if level.probabilities is not None
        and level.grade is not None
        and level.point is not None
        and level.level in report.images.sagittal
        for placed in _place(
            report,
            level,
            report.images.sagittal[level.level],
            (level.sagittal_sop_uid, level.sagittal_frame_number),
            (level.point,),
        )
    ]


def axial_levels(report: StudyReport) -> list[PlacedLevel]:
    """Return the levels whose cord was measured on an axial image."""
    assert report.images is not None
    return [
        placed
        for level in report.result.levels
        if level.cord is not None and level.level in report.images.axial
        for placed in _place(
            report,
            level,
            report.images.axial[level.level],
            (level.cord.sop_instance_uid, level.cord.frame_number),
            level.cord.points,
        )
    ]


def _place(
    report: StudyReport,
    level: LevelResult,
    image: ReportImage,
    expected: tuple[str, int | None],
    points: tuple[Vector, ...],
) -> list[PlacedLevel]:
    """The level on the image; nothing if a point lies beside the image.

    Raises:
        CannotReport: the file is not the image that the result names.
    """
    dataset = image.dataset
    reference = ImageReference(
        required_uid(dataset, "SOPClassUID"),
        required_uid(dataset, "SOPInstanceUID"),
        image.frame.frame_number,
    )
    same_study = required_uid(dataset, "StudyInstanceUID") == report.result.study_uid
    if not same_study or (reference.sop_instance_uid, reference.frame_number) != expected:
        raise CannotReport(
            "An image has other UIDs than when it was graded.",
            "Grade the study again, with a new output folder.",
        )
    pixels = image.pose.to_pixels(np.array(points))[:, :2] + _FIRST_PIXEL_CENTRE
    if not np.all((pixels >= 0) & (pixels <= (image.pose.columns, image.pose.rows))):
        return []
    placed = PlacedImage(image, reference, required_uid(dataset, "SeriesInstanceUID"))
    return [PlacedLevel(level, placed, tuple((float(column), float(row)) for column, row in pixels))]
