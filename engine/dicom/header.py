"""One file's header: what series it belongs to, and where each of its frames lies.

Everything before the pixels is read, under limits; the pixels stay on disk. Both classic objects (one
image a file) and enhanced multi-frame objects come out as the same records.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydicom.uid import UID, MediaStorageDirectoryStorage

from stenosis_trt.engine.dicom.elements import FIRST_PIXEL_TAG, Elements, vocabulary
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.frames import FRAME_KEYWORDS, Frame, VolumeKey
from stenosis_trt.engine.dicom.layout import LAYOUT_KEYWORDS, PixelLayout, no_image, pixel_layout
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.part10 import Part10, open_part10
from stenosis_trt.engine.dicom.uids import safe_uid
from stenosis_trt.engine.records import Contrast, FrameHeader, Stage

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_WANTED = vocabulary(
    [
        *_UIDS,
        *LAYOUT_KEYWORDS,
        *FRAME_KEYWORDS,
        "SpecificCharacterSet",
        "SOPClassUID",
        "Modality",
        "FrameOfReferenceUID",
        "SeriesDescription",
        "SeriesNumber",
        "ProtocolName",
        "BodyPartExamined",
        "MRAcquisitionType",
        "Manufacturer",
        "PatientID",
    ]
)


class FoundFrame(NamedTuple):
    """One frame of a file, with what tells its volume apart and its contrast."""

    header: FrameHeader
    volume: VolumeKey
    contrast: Contrast


@dataclass(frozen=True)
class FileHeader:
    """What one file says, before files are joined to series."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    modality: str
    sop_class_uid: str
    path: Path
    frames: tuple[FoundFrame, ...]
    frame_of_reference_uid: str
    description: str
    protocol: str
    body_part: str
    acquisition_3d: bool
    manufacturer: str
    patient_id: str
    series_number: int | None


def read_header(path: Path, limits: ReadLimits) -> FileHeader:
    """Read what one file says about itself.

    Raises:
        DicomError: the file cannot be used, with the reason and what to do.
        OSError: the file cannot be read.
    """
    with open_part10(path, limits) as part:
        elements = part.elements(_WANTED, FIRST_PIXEL_TAG)
        try:
            return _file_header(path, part, elements, limits)
        except DicomError as error:
            if not error.harmless:
                error.study_uid = safe_uid(elements.text("StudyInstanceUID"))
            raise


def _file_header(path: Path, part: Part10, elements: Elements, limits: ReadLimits) -> FileHeader:
    if not elements.values.keys() >= {"Rows", "Columns"}:
        raise _not_an_image(part, elements)
    layout = pixel_layout(part, elements, limits)
    for keyword in _UIDS:
        if not elements.text(keyword):
            raise _error(f"The header has no {keyword}.")
    number = elements.number("SeriesNumber")
    return FileHeader(
        study_uid=safe_uid(elements.text("StudyInstanceUID")),
        series_uid=safe_uid(elements.text("SeriesInstanceUID")),
        sop_instance_uid=safe_uid(elements.text("SOPInstanceUID")),
        modality=elements.text("Modality"),
        sop_class_uid=elements.text("SOPClassUID"),
        path=path,
        frames=_frames(path, part.sop_class, elements, layout),
        frame_of_reference_uid=elements.text("FrameOfReferenceUID"),
        description=elements.text("SeriesDescription"),
        protocol=elements.text("ProtocolName"),
        body_part=elements.text("BodyPartExamined") or Frame(elements, 0).anatomy(),
        acquisition_3d=elements.text("MRAcquisitionType") == "3D",
        manufacturer=elements.text("Manufacturer"),
        patient_id=elements.text("PatientID"),
        series_number=int(number) if number is not None else None,
    )


def _error(reason: str) -> DicomError:
    return DicomError(Stage.HEADER, reason, "Send or export the file again.")


def _not_an_image(part: Part10, elements: Elements) -> DicomError:
    """Why there is no image: the object is of another kind, or its header was cut off."""
    sop_class = part.sop_class or elements.text("SOPClassUID")
    if sop_class == MediaStorageDirectoryStorage:
        advice = "Give the DICOMDIR by itself, or the folder that holds its files."
        return DicomError(
            Stage.HEADER, "The file is a DICOMDIR, which holds no image itself.", advice, harmless=True
        )
    if UID(sop_class).keyword.endswith("ImageStorage"):
        return _error("The file is an image by its class, but its header is cut off or lacks its size.")
    # A code, which cannot name a patient; but whatever is printed is made fit for it.
    modality = "".join(c for c in elements.text("Modality") if c.isalnum())[:16] or "unknown"
    reason = f"The file holds no image (modality {modality})."
    return DicomError(Stage.HEADER, reason, "Nothing to do: it is skipped.", harmless=True)


def _frames(path: Path, sop_class: str, elements: Elements, layout: PixelLayout) -> tuple[FoundFrame, ...]:
    told = len(elements.items("PerFrameFunctionalGroupsSequence"))
    if told != layout.frames and (told or layout.frames > 1):
        reason = f"The file has {layout.frames} frames, but its header says of {told} where they lie."
        raise no_image(sop_class, reason, "Export the scanner's original images.")
    uid = safe_uid(elements.text("SOPInstanceUID"))
    # Most frames share key and contrast; each is kept once, so that a scan of many files stays small.
    volumes: dict[VolumeKey, VolumeKey] = {}
    contrasts: dict[Contrast, Contrast] = {}
    found = []
    for index in range(layout.frames):
        frame = Frame(elements, index)
        pose = frame.pose(layout)
        if pose is None:
            reason = "The header lacks a usable position, orientation or pixel spacing."
            raise no_image(
                sop_class, reason, "Export the scanner's original images, not copies of the screen."
            )
        # An object with functional groups is multi-frame by its class, also where it has a single frame.
        number = index + 1 if told else None
        header = FrameHeader(path, index, uid, pose, *frame.rescale(layout.inverted), frame_number=number)
        volume, contrast = frame.volume_key(), frame.contrast()
        found.append(
            FoundFrame(header, volumes.setdefault(volume, volume), contrasts.setdefault(contrast, contrast))
        )
    return tuple(found)
