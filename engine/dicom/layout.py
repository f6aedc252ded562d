"""How the pixels of a file are stored, checked before anything is taken from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from stenosis_trt.engine.dicom.bare import is_uid
from stenosis_trt.engine.dicom.elements import UNDEFINED_LENGTH, ElementHeader, Elements
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.part10 import Part10
from stenosis_trt.engine.records import Stage

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
MR_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
}
_ALWAYS_LOSSY = {JPEGBaseline8Bit, JPEGExtended12Bit}
_MAYBE_LOSSY = {JPEGLSNearLossless, JPEG2000, HTJ2K}
"""Reversible and irreversible compression have one transfer syntax; LossyImageCompression tells."""
# The one decoder of each compressed syntax: of those that refuse what is broken, the fastest. Where several
# are asked in turn, one that makes an image of anything answers for those that refused, as pylibjpeg does for
# a JPEG 2000 that lost its end.
DECODERS = {
    RLELossless: "pylibjpeg",
    JPEGBaseline8Bit: "gdcm",
    JPEGExtended12Bit: "gdcm",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "gdcm",
    JPEG2000: "gdcm",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
}
_EXPORT_AGAIN = "Send or export the file again."
_NOTHING_TO_DO = "Nothing to do: it is skipped."


@dataclass(frozen=True)
class PixelLayout:
    """Size and encoding of a grey-scale image. `place` is where the pixel data lie in the file; `offsets`
    are the extended offset table and its lengths, where the file has one."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool
    place: ElementHeader
    offsets: tuple[bytes, bytes] | None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, decoded."""
        return self.rows * self.columns * self.bits_allocated // 8


def no_image(sop_class: str, reason: str, advice: str) -> DicomError:
    """Refuse an object for what it is. Harmless where its class says that it is no MR image."""
    harmless = sop_class not in MR_CLASSES and UID(sop_class).keyword != ""
    return DicomError(Stage.HEADER, reason, _NOTHING_TO_DO if harmless else advice, harmless)


def pixel_layout(part: Part10, elements: Elements, limits: ReadLimits) -> PixelLayout:
    """The layout of a file's pixels, from elements that include LAYOUT_KEYWORDS.

    Raises:
        DicomError: no grey-scale image of 8 or 16 bits, a limit exceeded, pixels missing or cut off, or a
            transfer syntax that cannot be read.
    """
    rows, columns, frames = _size(elements, limits)
    allocated = _whole(elements, "BitsAllocated")
    stored = _whole(elements, "BitsStored")
    if not 1 <= stored <= allocated:
        raise _error(f"The header claims {stored} bits stored in {allocated}, which cannot be.")
    total = rows * columns * frames * -(-allocated // 8)
    if total > limits.max_pixel_bytes:
        reason = f"The pixels would take {total} bytes, over the limit."
        raise _error(reason, raise_limit("max_pixel_bytes", total))
    photometric = elements.text("PhotometricInterpretation")
    if _whole(elements, "SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise no_image(part.sop_class, "The image is not grey-scale.", "Export the scanner's own images.")
    if allocated not in (8, 16):
        reason = f"The image has {allocated} bits a pixel; 8 and 16 are read."
        raise no_image(part.sop_class, reason, "Export the scanner's own images.")
    high_bit = _whole(elements, "HighBit", stored - 1)
    if not stored - 1 <= high_bit < allocated:
        # It cannot be; other readers never look at it.
        high_bit = stored - 1
    return PixelLayout(
        rows=rows,
        columns=columns,
        frames=frames,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=_whole(elements, "PixelRepresentation", 0) == 1,
        inverted=photometric == "MONOCHROME1",
        place=_pixels(part, elements.stopped_at, total),
        offsets=_offsets(elements),
    )


def _error(reason: str, advice: str = _EXPORT_AGAIN) -> DicomError:
    return DicomError(Stage.HEADER, reason, advice)


def _whole(elements: Elements, keyword: str, default: int | None = None) -> int:
    number = elements.number(keyword)
    if number is not None:
        return int(number)
    if default is None:
        raise _error(f"The header has no usable {keyword}.")
    return default


def _size(elements: Elements, limits: ReadLimits) -> tuple[int, int, int]:
    rows, columns = _whole(elements, "Rows"), _whole(elements, "Columns")
    frames = _whole(elements, "NumberOfFrames", 1) or 1
    if rows <= 0 or columns <= 0 or frames <= 0:
        raise _error(f"The image has no size: {rows} rows, {columns} columns, {frames} frames.")
    if rows * columns > limits.max_frame_pixels:
        reason = f"The image claims {rows} × {columns} pixels, over the limit."
        raise _error(reason, raise_limit("max_frame_pixels", rows * columns))
    if frames > limits.max_frames:
        reason = f"The file claims {frames} frames, over the limit."
        raise _error(reason, raise_limit("max_frames", frames))
    return rows, columns, frames


def _pixels(part: Part10, place: ElementHeader | None, expected: int) -> ElementHeader:
    """Where the pixels are, once it is clear that they are there."""
    if place is None:
        raise _error("The file has no pixel data.")
    if place.tag != _PIXEL_DATA:
        raise no_image(part.sop_class, "The pixels are no whole numbers.", "Export the scanner's own images.")
    if not is_readable(part.transfer_syntax):
        reason = f"The file's transfer syntax is not supported: {syntax_name(part.transfer_syntax)}."
        raise _error(reason, "Export it as explicit VR little endian.")
    if place.length == UNDEFINED_LENGTH:
        if not UID(part.transfer_syntax).is_encapsulated:
            raise _error("The pixels are compressed, which the transfer syntax does not say.")
    elif place.start + place.length > part.size:
        raise _error("The file ends within its pixels.")
    elif place.length < expected and not UID(part.transfer_syntax).is_encapsulated:
        raise _error(f"The pixels have {place.length} bytes; by the header they need {expected}.")
    return place


def _offsets(elements: Elements) -> tuple[bytes, bytes] | None:
    tables = [
        elements.values[keyword][1]
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        if keyword in elements.values
    ]
    return (tables[0], tables[1]) if len(tables) == 2 else None


def syntax_name(transfer_syntax: str) -> str:
    """The name of a transfer syntax as DICOM has it, its UID where it has none, or what else stands there."""
    if not is_uid(transfer_syntax):
        return "what is written there is no UID"
    return str(UID(transfer_syntax).name)


def is_lossy(transfer_syntax: str, stated: str) -> bool:
    """Whether the pixels were compressed with loss, now or before.

    Args:
        transfer_syntax: of the file.
        stated: its LossyImageCompression: "01", "00", or "" where absent.
    """
    if stated == "01" or transfer_syntax in _ALWAYS_LOSSY:
        return True
    return transfer_syntax in _MAYBE_LOSSY and stated != "00"


@cache
def is_readable(transfer_syntax: str) -> bool:
    """Whether pixels in this transfer syntax can be decoded with what is installed."""
    syntax = UID(transfer_syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return False
    return not syntax.is_encapsulated or DECODERS.get(syntax) in decoder.available_plugins
