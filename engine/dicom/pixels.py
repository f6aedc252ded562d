"""Decoding of single frames to stored values. Runs in a reading process, under its memory limit."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.dicom.elements import FIRST_PIXEL_TAG, Elements
from stenosis_trt.engine.dicom.errors import EXPORT_AGAIN, DicomError
from stenosis_trt.engine.dicom.frames import Frame
from stenosis_trt.engine.dicom.jpeg import JpegFrame, decode_lossy, frame_header
from stenosis_trt.engine.dicom.layout import LAYOUT_KEYWORDS, PixelLayout, pixel_layout
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.padding import PADDING_KEYWORDS, Stored, declared_padding, without_padding
from stenosis_trt.engine.dicom.part10 import Part10, open_part10
from stenosis_trt.engine.dicom.pydicom_loader import load_pydicom
from stenosis_trt.engine.dicom.tags import tag_table
from stenosis_trt.engine.dicom.transfer_syntaxes import (
    DECODERS,
    EXPLICIT_BIG_ENDIAN,
    LOSSY_JPEG,
    is_compressed,
    pixel_decoder,
    syntax_name,
)
from stenosis_trt.engine.records import Stage

_RESCALE = (
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "PixelValueTransformationSequence",
    "RescaleSlope",
    "RescaleIntercept",
)
_WANTED = tag_table((*LAYOUT_KEYWORDS, *PADDING_KEYWORDS, *_RESCALE))
_JPEG2000_START = b"\xff\x4f\xff\x51"

_MAX_COMPRESSED_RATIO, _COMPRESSED_MARGIN_BYTES = 2, 1 << 16
"""A codec lengthens an image by a few per cent at most. In RLE each byte more may expand to 64."""


_DECODER_BYTES_PER_PIXEL = 32
"""Twice the largest measured value: JPEG 2000 in GDCM takes 16 bytes, RLE 8, JPEG-LS 7."""


@dataclass(frozen=True)
class OpenPixels:
    """The pixel data of an open file, decoded frame by frame. `elements` include _WANTED."""

    part: Part10
    layout: PixelLayout
    elements: Elements
    decode_memory_bytes: int

    def decode(self, index: int) -> Stored:
        """Decode the frame `index`, counted from 0.

        Returns:
            Stored values, uint16 or int16 (rows, columns): unused bits are cleared, signed values
            sign-extended, and pixel padding is black (see `padding`).

        Raises:
            DicomError: a compressed frame contradicts the header.
            MemoryError, and whatever a codec raises on broken input: see `reading_process`.
        """
        syntax = self.part.transfer_syntax
        if is_compressed(syntax):
            cells = self._decompress(index, syntax)
        elif syntax == EXPLICIT_BIG_ENDIAN:
            cells = self._array(index, syntax)
        else:
            cells = self._native(index)
        layout = self.layout
        slope, _ = Frame(self.elements, index).rescale(layout.inverted)
        return without_padding(
            _stored(cells, layout), cells, declared_padding(self.elements), layout.bits_stored, slope < 0
        )

    def _decompress(self, index: int, syntax: str) -> npt.NDArray[np.generic]:
        """Decode one frame of a compressed file."""
        data = self._codestream(index)
        header = frame_header(data)
        self._check_size(data, header)
        if header is not None and (feature := header.unsupported_feature):
            reason = f"The pixels are compressed by JPEG with {feature}, which no decoder supports."
            raise DicomError(Stage.PIXELS, reason, "Export the file as explicit VR little endian.")
        try:
            if syntax in LOSSY_JPEG and header is not None:
                self._check_bits(header)
                return decode_lossy(data, header, syntax, self.layout.bits_stored, self.layout.signed)
            return self._array(index, syntax)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            # pydicom raises these if the decoder failed or returned unexpected pixels.
            raise self._cannot_decode(syntax) from error

    def _native(self, index: int) -> npt.NDArray[np.generic]:
        """Read one frame of an uncompressed little endian file, (rows, columns)."""
        layout = self.layout
        if not 0 <= index < layout.frames:
            raise _broken(f"The file has {layout.frames} frames, and frame {index + 1} was asked for.")
        self.part.stream.seek(layout.pixel_data.value_offset + index * layout.frame_bytes)
        data = self.part.stream.read(layout.frame_bytes)
        if len(data) < layout.frame_bytes:
            raise _broken("The file ends within its pixels.")
        kind = f"<{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"
        return np.frombuffer(data, kind).reshape(layout.rows, layout.columns)

    def _array(self, index: int, syntax: str) -> npt.NDArray[np.generic]:
        self.part.stream.seek(self.layout.pixel_data.value_offset)
        try:
            array, _ = pixel_decoder(syntax).as_array(
                self.part.stream,
                index=index,
                raw=True,
                decoding_plugin=DECODERS.get(syntax, ""),
                **self._options(syntax),
            )
        except (RuntimeError, ValueError) as error:
            raise self._cannot_decode(syntax) from error
        return np.asarray(array)

    def _cannot_decode(self, syntax: str) -> DicomError:
        """Return the error of a frame that its decoder rejects.

        Codecs do not distinguish lack of memory from damage, so the limit is named if a frame is close to it.
        """
        if not is_compressed(syntax):
            return _broken(f"The pixels cannot be read as {syntax_name(syntax)}.")
        reason = f"The compressed pixels cannot be decoded: the data of {syntax_name(syntax)} are broken"
        if self.layout.rows * self.layout.columns * _DECODER_BYTES_PER_PIXEL > self.decode_memory_bytes:
            return DicomError(
                Stage.PIXELS,
                f"{reason}, or need more than the limit.",
                "Send or export the file again; if it is whole, raise --read-limit decode_memory_bytes.",
            )
        return _broken(f"{reason}.")

    def _options(self, syntax: str) -> dict[str, Any]:
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
            # Done in `_stored`: pydicom's correction ignores HighBit.
            "correct_unused_bits": False,
            # In implicit VR it is OW by definition (PS3.5, A.1).
            "pixel_vr": layout.pixel_data.vr.decode() or "OW",
        }
        if layout.offsets is not None and is_compressed(syntax):
            options["extended_offsets"] = layout.offsets
        return options

    def _codestream(self, index: int) -> bytes:
        """Return the compressed bytes of one frame."""
        load_pydicom()
        from pydicom.encaps import get_frame

        layout = self.layout
        self.part.stream.seek(layout.pixel_data.value_offset)
        data: bytes = get_frame(
            self.part.stream, index, number_of_frames=layout.frames, extended_offsets=layout.offsets
        )
        if layout.frame_bytes * _MAX_COMPRESSED_RATIO + _COMPRESSED_MARGIN_BYTES < len(data):
            raise _broken("The compressed image is far longer than the image itself.")
        return data

    def _check_size(self, data: bytes, header: JpegFrame | None) -> None:
        """Raise if a JPEG, JPEG-LS or JPEG 2000 frame has another size than the header states."""
        layout = self.layout
        size = _jpeg2000_size(data)
        if header is not None:
            size = header.rows, header.columns, header.components
        if size is not None and size != (layout.rows, layout.columns, 1):
            raise _broken(
                f"The compressed image is {size[0]} × {size[1]} × {size[2]}, "
                f"its header says {layout.rows} × {layout.columns} × 1."
            )

    def _check_bits(self, header: JpegFrame) -> None:
        """Raise if the bits of a JPEG frame contradict the header."""
        layout = self.layout
        stored = layout.bits_stored
        fits = header.bits in (8, 12, 16) and (header.bits == 8) == (stored <= 8)
        if header.bits == stored == 16:
            reason = "The pixels are compressed by JPEG with loss and 16 bits, which JPEG does not define."
            raise DicomError(Stage.PIXELS, reason, "Export the file as explicit VR little endian.")
        # The position of the sign bit must be known for signed values.
        if not fits or (layout.signed and header.bits not in (stored, 16)):
            raise _broken(f"The compressed image has {header.bits} bits a pixel, its header says {stored}.")


@contextmanager
def open_pixels(path: Path, limits: ReadLimits) -> Iterator[OpenPixels]:
    """Open a file for decoding.

    Raises:
        DicomError: the file cannot be used; see `part10` and `layout`.
        OSError: the file cannot be read.
    """
    with open_part10(path, limits) as part:
        elements = part.elements(_WANTED, FIRST_PIXEL_TAG)
        layout = pixel_layout(part, elements, limits)
        yield OpenPixels(part, layout, elements, limits.decode_memory_bytes)


def _broken(reason: str) -> DicomError:
    return DicomError(Stage.PIXELS, reason, EXPORT_AGAIN)


def _jpeg2000_size(data: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, components) of a JPEG 2000 codestream (ISO 15444-1, A.5.1), or None."""
    start = data.find(_JPEG2000_START, 0, 4096)
    if start < 0 or len(data) < start + 42:
        return None
    width, height, left, top = struct.unpack_from(">4L", data, start + 8)
    return height - top, width - left, struct.unpack_from(">H", data, start + 40)[0]


def _stored(array: npt.NDArray[np.generic], layout: PixelLayout) -> Stored:
    """Return the stored bits shifted down to bit 0, as uint16 or sign-extended int16."""
    bits = layout.bits_stored
    # A view, not a conversion: keeps the sign bits of a signed codec's output.
    raw: npt.NDArray[np.uint16] = array.view(array.dtype.str.replace("i", "u")).astype(np.uint16)
    raw >>= layout.high_bit + 1 - bits
    raw &= (1 << bits) - 1
    if not layout.signed:
        return raw
    sign = 1 << (bits - 1)
    signed: npt.NDArray[np.int16] = ((raw ^ sign) - sign).view(np.int16)
    return signed
