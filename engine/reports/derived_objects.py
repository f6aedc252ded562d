"""What DICOM objects made from images have in common: patient, study, equipment, references, encoding.

Names, identifiers and dates of the patient and the study are those of the image, as DICOM requires of an
object in the same study. They are copied, never read or drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from pydicom import DataElement, Dataset
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from stenosis_trt.engine.reports.contributing_equipment import MANUFACTURER, contributing_equipment
from stenosis_trt.engine.reports.dicom_text import long_string
from stenosis_trt.engine.reports.report_uids import derived_uid, report_uid
from stenosis_trt.engine.reports.study_report import Provenance, ReportImage, StudyReport

_REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Attributes of type 2 of patient and study (PS3.3, C.7.1.1 and C.7.2.1): empty where the image has none."""
_OPTIONAL = (
    "IssuerOfPatientID",
    "PatientBirthTime",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "TimezoneOffsetFromUTC",
)


def new_series(report: StudyReport, source: Dataset, sop_class_uid: str, *parts: str) -> Dataset:
    """Return what all objects of a new series have in common: patient and study of an image, and the UIDs.

    Args:
        report: the study.
        source: attributes of one of its images.
        sop_class_uid: SOP class of the objects.
        parts: what distinguishes the series from others of the report, such as "sc".

    Returns:
        A data set in the character set UTF-8, which any name of a pack can be written in.
    """
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class_uid
    # A warning about an invalid value would print the value, which may be a name.
    with disable_value_validation():
        for keyword in (*_REQUIRED, *_OPTIONAL):
            if keyword in source:
                dataset[keyword] = _decoded(source[keyword])
            elif keyword in _REQUIRED:
                setattr(dataset, keyword, None)
    dataset.StudyInstanceUID = source.StudyInstanceUID
    dataset.SeriesInstanceUID = report_uid(report, *parts)
    dataset.BodyPartExamined = "CSPINE"
    equipment = contributing_equipment(report.provenance)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = equipment.ManufacturerModelName
    dataset.SoftwareVersions = equipment.SoftwareVersions
    dataset.DeviceSerialNumber = equipment.DeviceSerialNumber
    dataset.ContributingEquipmentSequence = [equipment]
    return dataset


def _decoded(element: DataElement) -> DataElement:
    """Return an element whose texts are decoded, also in items, so that they can be written as UTF-8."""
    if element.VR != "SQ":
        return element
    items = []
    for item in element.value:
        decoded = Dataset()
        for inner in item:
            # The character set of an item is that of the whole object from now on.
            if inner.keyword != "SpecificCharacterSet":
                decoded[inner.tag] = _decoded(inner)
        items.append(decoded)
    return DataElement(element.tag, "SQ", items)


def new_instance(series: Dataset, number: int) -> Dataset:
    """Return a data set with the attributes of a series, and the UID of its instance `number`, from 1."""
    dataset = Dataset()
    dataset.update(series)
    dataset.InstanceNumber = number
    dataset.SOPInstanceUID = derived_uid(series.SeriesInstanceUID, str(number))
    return dataset


def series_description(words: str, provenance: Provenance) -> str:
    """Return a series description that says so if the results are not for clinical use."""
    return long_string(words if provenance.clinical_use else f"{words}, not for clinical use")


def image_reference(image: ReportImage) -> Dataset:
    """Return an item that refers to an image, and to its frame in a multi-frame object (PS3.3, 10.3)."""
    item = Dataset()
    item.ReferencedSOPClassUID = image.dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = image.dataset.SOPInstanceUID
    if image.frame.frame_number is not None:
        item.ReferencedFrameNumber = image.frame.frame_number
    return item


def distinct_images(images: Iterable[ReportImage]) -> list[ReportImage]:
    """Return the images, each object and frame once."""
    return list({(str(x.dataset.SOPInstanceUID), x.frame.frame_number): x for x in images}.values())


def encode(dataset: Dataset) -> bytes:
    """Encode an object as a file, Explicit VR Little Endian, without compression."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    with disable_value_validation():
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
