"""What the pictures as DICOM objects have in common: patient, study, equipment, references, encoding."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from stenosis_trt.engine.reports.contributing_equipment import MANUFACTURER, contributing_equipment
from stenosis_trt.engine.reports.dicom_text import long_string
from stenosis_trt.engine.reports.patient_study import patient_and_study, required_uid
from stenosis_trt.engine.reports.report_uids import derived_uid, report_uid
from stenosis_trt.engine.reports.study_report import Provenance, ReportImage, StudyReport


def new_series(report: StudyReport, source: Dataset, sop_class_uid: str, *parts: str) -> Dataset:
    """Return what all objects of a new series have in common: patient and study of an image, and the UIDs.

    Args:
        report: the study.
        source: attributes of one of its images.
        sop_class_uid: SOP class of the objects.
        parts: what distinguishes the series from others of the report, such as "sc".

    Raises:
        CannotReport: a UID or the PatientID of the image is not one that can be written.
    """
    dataset = patient_and_study(source)
    dataset.SOPClassUID = sop_class_uid
    dataset.SeriesInstanceUID = report_uid(report, *parts)
    dataset.BodyPartExamined = "CSPINE"
    equipment = contributing_equipment(report.provenance)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = equipment.ManufacturerModelName
    dataset.SoftwareVersions = equipment.SoftwareVersions
    dataset.DeviceSerialNumber = equipment.DeviceSerialNumber
    dataset.ContributingEquipmentSequence = [equipment]
    return dataset


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
    """Return an item that refers to an image, and to its frame in a multi-frame object (PS3.3, 10.3).

    Raises:
        CannotReport: a UID of the image is not valid.
    """
    item = Dataset()
    item.ReferencedSOPClassUID = required_uid(image.dataset, "SOPClassUID")
    item.ReferencedSOPInstanceUID = required_uid(image.dataset, "SOPInstanceUID")
    if image.frame.frame_number is not None:
        item.ReferencedFrameNumber = image.frame.frame_number
    return item


def distinct_images(images: Iterable[ReportImage]) -> list[ReportImage]:
    """Return the images, each object and frame once."""
    return list({(x.frame.sop_instance_uid, x.frame.frame_number): x for x in images}.values())


def encode(dataset: Dataset) -> bytes:
    """Encode an object as a file, Explicit VR Little Endian, without compression."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    with disable_value_validation():
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
