"""Size and encoding of the pixel data of a file, validated before decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stenosis_trt.engine.dicom.elements import ElementHeader, Elements
from stenosis_trt.engine.dicom.errors import DicomError, header_error
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.part10 import Part10
from stenosis_trt.engine.dicom.plain_elements import UNDEFINED_LENGTH
from stenosis_trt.engine.dicom.transfer_syntaxes import is_compressed, is_readable, syntax_name
from stenosis_trt.engine.dicom.uids import class_keyword
from stenosis_trt.engine.records import MR_IMAGE_CLASSES

LAYOUT_KEYWORDS: Sequence[str] = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
_PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True)
class PixelLayout:
    """Size and encoding of a greyscale image. `pixel_data` is the header of the pixel data element; `offsets`
    are the extended offset table and its lengths, if the file has one."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool
    pixel_data: ElementHeader
    offsets: tuple[bytes, bytes] | None

    @property
    def frame_bytes(self) -> int:
        """Size of one decoded frame in bytes."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def image_bytes(self) -> int:
        """Size of all decoded frames in bytes."""
        return self.frames * self.frame_bytes


def no_image(sop_class: str, reason: str, advice: str) -> DicomError:
    """Return the error of an unsuitable object; harmless if its SOP class is not an MR image."""
    harmless = sop_class not in MR_IMAGE_CLASSES and class_keyword(sop_class) != ""
    return header_error(reason, "Nothing to do: it is skipped." if harmless else advice, harmless)


def pixel_layout(part: Part10, elements: Elements, limits: ReadLimits) -> PixelLayout:
    """Return the layout of a file's pixels, from elements that include LAYOUT_KEYWORDS.

    Raises:
        DicomError: not a greyscale image of 8 or 16 bits, a limit exceeded, pixel data missing or truncated,
            or a transfer syntax that is not supported.
    """
    rows, columns, frames = _size(elements, limits)
    allocated = _integer(elements, "BitsAllocated")
    stored = _integer(elements, "BitsStored")
    if not 1 <= stored <= allocated:
        raise header_error(f"The header claims {stored} bits stored in {allocated}, which is impossible.")
    total = rows * columns * frames * -(-allocated // 8)
    if total > limits.max_pixel_bytes:
        reason = f"The pixels would take {total} bytes, over the limit."
        raise header_error(reason, raise_limit("max_pixel_bytes", total))
    photometric = elements.text("PhotometricInterpretation")
    if _integer(elements, "SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise no_image(part.sop_class, "The image is not grey-scale.", "Export the scanner's own images.")
    if allocated not in (8, 16):
        reason = f"The image has {allocated} bits a pixel; 8 and 16 are read."
        raise no_image(part.sop_class, reason, "Export the scanner's own images.")
    high_bit = _integer(elements, "HighBit", stored - 1)
    if not stored - 1 <= high_bit < allocated:
        # Invalid; other readers ignore HighBit.
        high_bit = stored - 1
    return PixelLayout(
        rows=rows,
        columns=columns,
        frames=frames,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=_integer(elements, "PixelRepresentation", 0) == 1,
        inverted=photometric == "MONOCHROME1",
        pixel_data=check_pixel_data(part, elements.stopped_at, total),
        offsets=_offsets(elements),
    )


def _integer(elements: Elements, keyword: str, default: int | None = None) -> int:
    number = elements.number(keyword)
    if number is not None:
        return int(number)
    if default is None:
        raise header_error(f"The header has no usable {keyword}.")
    return default


def _size(elements: Elements, limits: ReadLimits) -> tuple[int, int, int]:
    rows, columns = _integer(elements, "Rows"), _integer(elements, "Columns")
    frames = _integer(elements, "NumberOfFrames", 1) or 1
    if rows <= 0 or columns <= 0 or frames <= 0:
        raise header_error(f"The image has no size: {rows} rows, {columns} columns, {frames} frames.")
    if rows * columns > limits.max_frame_pixels:
        reason = f"The image claims {rows} × {columns} pixels, over the limit."
        raise header_error(reason, raise_limit("max_frame_pixels", rows * columns))
    if frames > limits.max_frames:
        reason = f"The file claims {frames} frames, over the limit."
        raise header_error(reason, raise_limit("max_frames", frames))
    return rows, columns, frames


def check_pixel_data(part: Part10, element: ElementHeader | None, expected: int) -> ElementHeader:
    """Return the pixel data element after checking that it is complete and can be decoded.

    Args:
        part: the file.
        element: the element after the header; None if the file ends there.
        expected: size of the decoded image in bytes.

    Raises:
        DicomError: pixel data are missing or truncated, or their transfer syntax is not supported.
    """
    if element is None:
        raise header_error("The file has no pixel data.")
    if element.tag != _PIXEL_DATA:
        raise no_image(part.sop_class, "The pixels are not integers.", "Export the scanner's own images.")
    if not is_readable(part.transfer_syntax):
        reason = f"The file's transfer syntax is not supported: {syntax_name(part.transfer_syntax)}."
        raise header_error(reason, "Export it as explicit VR little endian.")
    if element.length == UNDEFINED_LENGTH:
        if not is_compressed(part.transfer_syntax):
            raise header_error("The pixels are compressed, but the transfer syntax is uncompressed.")
    elif element.value_offset + element.length > part.size:
        raise header_error("The file ends within its pixels.")
    elif element.length < expected and not is_compressed(part.transfer_syntax):
        raise header_error(f"The pixels have {element.length} bytes; by the header they need {expected}.")
    return element


def _offsets(elements: Elements) -> tuple[bytes, bytes] | None:
    tables = [
        elements.values[keyword][1]
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        if keyword in elements.values
    ]
    return (tables[0], tables[1]) if len(tables) == 2 else None
