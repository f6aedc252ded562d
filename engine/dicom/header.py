"""One file's header: what series it belongs to, and where each of its frames lies.

Everything before the pixels is read, under limits; the pixels stay on disk. Both classic objects (one
image a file) and enhanced multi-frame objects come out as the same records.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydicom.uid import UID, MediaStorageDirectoryStorage

from stenosis_trt.engine.dicom.bare import is_uid
from stenosis_trt.engine.dicom.elements import FIRST_PIXEL_TAG, Elements, tag_table
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.frames import FRAME_KEYWORDS, Frame, VolumeKey
from stenosis_trt.engine.dicom.layout import (
    LAYOUT_KEYWORDS,
    MR_CLASSES,
    PixelLayout,
    is_lossy,
    no_image,
    pixel_layout,
)
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.missing_geometry import missing_geometry
from stenosis_trt.engine.dicom.part10 import Part10, open_part10
from stenosis_trt.engine.dicom.patient_identity import PATIENT_KEYWORDS, PatientIdentity, read_patient
from stenosis_trt.engine.dicom.uids import safe_uid
from stenosis_trt.engine.records import Contrast, FrameHeader, Stage

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_WANTED = tag_table(
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
        *PATIENT_KEYWORDS,
        "LossyImageCompression",
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
    acquisition_2d: bool
    manufacturer: str
    patient_id: str
    patient: PatientIdentity
    series_number: int | None
    lossy: bool = False


def read_header(path: Path, limits: ReadLimits, identity_key: bytes | None = None) -> FileHeader:
    """Read what one file says about itself.

    Args:
        path: the file.
        limits: of reading.
        identity_key: of the digests in `patient`; None for one that is drawn for this process.

    Raises:
        DicomError: the file cannot be used, with the reason and what to do.
        OSError: the file cannot be read.
    """
    with open_part10(path, limits) as part:
        elements = part.elements(_WANTED, FIRST_PIXEL_TAG)
        try:
            return _file_header(path, part, elements, limits, identity_key)
        except DicomError as error:
            if not error.harmless:
                error.study_uid = _uid(elements, "StudyInstanceUID")
            raise


def _file_header(
    path: Path, part: Part10, elements: Elements, limits: ReadLimits, identity_key: bytes | None
) -> FileHeader:
    if not elements.values.keys() >= {"Rows", "Columns"}:
        raise _not_an_image(part, elements)
    layout = pixel_layout(part, elements, limits)
    uids = [_uid(elements, keyword) for keyword in _UIDS]
    for keyword, uid in zip(_UIDS, uids, strict=True):
        if not uid:
            raise _error(f"The header has no {keyword}.")
    sop_class = elements.text("SOPClassUID")
    number = elements.number("SeriesNumber")
    return FileHeader(
        study_uid=uids[0],
        series_uid=uids[1],
        sop_instance_uid=uids[2],
        modality=_modality(elements.text("Modality"), sop_class or part.sop_class),
        sop_class_uid=sop_class,
        path=path,
        frames=_frames(path, uids[2], part.sop_class, elements, layout),
        frame_of_reference_uid=_uid(elements, "FrameOfReferenceUID"),
        description=elements.text("SeriesDescription"),
        protocol=elements.text("ProtocolName"),
        body_part=elements.text("BodyPartExamined") or Frame(elements, 0).anatomy(),
        acquisition_3d=elements.text("MRAcquisitionType") == "3D",
        acquisition_2d=elements.text("MRAcquisitionType") == "2D",
        manufacturer=elements.text("Manufacturer"),
        patient_id=elements.text("PatientID"),
        patient=read_patient(elements, identity_key),
        series_number=int(number) if number is not None else None,
        lossy=is_lossy(part.transfer_syntax, elements.text("LossyImageCompression")),
    )


def _uid(elements: Elements, keyword: str) -> str:
    """A UID that is safe to write. What made decimal commas of all points of a file made them of its UIDs'
    too."""
    text = elements.text(keyword)
    if "," in text and is_uid(text.replace(",", ".")):
        return text.replace(",", ".")
    return safe_uid(text)


def _modality(stated: str, sop_class: str) -> str:
    """The modality; MR where the SOP class says so and the element is absent or odd (" mr", "MRI")."""
    stated = stated.upper()
    return "MR" if sop_class in MR_CLASSES and (not stated or stated.startswith("MR")) else stated


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


def _frames(
    path: Path, uid: str, sop_class: str, elements: Elements, layout: PixelLayout
) -> tuple[FoundFrame, ...]:
    told = len(elements.items("PerFrameFunctionalGroupsSequence"))
    if told != layout.frames and (told or layout.frames > 1):
        reason = f"The file has {layout.frames} frames, but its header says of {told} where they lie."
        raise no_image(sop_class, reason, "Export the scanner's original images.")
    # Most frames share key and contrast; each is kept once, so that a scan of many files stays small.
    volumes: dict[VolumeKey, VolumeKey] = {}
    contrasts: dict[Contrast, Contrast] = {}
    found = []
    for index in range(layout.frames):
        frame = Frame(elements, index)
        pose = frame.pose(layout)
        if pose is None:
            raise no_image(sop_class, *missing_geometry(frame))
        # An object with functional groups is multi-frame by its class, also where it has a single frame.
        number = index + 1 if told else None
        header = FrameHeader(path, index, uid, pose, *frame.rescale(layout.inverted), frame_number=number)
        volume, contrast = frame.volume_key(), frame.contrast()
        found.append(
            FoundFrame(header, volumes.setdefault(volume, volume), contrasts.setdefault(contrast, contrast))
        )
    return tuple(found)
