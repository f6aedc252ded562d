"""Pixels of single frames, as stored values. Runs in a reading process, under its memory limit."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import check_size, open_checked
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.records import Stage

Stored = npt.NDArray[np.uint16] | npt.NDArray[np.int16]

_ASK_AGAIN = "Send or export the file again."
_JPEG_START, _JPEG2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# SOF markers of every JPEG process, and JPEG-LS's; C4, C8 and CC are no frame headers.
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def decode_frames(path: Path, indices: Sequence[int], limits: ReadLimits) -> list[Stored]:
    """Decode frames of one file.

    Args:
        path: a DICOM Part 10 file.
        indices: frames, 0-based.
        limits: checked before anything is decoded.

    Returns:
        Stored values of each frame, uint16 or int16 (rows, columns): bits that are not stored are cleared,
        and signed values have their sign extended.

    Raises:
        DicomError: no pixels, colour, more than 16 bits, or a compressed frame that contradicts the header.
        MemoryError, and whatever a codec raises on broken input: see `reader`.
    """
    with open_checked(path, limits) as stream:
        dataset = pydicom.dcmread(stream)
        check_size(dataset, limits)
        _check_kind(dataset)
        syntax = dataset.file_meta.TransferSyntaxUID
        decoder = get_decoder(syntax)
        frames = []
        for index in indices:
            if syntax.is_compressed and not syntax.is_deflated:
                _check_codestream(dataset, index)
            array, _ = decoder.as_array(dataset, index=index, raw=True)
            frames.append(_stored(np.asarray(array), dataset))
    return frames


def _error(reason: str, advice: str = _ASK_AGAIN) -> DicomError:
    return DicomError(Stage.PIXELS, reason, advice)


def _check_kind(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise _error("The file has no pixel data.")
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise _error("The image is in colour.", "Export the scanner's own grey-scale images.")
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise _error("The image is not grey-scale.", "Export the scanner's own grey-scale images.")
    if dataset.BitsAllocated not in (8, 16):
        raise _error(f"The image has {dataset.BitsAllocated} bits a pixel; 8 and 16 are read.")


def _check_codestream(dataset: Dataset, index: int) -> None:
    """Refuse a JPEG, JPEG-LS or JPEG 2000 frame that claims another size than the header."""
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    data = get_frame(dataset.PixelData, index, number_of_frames=count)
    size = _codestream_size(data)
    if size is not None and size != (dataset.Rows, dataset.Columns):
        raise _error(
            f"The compressed image is {size[0]} × {size[1]}, "
            f"its header says {dataset.Rows} × {dataset.Columns}."
        )


def _codestream_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a codestream claims; None for RLE, which has no size, or where none is found."""
    start = data.find(_JPEG2000_START, 0, 4096)
    if start >= 0 and len(data) >= start + 24:
        width, height, left, top = struct.unpack(">4L", data[start + 8 : start + 24])
        return height - top, width - left
    if not data.startswith(_JPEG_START):
        return None
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], struct.unpack(">H", data[place + 2 : place + 4])[0]
        if marker in _FRAME_HEADERS:
            rows, columns = struct.unpack(">2H", data[place + 5 : place + 9])
            return rows, columns
        place += 2 + length
    return None


def _stored(array: npt.NDArray[np.generic], dataset: Dataset) -> Stored:
    """Stored bits only, moved down to bit 0, as uint16 or, sign extended, int16."""
    bits = int(dataset.BitsStored)
    shift = max(0, int(dataset.get("HighBit", bits - 1)) + 1 - bits)
    raw = array.astype(np.int64)
    value = (raw >> shift) & ((1 << bits) - 1)
    if int(dataset.get("PixelRepresentation", 0)) == 1:
        sign = 1 << (bits - 1)
        return ((value ^ sign) - sign).astype(np.int16)
    return value.astype(np.uint16)
