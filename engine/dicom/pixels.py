"""Pixels of single frames, as stored values. Runs in a reading process, under its memory limit."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
)

from stenosis_trt.engine.dicom.elements import FIRST_PIXEL_TAG, Elements, vocabulary
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.frames import Frame
from stenosis_trt.engine.dicom.layout import DECODERS, LAYOUT_KEYWORDS, PixelLayout, pixel_layout
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.padding import PADDING_KEYWORDS, declared_padding, without_padding
from stenosis_trt.engine.dicom.part10 import Part10, open_part10
from stenosis_trt.engine.records import Stage

Stored = npt.NDArray[np.uint16] | npt.NDArray[np.int16]

_RESCALE = (
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "PixelValueTransformationSequence",
    "RescaleSlope",
    "RescaleIntercept",
)
_WANTED = vocabulary((*LAYOUT_KEYWORDS, *PADDING_KEYWORDS, *_RESCALE))
_JPEG_START, _JPEG2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# SOF markers of every JPEG process, and JPEG-LS's; C4, C8 and CC are no frame headers.
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}

_LONGEST_COMPRESSED, _SHORT = 2, 1 << 16
"""A codec makes an image longer by a few per cent at most. In RLE each byte more may become 64."""


@dataclass(frozen=True)
class OpenPixels:
    """The pixels of one open file, to be decoded frame by frame. `elements` include _WANTED."""

    part: Part10
    layout: PixelLayout
    elements: Elements

    def decode(self, index: int) -> Stored:
        """Decode one frame, 0-based.

        Returns:
            Stored values, uint16 or int16 (rows, columns): bits that are not stored are cleared, signed
            values have their sign extended, and pixel padding is black (see `padding`).

        Raises:
            DicomError: a compressed frame that contradicts the header.
            MemoryError, and whatever a codec raises on broken input: see `reading_process`.
        """
        syntax = UID(self.part.transfer_syntax)
        if syntax == DeflatedExplicitVRLittleEndian:
            # It was inflated when it was opened.
            syntax = ExplicitVRLittleEndian
        if syntax.is_encapsulated:
            self._check_codestream(index)
        self.part.stream.seek(self.layout.place.start)
        try:
            array, _ = get_decoder(syntax).as_array(
                self.part.stream,
                index=index,
                raw=True,
                decoding_plugin=DECODERS.get(syntax, ""),
                **self._options(syntax),
            )
        except (RuntimeError, ValueError) as error:
            # What pydicom raises when the decoder has failed, or gave other pixels than it should.
            reason = "The compressed pixels cannot be decoded: they are broken, or need more than the limit."
            advice = "Send or export the file again; if it is whole, raise --limit decode_memory_bytes."
            raise DicomError(Stage.PIXELS, reason, advice) from error
        cells, layout = np.asarray(array), self.layout
        slope, _ = Frame(self.elements, index).rescale(layout.inverted)
        return without_padding(
            _stored(cells, layout), cells, declared_padding(self.elements), layout.bits_stored, slope < 0
        )

    def _options(self, syntax: UID) -> dict[str, Any]:
        layout = self.layout
        options: dict[str, Any] = {
            "rows": layout.rows,
            "columns": layout.columns,
            "number_of_frames": layout.frames,
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "bits_allocated": layout.bits_allocated,
            "bits_stored": layout.bits_stored,
            "pixel_representation": int(layout.signed),
            "pixel_keyword": "PixelData",
            # Done below: pydicom's own correction takes bit 0 for the lowest one, whatever HighBit says.
            "correct_unused_bits": False,
            # In implicit files the representation is not written; it is OW by definition (PS3.5, A.1).
            "pixel_vr": layout.place.form.decode() or "OW",
        }
        if layout.offsets is not None and syntax.is_encapsulated:
            options["extended_offsets"] = layout.offsets
        return options

    def _check_codestream(self, index: int) -> None:
        """Refuse a JPEG, JPEG-LS or JPEG 2000 frame that claims another size than the header."""
        layout = self.layout
        self.part.stream.seek(layout.place.start)
        data = get_frame(
            self.part.stream, index, number_of_frames=layout.frames, extended_offsets=layout.offsets
        )
        if layout.frame_bytes * _LONGEST_COMPRESSED + _SHORT < len(data):
            raise _broken("The compressed image is far longer than the image itself.")
        size = _codestream_size(data)
        if size is not None and size != (layout.rows, layout.columns, 1):
            raise _broken(
                f"The compressed image is {size[0]} × {size[1]} × {size[2]}, "
                f"its header says {layout.rows} × {layout.columns} × 1."
            )


@contextmanager
def open_pixels(path: Path, limits: ReadLimits) -> Iterator[OpenPixels]:
    """Open a file for decoding.

    Raises:
        DicomError: the file cannot be used; see `part10` and `layout`.
        OSError: the file cannot be read.
    """
    with open_part10(path, limits) as part:
        elements = part.elements(_WANTED, FIRST_PIXEL_TAG)
        yield OpenPixels(part, pixel_layout(part, elements, limits), elements)


def _broken(reason: str) -> DicomError:
    return DicomError(Stage.PIXELS, reason, "Send or export the file again.")


def _codestream_size(data: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) that a codestream claims (ISO 15444-1 A.5.1, ISO 10918-1 B.2.2); None for
    RLE, which has no size, or where none is found."""
    start = data.find(_JPEG2000_START, 0, 4096)
    if start >= 0 and len(data) >= start + 42:
        width, height, left, top = struct.unpack_from(">4L", data, start + 8)
        return height - top, width - left, struct.unpack_from(">H", data, start + 40)[0]
    if not data.startswith(_JPEG_START):
        return None
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], struct.unpack(">H", data[place + 2 : place + 4])[0]
        if marker in _FRAME_HEADERS:
            rows, columns, components = struct.unpack_from(">2HB", data, place + 5)
            return rows, columns, components
        place += 2 + length
    return None


def _stored(array: npt.NDArray[np.generic], layout: PixelLayout) -> Stored:
    """Stored bits only, moved down to bit 0, as uint16 or, sign extended, int16."""
    bits = layout.bits_stored
    # A view, not a conversion, so that the sign of a signed codec's output becomes plain bits.
    raw: npt.NDArray[np.uint16] = array.view(array.dtype.str.replace("i", "u")).astype(np.uint16)
    raw >>= layout.high_bit + 1 - bits
    raw &= (1 << bits) - 1
    if not layout.signed:
        return raw
    sign = 1 << (bits - 1)
    signed: npt.NDArray[np.int16] = ((raw ^ sign) - sign).view(np.int16)
    return signed
