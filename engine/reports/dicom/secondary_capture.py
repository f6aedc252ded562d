"""Format `sc`: the pictures of a study as a DICOM series of secondary captures, which every PACS shows.

The pixels are RGB: palette colour would take a third of the space, and several viewers show it as grey or
not at all. The objects name no time of their own, so equal results of equal images give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import Dataset

from stenosis_trt.engine.reports.dicom.derived_objects import (
    SeriesEncoder,
    distinct_images,
    image_reference,
    new_instance,
    new_series,
    series_description,
)
from stenosis_trt.engine.reports.pictures.grade_colours import PALETTE
from stenosis_trt.engine.reports.pictures.pages import Page, pages
from stenosis_trt.engine.reports.study_report import ReportImage, ReportOptions, StudyReport
from stenosis_trt.engine.reports.text.wording import NOT_FOR_CLINICAL_USE, impression, level_sentence

_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture Image Storage."""
_SERIES_NUMBER = 9901
_DERIVATION = (
    "Pictures of sagittal and axial images with computed grades and measurements drawn in: hung by patient "
    "orientation, windowed by percentiles, interpolated to square pixels. Not for measuring."
)
_LONG_TEXT = 10240
"""Characters of the value representation LT (PS3.5, 6.2)."""
_LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")


def make(report: StudyReport, options: ReportOptions) -> dict[str, bytes]:
    """Return `sc/001_summary.dcm`, then `sc/002_C2-3.dcm` and so on for each level that has an image.

    Raises:
        CannotReport: the images are not available, are not those that were graded, or have invalid UIDs.
    """
    drawn = pages(report)
    series = new_series(report, drawn[0].images[0].dataset, _SOP_CLASS, "sc")
    series.Modality = "OT"
    series.SeriesNumber = _SERIES_NUMBER
    series.SeriesDescription = series_description("Cervical stenosis pictures", report.provenance)
    series.ConversionType = "WSD"
    series.ImageType = ["DERIVED", "SECONDARY"]
    series.DerivationDescription = _DERIVATION
    # No text of a header, no date and no UID is drawn, and the face is not in the parts that are shown.
    series.BurnedInAnnotation = "NO"
    series.RecognizableVisualFeatures = "NO"
    series.SamplesPerPixel = 3
    series.PhotometricInterpretation = "RGB"
    series.PlanarConfiguration = 0
    series.BitsAllocated, series.BitsStored, series.HighBit = 8, 8, 7
    series.PixelRepresentation = 0
    encoder = SeriesEncoder(series)
    return {
        f"sc/{number:03}_{page.name}.dcm": encoder.encode(
            _capture(report, page, new_instance(series, number)), PALETTE.take(page.pixels, axis=0)
        )
        for number, page in enumerate(drawn, 1)
    }


def _capture(report: StudyReport, page: Page, dataset: Dataset) -> Dataset:
    """Complete the attributes of one page."""
    shown = distinct_images(page.images)
    dataset.PatientOrientation = None
    dataset.ImageComments = _comments(report, page)[:_LONG_TEXT]
    dataset.SourceImageSequence = [_source(image) for image in shown]
    _copy_lossy_compression(dataset, shown)
    dataset.Rows, dataset.Columns = page.pixels.shape
    return dataset


def _comments(report: StudyReport, page: Page) -> str:
    words = impression(report.result) if page.level is None else [level_sentence(page.level)]
    return " ".join(words if report.provenance.clinical_use else [NOT_FOR_CLINICAL_USE, *words])


def _source(image: ReportImage) -> Dataset:
    purpose = Dataset()
    # CID 7202, Source Image Purposes of Reference.
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item = image_reference(image)
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _copy_lossy_compression(dataset: Dataset, shown: Iterable[ReportImage]) -> None:
    """An image made from one that was compressed with loss says so as well (PS3.3, C.7.6.1.1.5)."""
    dataset.LossyImageCompression = "00"
    for image in shown:
        if image.dataset.get("LossyImageCompression") == "01":
            dataset.LossyImageCompression = "01"
            for keyword in _LOSSY:
                if keyword in image.dataset:
                    dataset[keyword] = image.dataset[keyword]
