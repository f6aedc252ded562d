"""Header of one file: its study and series, and the pose and contrast of each frame.

Everything before the pixel data is read, under limits. Classic objects (one image a file) and enhanced
multi-frame objects give the same records.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from stenosis_trt.engine.dicom.elements import FIRST_PIXEL_TAG, Elements
from stenosis_trt.engine.dicom.errors import DicomError, header_error
from stenosis_trt.engine.dicom.frames import FRAME_KEYWORDS, OWN_TIME_KEYWORDS, Frame, VolumeKey
from stenosis_trt.engine.dicom.layout import (
    LAYOUT_KEYWORDS,
    PixelLayout,
    check_pixel_data,
    no_image,
    pixel_layout,
)
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.part10 import Part10, open_part10
from stenosis_trt.engine.dicom.patient_identity import PATIENT_KEYWORDS, PatientIdentity, read_patient
from stenosis_trt.engine.dicom.tags import tag_table
from stenosis_trt.engine.dicom.transfer_syntaxes import is_lossy
from stenosis_trt.engine.dicom.uids import DICOMDIR_CLASS, class_keyword, stated_uid
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


_OWN = (*OWN_TIME_KEYWORDS, "SOPInstanceUID", "ImagePositionPatient")
"""Elements in which the files of a series differ as a rule; the times come first."""
_OWN_TIMES = len(OWN_TIME_KEYWORDS)
_MAX_KEPT_SERIES = 256
"""Series whose attributes are kept. Files are read folder by folder, so that few are needed at once."""
_MAX_KEPT_BYTES = 1 << 14
"""Length of the elements of a series that is kept. A broken file may have any."""


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


class _Known(NamedTuple):
    """A header, the size of its decoded image and the raw values of its times."""

    header: FileHeader
    image_bytes: int
    times: tuple[tuple[bytes, bytes] | None, ...]


def read_header(path: Path, limits: ReadLimits, identity_key: bytes | None = None) -> FileHeader:
    """Read the header of one file; see `HeaderReader`."""
    return HeaderReader(limits, identity_key).read(path)


class HeaderReader:
    """Reads headers of files.

    The files of a series differ in few elements. What follows from the others is derived once, and kept for
    the next files of the series.

    Args:
        limits: limits of reading.
        identity_key: key of the digests in `patient`; by default a random one of this process.
    """

    def __init__(self, limits: ReadLimits, identity_key: bytes | None = None) -> None:
        self._limits, self._identity_key = limits, identity_key
        self._series: dict[Hashable, _Known] = {}

    def read(self, path: Path) -> FileHeader:
        """Read the header of a file.

        Raises:
            DicomError: the file cannot be used.
            OSError: the file cannot be read.
        """
        with open_part10(path, self._limits) as part:
            elements = part.elements(_WANTED, FIRST_PIXEL_TAG)
            try:
                return self._of_series(path, part, elements)
            except DicomError as error:
                if not error.harmless:
                    error.study_uid = stated_uid(elements.text("StudyInstanceUID"))
                raise

    @property
    def kept_series(self) -> int:
        """Number of series whose attributes are kept."""
        return len(self._series)

    def _of_series(self, path: Path, part: Part10, elements: Elements) -> FileHeader:
        if elements.sequences or elements.comma_decimals:
            # A sequence may describe many frames, and all decimal strings decide what their commas are.
            return _file_header(path, part, elements, self._limits, self._identity_key)[0]
        shared = elements.values.copy()
        own = tuple(shared.pop(keyword, None) for keyword in _OWN)
        key = part.transfer_syntax, part.sop_class, elements.byte_order, tuple(shared.items())
        known = self._series.get(key)
        if known is None:
            header, layout = _file_header(path, part, elements, self._limits, self._identity_key)
            if sum(len(raw) for _, raw in shared.values()) <= _MAX_KEPT_BYTES:
                if len(self._series) >= _MAX_KEPT_SERIES:
                    self._series.clear()
                self._series[key] = _Known(header, layout.image_bytes, own[:_OWN_TIMES])
            return header
        return (
            _header_like(known, own[:_OWN_TIMES] == known.times, path, part, elements)
            or _file_header(path, part, elements, self._limits, self._identity_key)[0]
        )


def _header_like(
    known: _Known, same_times: bool, path: Path, part: Part10, elements: Elements
) -> FileHeader | None:
    """Return the header of a single-frame file that differs from a known one only in the elements in _OWN.

    Returns:
        None if the file has no usable UID or position: `_file_header` raises the reason.

    Raises:
        DicomError: the pixel data are missing or truncated.
    """
    frame = Frame(elements, 0)
    uid, origin = stated_uid(elements.text("SOPInstanceUID")), frame.origin()
    ((like, volume, contrast),) = known.header.frames
    if not uid or origin is None or like.pose is None:
        return None
    check_pixel_data(part, elements.stopped_at, known.image_bytes)
    header = FrameHeader(path, 0, uid, replace(like.pose, origin=origin), like.slope, like.intercept)
    found = FoundFrame(header, volume if same_times else frame.with_own_times(volume), contrast)
    return replace(known.header, sop_instance_uid=uid, path=path, frames=(found,))


def _file_header(
    path: Path, part: Part10, elements: Elements, limits: ReadLimits, identity_key: bytes | None
) -> tuple[FileHeader, PixelLayout]:
    if not elements.values.keys() >= {"Rows", "Columns"}:
        raise _not_an_image(part, elements)
    layout = pixel_layout(part, elements, limits)
    uids = [stated_uid(elements.text(keyword)) for keyword in _UIDS]
    for keyword, uid in zip(_UIDS, uids, strict=True):
        if not uid:
            raise header_error(f"The header has no {keyword}.")
    sop_class = elements.text("SOPClassUID")
    number = elements.number("SeriesNumber")
    header = FileHeader(
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
    return header, layout


def _modality(stated: str, sop_class: str) -> str:
    """Return the modality: MR if the SOP class says so and the element is absent or odd (" mr", "MRI")."""
    stated = stated.upper()
    return "MR" if sop_class in MR_IMAGE_CLASSES and (not stated or stated.startswith("MR")) else stated


def _not_an_image(part: Part10, elements: Elements) -> DicomError:
    """Return the error of a file without image: another kind of object, or a truncated header."""
    sop_class = part.sop_class or elements.text("SOPClassUID")
    if sop_class == DICOMDIR_CLASS:
        advice = "Give the DICOMDIR by itself, or the folder that holds its files."
        return header_error("The file is a DICOMDIR, which holds no image itself.", advice, harmless=True)
    if class_keyword(sop_class).endswith("ImageStorage"):
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
