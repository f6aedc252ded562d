"""Header of one file: its study and series, and the pose and contrast of each frame.

Everything before the pixel data is read, under limits. Classic objects (one image a file) and enhanced
multi-frame objects give the same records.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydicom.uid import UID, MediaStorageDirectoryStorage

from stenosis_trt.engine.dicom.elements import FIRST_PIXEL_TAG, Elements, tag_table
from stenosis_trt.engine.dicom.errors import DicomError, header_error
from stenosis_trt.engine.dicom.frames import FRAME_KEYWORDS, Frame, VolumeKey
from stenosis_trt.engine.dicom.layout import LAYOUT_KEYWORDS, PixelLayout, is_lossy, no_image, pixel_layout
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.part10 import Part10, open_part10
from stenosis_trt.engine.dicom.patient_identity import PATIENT_KEYWORDS, PatientIdentity, read_patient
from stenosis_trt.engine.dicom.uids import stated_uid
from stenosis_trt.engine.records import MR_IMAGE_CLASSES, Contrast, FrameHeader

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
    """One frame of a file, with its volume key and contrast."""

    header: FrameHeader
    volume: VolumeKey
    contrast: Contrast


@dataclass(frozen=True)
class FileHeader:
    """Header of one file, before files are grouped into series."""

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
    """Read the header of a file.

    Args:
        path: the file.
        limits: limits of reading.
        identity_key: key of the digests in `patient`; by default a random one of this process.

    Raises:
        DicomError: the file cannot be used.
        OSError: the file cannot be read.
    """
    with open_part10(path, limits) as part:
        elements = part.elements(_WANTED, FIRST_PIXEL_TAG)
        try:
            return _file_header(path, part, elements, limits, identity_key)
        except DicomError as error:
            if not error.harmless:
                error.study_uid = stated_uid(elements.text("StudyInstanceUID"))
            raise


def _file_header(
    path: Path, part: Part10, elements: Elements, limits: ReadLimits, identity_key: bytes | None
) -> FileHeader:
    if not elements.values.keys() >= {"Rows", "Columns"}:
        raise _not_an_image(part, elements)
    layout = pixel_layout(part, elements, limits)
    uids = [stated_uid(elements.text(keyword)) for keyword in _UIDS]
    for keyword, uid in zip(_UIDS, uids, strict=True):
        if not uid:
            raise header_error(f"The header has no {keyword}.")
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
        frame_of_reference_uid=stated_uid(elements.text("FrameOfReferenceUID")),
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


def _modality(stated: str, sop_class: str) -> str:
    """Return the modality: MR if the SOP class says so and the element is absent or odd (" mr", "MRI")."""
    stated = stated.upper()
    return "MR" if sop_class in MR_IMAGE_CLASSES and (not stated or stated.startswith("MR")) else stated


def _not_an_image(part: Part10, elements: Elements) -> DicomError:
    """Return the error of a file without image: another kind of object, or a truncated header."""
    sop_class = part.sop_class or elements.text("SOPClassUID")
    if sop_class == MediaStorageDirectoryStorage:
        advice = "Give the DICOMDIR by itself, or the folder that holds its files."
        return header_error("The file is a DICOMDIR, which holds no image itself.", advice, harmless=True)
    if UID(sop_class).keyword.endswith("ImageStorage"):
        return header_error("The file is an image by its class, but its header is cut off or lacks its size.")
    # Modality is a code, but a broken file may hold anything there.
    modality = "".join(c for c in elements.text("Modality") if c.isalnum())[:16] or "unknown"
    reason = f"The file holds no image (modality {modality})."
    return header_error(reason, "Nothing to do: it is skipped.", harmless=True)


def _frames(
    path: Path, uid: str, sop_class: str, elements: Elements, layout: PixelLayout
) -> tuple[FoundFrame, ...]:
    told = len(elements.items("PerFrameFunctionalGroupsSequence"))
    if told != layout.frames and (told or layout.frames > 1):
        reason = f"The file has {layout.frames} frames, but its header gives positions for {told}."
        raise no_image(sop_class, reason, "Export the scanner's original images.")
    # Most frames share key and contrast: keep one instance of each, to save memory in large scans.
    volumes: dict[VolumeKey, VolumeKey] = {}
    contrasts: dict[Contrast, Contrast] = {}
    found = []
    for index in range(layout.frames):
        frame = Frame(elements, index)
        pose = frame.pose(layout)
        if pose is None:
            raise no_image(sop_class, *frame.missing_geometry())
        # An object with functional groups is multi-frame by its class, even with a single frame.
        number = index + 1 if told else None
        header = FrameHeader(path, index, uid, pose, *frame.rescale(layout.inverted), frame_number=number)
        volume, contrast = frame.volume_key(), frame.contrast()
        found.append(
            FoundFrame(header, volumes.setdefault(volume, volume), contrasts.setdefault(contrast, contrast))
        )
    return tuple(found)
