"""Format `gsps`: a Grayscale Softcopy Presentation State for each series, with lines, points and text.

It has no VOI LUT: viewers would take it instead of the window that the reader set. The annotations lie on
the graded and measured images themselves. Not every viewer shows them; secondary captures are the safer
format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from stenosis_trt.engine.dicom.series import SOP_UID_SHARED
from stenosis_trt.engine.records import LevelResult
from stenosis_trt.engine.reports.dicom.derived_objects import (
    SeriesEncoder,
    distinct_images,
    image_reference,
    new_instance,
    new_series,
    series_description,
)
from stenosis_trt.engine.reports.dicom.patient_study import required_uid
from stenosis_trt.engine.reports.pictures.pages import check_images
from stenosis_trt.engine.reports.study_report import (
    CannotReport,
    Provenance,
    ReportImage,
    ReportOptions,
    StudyReport,
)
from stenosis_trt.engine.reports.text.wording import NOT_FOR_CLINICAL_USE, finding

_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.11.1"
"""Grayscale Softcopy Presentation State Storage."""
_SERIES_NUMBER = 9902
_LAYER = "STENOSIS"


@dataclass(frozen=True)
class _Annotation:
    """What is drawn on one image.

    Attributes:
        image: the image.
        polylines: ends of lines, LPS, mm; a line of one point is a point.
        text: beside the last point of the first line.
    """

    image: ReportImage
    polylines: tuple[npt.NDArray[np.float64], ...]
    text: str


def make(report: StudyReport, options: ReportOptions) -> dict[str, bytes]:
    """Return `gsps/001_sagittal.dcm`, `gsps/002_axial.dcm` and so on, one for each series.

    Raises:
        CannotReport: the images are not available, are not those that were graded, or have UIDs that are not
            valid or not unique.
    """
    if SOP_UID_SHARED in report.result.warnings:
        raise CannotReport(
            "Images share a SOP Instance UID, so that a presentation state could mark the wrong one.",
            "Export the scanner's original images, and grade them.",
        )
    images = check_images(report)
    sagittal = [
        _on_sagittal(images.sagittal[level.level], level)
        for level in report.result.levels
        if level.level in images.sagittal and level.point is not None
    ]
    axial = [
        _on_axial(images.axial[level.level], level)
        for level in report.result.levels
        if level.level in images.axial and level.cord is not None
    ]
    states = [("sagittal", group) for group in _by_series(sagittal)]
    states += [("axial", group) for group in _by_series(axial)]
    if not states:
        return {}
    series = _series(report, states[0][1][0].image.dataset)
    encoder = SeriesEncoder(series)
    return {
        f"gsps/{number:03}_{plane}.dcm": encoder.encode(
            _state(report, group, plane, new_instance(series, number))
        )
        for number, (plane, group) in enumerate(states, 1)
    }


def _series(report: StudyReport, source: Dataset) -> Dataset:
    series = new_series(report, source, _SOP_CLASS, "gsps")
    series.Modality = "PR"
    series.SeriesNumber = _SERIES_NUMBER
    series.SeriesDescription = series_description("Cervical stenosis marks", report.provenance)
    series.ContentCreatorName = None
    series.PresentationCreationDate, series.PresentationCreationTime = _created(report.provenance)
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = _LAYER, 1
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = 0xFFFF
    series.GraphicLayerSequence = [layer]
    return series


def _on_sagittal(image: ReportImage, level: LevelResult) -> _Annotation:
    return _Annotation(image, (np.array([level.point]),), finding(level))


def _on_axial(image: ReportImage, level: LevelResult) -> _Annotation:
    assert level.cord is not None
    points = np.array(level.cord.points)
    lines = (points[:2], points[2:], *points[:, None])
    text = (
        f"{level.level}: AP {level.cord.ap_mm:.1f} mm, transverse {level.cord.transverse_mm:.1f} mm, "
        f"ratio {level.cord.compression_ratio:.2f}"
    )
    return _Annotation(image, lines, text)


def _by_series(annotations: Sequence[_Annotation]) -> list[list[_Annotation]]:
    groups: dict[tuple[str, str], list[_Annotation]] = {}
    for item in annotations:
        # A presentation state inverts all of its images or none.
        key = required_uid(item.image.dataset, "SeriesInstanceUID"), _presentation_shape(item.image.dataset)
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _state(report: StudyReport, annotations: Sequence[_Annotation], plane: str, dataset: Dataset) -> Dataset:
    """Complete the data set of one presentation state."""
    images = distinct_images(item.image for item in annotations)
    source = images[0].dataset
    dataset.ContentLabel = f"STENOSIS_{dataset.InstanceNumber}"
    dataset.ContentDescription = f"Cervical stenosis, {plane}"
    series = Dataset()
    series.SeriesInstanceUID = required_uid(source, "SeriesInstanceUID")
    series.ReferencedImageSequence = _references(images)
    dataset.ReferencedSeriesSequence = [series]
    dataset.DisplayedAreaSelectionSequence = _displayed_areas(images)
    dataset.GraphicAnnotationSequence = [_graphics(item) for item in annotations]
    if not report.provenance.clinical_use:
        dataset.GraphicAnnotationSequence.append(_not_for_clinical_use())
    if "RescaleSlope" in source and "RescaleIntercept" in source:
        dataset.RescaleIntercept, dataset.RescaleSlope = source.RescaleIntercept, source.RescaleSlope
        dataset.RescaleType = source.get("RescaleType") or "US"
    dataset.PresentationLUTShape = _presentation_shape(source)
    return dataset


def _references(images: Sequence[ReportImage]) -> list[Dataset]:
    """Return one item an object; the frames of a multi-frame object stand in one item."""
    items: dict[str, Dataset] = {}
    for image in images:
        item = items.setdefault(image.frame.sop_instance_uid, image_reference(image))
        number = image.frame.frame_number
        if number is not None:
            before = item.ReferencedFrameNumber
            numbers = [int(x) for x in (before if isinstance(before, Sequence) else [before])]
            item.ReferencedFrameNumber = sorted({*numbers, number})
    return list(items.values())


def _displayed_areas(images: Sequence[ReportImage]) -> list[Dataset]:
    """Return the whole area of each size of image, to be fitted to the window."""
    sizes: dict[tuple[int, int, float, float], list[ReportImage]] = {}
    for image in images:
        pose = image.pose
        sizes.setdefault((pose.columns, pose.rows, pose.row_spacing, pose.column_spacing), []).append(image)
    areas = []
    for (columns, rows, row_spacing, column_spacing), of_size in sizes.items():
        area = Dataset()
        area.ReferencedImageSequence = _references(of_size)
        area.DisplayedAreaTopLeftHandCorner = [1, 1]
        area.DisplayedAreaBottomRightHandCorner = [columns, rows]
        area.PresentationSizeMode = "SCALE TO FIT"
        area.PresentationPixelSpacing = [f"{row_spacing:.8g}", f"{column_spacing:.8g}"]
        areas.append(area)
    return areas


def _graphics(annotation: _Annotation) -> Dataset:
    pose = annotation.image.pose
    item = Dataset()
    item.ReferencedImageSequence = [image_reference(annotation.image)]
    item.GraphicLayer = _LAYER
    item.GraphicObjectSequence = []
    for points in annotation.polylines:
        # The corner of the first pixel is (0, 0) here (PS3.3, C.10.5.1.2), and its centre (0.5, 0.5).
        pixels = pose.to_pixels(points)[:, :2] + 0.5
        graphic = Dataset()
        graphic.GraphicAnnotationUnits = "PIXEL"
        graphic.GraphicDimensions = 2
        graphic.NumberOfGraphicPoints = len(pixels)
        graphic.GraphicData = [float(value) for value in pixels.ravel()]
        graphic.GraphicType = "POLYLINE" if len(pixels) > 1 else "POINT"
        if len(pixels) > 1:
            graphic.GraphicFilled = "N"
        item.GraphicObjectSequence.append(graphic)
    text = Dataset()
    text.AnchorPointAnnotationUnits = "PIXEL"
    text.UnformattedTextValue = annotation.text
    anchor = pose.to_pixels(annotation.polylines[0][-1])[:2] + 0.5
    text.AnchorPoint = [float(value) for value in anchor]
    text.AnchorPointVisibility = "N"
    item.TextObjectSequence = [text]
    return item


def _not_for_clinical_use() -> Dataset:
    """A text at the lower edge of the window, on every image."""
    text = Dataset()
    text.BoundingBoxAnnotationUnits = "DISPLAY"
    text.UnformattedTextValue = NOT_FOR_CLINICAL_USE
    text.BoundingBoxTopLeftHandCorner = [0.02, 0.93]
    text.BoundingBoxBottomRightHandCorner = [0.4, 0.98]
    text.BoundingBoxTextHorizontalJustification = "LEFT"
    item = Dataset()
    item.GraphicLayer = _LAYER
    item.TextObjectSequence = [text]
    return item


def _presentation_shape(source: Dataset) -> str:
    return "INVERSE" if source.get("PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"


def _created(provenance: Provenance) -> tuple[str, str]:
    """Return date and time at which the run began, UTC."""
    started = datetime.fromisoformat(provenance.started.replace("Z", "+00:00")).astimezone(timezone.utc)
    return started.strftime("%Y%m%d"), started.strftime("%H%M%S")
