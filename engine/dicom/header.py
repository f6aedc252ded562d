"""One file's header: what series it belongs to, and where each of its frames lies.

Everything before the pixels is read, under limits; the pixels stay on disk. Both classic objects (one
image a file) and enhanced multi-frame objects come out as the same records.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import Contrast, FrameHeader, Stage

_PREAMBLE = 128
_MAX_META_BYTES = 1 << 20
_INFLATE_BYTES = 1 << 20
_SQUARE_TOLERANCE = 1e-3
"""How far the two image axes may be from unit length and from square to each other."""

_NOT_DICOM = "Nothing to do if it is not meant to be an image; otherwise export it again as DICOM Part 10."
_EXPORT_AGAIN = "Send or export the file again."


@dataclass(frozen=True)
class FileHeader:
    """What one file says, before files are joined to series. `volume` tells volumes of one series apart."""

    study_uid: str
    series_uid: str
    modality: str
    sop_class_uid: str
    frames: tuple[FrameHeader, ...]
    volume: tuple[tuple[str, ...], ...]
    frame_of_reference_uid: str
    description: str
    protocol: str
    body_part: str
    image_type: tuple[str, ...]
    acquisition_3d: bool
    contrast: Contrast
    manufacturer: str
    patient_id: str


def _error(reason: str, advice: str = _EXPORT_AGAIN) -> DicomError:
    return DicomError(Stage.HEADER, reason, advice)


def _no_image(reason: str, advice: str = "Nothing to do: it is skipped.") -> DicomError:
    return DicomError(Stage.HEADER, reason, advice, harmless=True)


def open_checked(path: Path, limits: ReadLimits) -> io.BufferedReader | io.BytesIO:
    """Open a Part 10 file for pydicom: size, preamble and, for deflated files, the inflated size checked.

    A deflated file is inflated here, up to the limit, and handed on as if it had been explicit little
    endian; pydicom would inflate it whole however large it is.

    Raises:
        DicomError: empty, too large, no preamble, or a deflated stream that is broken or too large.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise _error("The file is empty.", "Copy or export it again.")
    if size > limits.max_file_bytes:
        raise _error(
            f"The file has {size} bytes, over the limit of {limits.max_file_bytes}.", "Raise the limit."
        )
    stream = path.open("rb")
    try:
        start = stream.read(_PREAMBLE + 4)
        if start[_PREAMBLE:] != b"DICM":
            raise _no_image("The file is not DICOM Part 10: it has no DICM mark.", _NOT_DICOM)
        stream.seek(0)
        if DeflatedExplicitVRLittleEndian.encode() in stream.read(_PREAMBLE + 1024):
            return _inflated(stream, limits)
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def _inflated(stream: io.BufferedReader, limits: ReadLimits) -> io.BufferedReader | io.BytesIO:
    # The meta group tells its own length; the deflated dataset begins right behind it.
    stream.seek(_PREAMBLE + 4)
    tag = stream.read(12)
    if tag[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        raise _error("The deflated file does not say how long its meta header is.")
    length = struct.unpack("<L", tag[8:])[0]
    if length > _MAX_META_BYTES:
        raise _error("The file's meta header is longer than any can be.")
    begin = stream.read(length)
    if len(begin) < length:
        raise _error("The file ends within its meta header.")
    meta = pydicom.dcmread(io.BytesIO(b"\0" * _PREAMBLE + b"DICM" + tag + begin)).file_meta
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        return stream
    buffer = io.BytesIO()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    buffer.write(b"\0" * _PREAMBLE + b"DICM")
    pydicom.filewriter.write_file_meta_info(buffer, meta)  # type: ignore[arg-type]
    _inflate(stream, buffer, limits.max_inflated_bytes)
    stream.close()
    buffer.seek(0)
    return buffer


def _inflate(source: io.BufferedReader, target: io.BytesIO, limit: int) -> None:
    """Inflate piece by piece, so that never more than the limit is in memory."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    while not inflater.eof:
        packed = inflater.unconsumed_tail or source.read(_INFLATE_BYTES)
        if not packed:
            raise _error("The deflated dataset ends too early.")
        try:
            piece = inflater.decompress(packed, _INFLATE_BYTES)
        except zlib.error as error:
            raise _error("The deflated dataset is broken.") from error
        total += len(piece)
        if total > limit:
            raise _error(
                f"The deflated dataset is larger than {limit} bytes once inflated.",
                "Raise the limit if the file is trusted.",
            )
        target.write(piece)


def check_size(dataset: Dataset, limits: ReadLimits) -> None:
    """Refuse a file whose pixels would take too much memory, from what its header claims.

    Raises:
        DicomError: a limit is exceeded, or a size is missing or not a positive number.
    """
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    frames = int(_number(dataset.get("NumberOfFrames")) or 1)
    stored, allocated = _integer(dataset, "BitsStored"), _integer(dataset, "BitsAllocated")
    if rows <= 0 or columns <= 0 or frames <= 0:
        raise _error(f"The image has no size: {rows} rows, {columns} columns, {frames} frames.")
    if not 1 <= stored <= allocated <= 32:
        raise _error(f"The header claims {stored} bits stored in {allocated}, which cannot be.")
    if rows * columns > limits.max_frame_pixels:
        raise _error(f"The image claims {rows} × {columns} pixels, over the limit.", "Raise the limit.")
    if frames > limits.max_frames:
        raise _error(f"The file claims {frames} frames, over the limit.", "Raise the limit.")
    total = rows * columns * frames * max(1, allocated // 8)
    if total > limits.max_pixel_bytes:
        raise _error(f"The pixels would take {total} bytes, over the limit.", "Raise the limit.")


def read_header(path: Path, limits: ReadLimits) -> FileHeader:
    """Read what one file says about itself.

    Raises:
        DicomError: the file cannot be used, with the reason and what to do.
        OSError, and whatever pydicom raises on broken input: see `reader`, which turns each into a Problem.
    """
    with open_checked(path, limits) as stream:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True)
        begins = stream.tell()
    if begins > limits.max_header_bytes:
        raise _error(f"The header has {begins} bytes, over the limit.", "Raise the limit.")
    if "Rows" not in dataset or "Columns" not in dataset:
        raise _not_an_image(dataset)
    check_size(dataset, limits)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not str(dataset.get(name) or ""):
            raise _error(f"The header has no {name}.")
    frames = _frames(path, dataset)
    return FileHeader(
        study_uid=str(dataset.StudyInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        modality=str(dataset.get("Modality", "")),
        sop_class_uid=str(dataset.get("SOPClassUID", "")),
        frames=tuple(frame for frame, _ in frames),
        volume=tuple(volume for _, volume in frames),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "") or ""),
        description=str(dataset.get("SeriesDescription", "") or ""),
        protocol=str(dataset.get("ProtocolName", "") or ""),
        body_part=str(dataset.get("BodyPartExamined", "") or ""),
        image_type=_strings(dataset.get("ImageType")),
        acquisition_3d=_first_text(dataset, "MRAcquisitionType") == "3D",
        contrast=_contrast(dataset),
        manufacturer=str(dataset.get("Manufacturer", "") or ""),
        patient_id=str(dataset.get("PatientID", "") or ""),
    )


def _not_an_image(dataset: FileDataset) -> DicomError:
    """Why there is no image: the object is of another kind, or its header was cut off."""
    kind = dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID", "")
    if UID(str(kind)).keyword.endswith("ImageStorage"):
        return _error("The file is an image by its class, but its header is cut off or lacks its size.")
    modality = _code(str(dataset.get("Modality", "") or ""))
    return _no_image(f"The file holds no image (modality {modality}).")


def _code(text: str) -> str:
    """A code string fit to be printed: letters and digits, at most 16."""
    return "".join(c for c in text if c.isalnum())[:16] or "unknown"


def _number(value: Any) -> float | None:
    """A finite number, or None where the value is absent or is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _integer(dataset: Dataset, name: str) -> int:
    number = _number(dataset.get(name))
    if number is None:
        raise _error(f"The header has no usable {name}.")
    return int(number)


def _strings(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value)


def _functional_groups(dataset: Dataset, frame: int) -> Iterable[Dataset]:
    """The functional groups that hold for a frame, its own before the shared ones; none in classic files."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if frame < len(own):
        yield own[frame]
    yield from (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]


def _lookup(dataset: Dataset, frame: int, sequence: str, name: str) -> Any:
    """A value of a frame: from its functional group, the shared group, or the dataset itself."""
    for group in _functional_groups(dataset, frame):
        items = group.get(sequence) or []
        if items and name in items[0]:
            return items[0].get(name)
    return dataset.get(name)


def _first_text(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name, "") or "")


def _vector(value: Any, length: int) -> list[float] | None:
    if value is None or isinstance(value, str):
        return None
    try:
        numbers = [_number(part) for part in value]
    except TypeError:
        return None
    return None if len(numbers) != length or None in numbers else [float(x) for x in numbers if x is not None]


def _pose(dataset: Dataset, frame: int) -> SlicePose | None:
    """Where a frame lies, or None where the header does not say so usably."""
    position = _vector(_lookup(dataset, frame, "PlanePositionSequence", "ImagePositionPatient"), 3)
    axes = _vector(_lookup(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    spacing = _vector(_lookup(dataset, frame, "PixelMeasuresSequence", "PixelSpacing"), 2)
    if position is None or axes is None or spacing is None or min(spacing) <= 0:
        return None
    row, column = np.array(axes[:3]), np.array(axes[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > _SQUARE_TOLERANCE:
        return None
    row, column = row / lengths[0], column / lengths[1]
    thickness = _number(_lookup(dataset, frame, "PixelMeasuresSequence", "SliceThickness"))
    return SlicePose(
        origin=(position[0], position[1], position[2]),
        row_direction=(float(row[0]), float(row[1]), float(row[2])),
        column_direction=(float(column[0]), float(column[1]), float(column[2])),
        row_spacing=spacing[0],
        column_spacing=spacing[1],
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        thickness=thickness if thickness is not None and thickness > 0 else None,
    )


def _rescale(dataset: Dataset, frame: int) -> tuple[float, float]:
    """Slope and intercept; for MONOCHROME1 both negated, so that a higher value is always brighter."""
    slope = _number(_lookup(dataset, frame, "PixelValueTransformationSequence", "RescaleSlope"))
    intercept = _number(_lookup(dataset, frame, "PixelValueTransformationSequence", "RescaleIntercept"))
    slope, intercept = slope if slope else 1.0, intercept if intercept is not None else 0.0
    if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        return -slope, -intercept
    return slope, intercept


def _frames(path: Path, dataset: Dataset) -> list[tuple[FrameHeader, tuple[str, ...]]]:
    """Every frame with the key of the volume it belongs to.

    Raises:
        DicomError: a frame without usable position, orientation or spacing.
    """
    count = int(_number(dataset.get("NumberOfFrames")) or 1)
    sop_uid = str(dataset.SOPInstanceUID)
    frames: list[tuple[FrameHeader, tuple[str, ...]]] = []
    for index in range(count):
        pose = _pose(dataset, index)
        if pose is None:
            raise _error(
                "The header lacks a usable position, orientation or pixel spacing.",
                "Export the scanner's original images, not screenshots of them.",
            )
        slope, intercept = _rescale(dataset, index)
        echo = _lookup(dataset, index, "MREchoSequence", "EffectiveEchoTime")
        volume = (str(echo or dataset.get("EchoTime", "")), str(dataset.get("AcquisitionNumber", "") or ""))
        frames.append((FrameHeader(path, index, sop_uid, pose, slope, intercept), volume))
    return frames


def _contrast(dataset: Dataset) -> Contrast:
    """Contrast of a classic file, or of the first frame of an enhanced one."""

    def number(sequence: str, enhanced: str, classic: str) -> float | None:
        found = _number(_lookup(dataset, 0, sequence, enhanced))
        return found if found is not None else _number(dataset.get(classic))

    train = number("MRTimingAndRelatedParametersSequence", "EchoTrainLength", "EchoTrainLength")
    sequence = _strings(dataset.get("ScanningSequence"))
    pulse = _first_text(dataset, "EchoPulseSequence")
    if not sequence and pulse:
        sequence = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(pulse, ())
    inversion = _number(dataset.get("InversionTime"))
    if inversion is None:
        times = _lookup(dataset, 0, "MRModifierSequence", "InversionTimes")
        inversion = _number(times[0] if isinstance(times, (list, tuple)) and times else times)
    return Contrast(
        echo_time_ms=number("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
        repetition_time_ms=number("MRTimingAndRelatedParametersSequence", "RepetitionTime", "RepetitionTime"),
        inversion_time_ms=inversion,
        flip_angle_degrees=number("MRTimingAndRelatedParametersSequence", "FlipAngle", "FlipAngle"),
        echo_train_length=int(train) if train is not None else None,
        scanning_sequence=sequence,
        sequence_variant=_strings(dataset.get("SequenceVariant")),
        sequence_name=_first_text(dataset, "SequenceName") or _first_text(dataset, "PulseSequenceName"),
        contrast_agent=bool(_first_text(dataset, "ContrastBolusAgent")),
    )
