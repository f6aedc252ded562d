"""What the pictures as DICOM objects have in common: patient, study, equipment, references, encoding."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

from stenosis_trt.engine.reports.dicom.contributing_equipment import MANUFACTURER, contributing_equipment
from stenosis_trt.engine.reports.dicom.dicom_text import long_string
from stenosis_trt.engine.reports.dicom.patient_study import patient_and_study, required_uid
from stenosis_trt.engine.reports.dicom.report_uids import derived_uid, report_uid
from stenosis_trt.engine.reports.study_report import Provenance, ReportImage, StudyReport

_PIXEL_DATA = (0x7FE0, 0x0010)


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
    """Return the attributes that distinguish instance `number` of a series, from 1: its number and UID."""
    dataset = Dataset()
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


class SeriesEncoder:
    """Encodes the objects of a series as files, Explicit VR Little Endian, without compression.

    What the objects have in common is encoded once: that takes pydicom most of the time of a small object.

    Args:
        series: attributes that all objects have, with their character set, SOP class and UIDs.
    """

    def __init__(self, series: Dataset) -> None:
        self._sop_class_uid = series.SOPClassUID
        self._encodings = convert_encodings(series.SpecificCharacterSet)
        self._common = self._elements(series)

    def encode(self, instance: Dataset, pixels: npt.NDArray[np.uint8] | None = None) -> bytes:
        """Return the file of an object.

        Args:
            instance: its own attributes, without pixels.
            pixels: samples of eight bits; None for an object that is no image.
        """
        elements = {**self._common, **self._elements(instance)}
        content: list[bytes | memoryview] = [elements[tag] for tag in sorted(elements)]
        if pixels is not None:
            padding = b"\0" * (pixels.size % 2)
            # No attribute of an image has a higher tag.
            content.append(struct.pack("<HH2s2xI", *_PIXEL_DATA, b"OB", pixels.size + len(padding)))
            content += [np.ascontiguousarray(pixels).data, padding]
        return b"".join([b"\0" * 128, b"DICM", self._meta(instance.SOPInstanceUID), *content])

    def _meta(self, sop_instance_uid: str) -> bytes:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = self._sop_class_uid
        meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        stream = _stream()
        write_file_meta_info(stream, meta)
        return stream.getvalue()

    def _elements(self, dataset: Dataset) -> dict[int, bytes]:
        encoded = {}
        for element in dataset:
            stream = _stream()
            write_data_element(stream, element, self._encodings)
            encoded[int(element.tag)] = stream.getvalue()
        return encoded


def _stream() -> DicomBytesIO:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    return stream
