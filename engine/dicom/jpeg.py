"""Decoding of lossy JPEG by GDCM: Baseline with 8 bits a sample and Extended with up to 12.

pydicom's GDCM plugin does not support 12 bits, which GDCM decodes exactly as libjpeg-turbo does. It also
checks only the bits of the DICOM header, while those of the codestream determine the result.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import gdcm

_START = b"\xff\xd8"
# SOF markers of all JPEG processes and of JPEG-LS; C4, C8 and CC are not SOF markers (ISO 10918-1, B.1.1.3).
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL, _ARITHMETIC = {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF}, {0xC9, 0xCA, 0xCB}
_SIXTEEN_BIT_OFFSET = 1 << 15
_OVERSHOOT_DIVISOR = 4
"""Loss exceeds the value range of an image by less than the range divided by this."""


@dataclass(frozen=True)
class JpegFrame:
    """Frame header of a JPEG or JPEG-LS codestream."""

    process: int
    bits: int
    rows: int
    columns: int
    components: int

    @property
    def unsupported_feature(self) -> str:
        """The JPEG feature that no decoder supports, or ""."""
        if self.process in _ARITHMETIC:
            return "arithmetic coding"
        return "the hierarchical process" if self.process in _HIERARCHICAL else ""


def frame_header(data: bytes) -> JpegFrame | None:
    """Return the frame header of a codestream (ISO 10918-1, B.2.2), or None."""
    if not data.startswith(_START):
        return None
    offset = 2
    while offset + 10 <= len(data) and data[offset] == 0xFF:
        marker, length = data[offset + 1], struct.unpack_from(">H", data, offset + 2)[0]
        if marker in _FRAME_HEADERS:
            return JpegFrame(marker, *struct.unpack_from(">B2HB", data, offset + 4))
        offset += 2 + length
    return None


def decode_lossy(
    data: bytes, header: JpegFrame, syntax: str, bits_stored: int, signed: bool
) -> npt.NDArray[np.generic]:
    """Decode the samples of a frame, (rows, columns).

    GDCM also writes 16 bits a sample, which lossy JPEG does not define: values are offset by 32768, and loss
    may take them below the offset. They are shifted back and clipped to the stored bits; GDCM itself would
    wrap values below 0. With 16 stored bits the two cases are indistinguishable.

    Args:
        data: the codestream; its size has been checked.
        header: its frame header.
        syntax: transfer syntax of the file.
        bits_stored: BitsStored of the file; below 16 if the codestream has 16 bits.
        signed: True if stored values are signed.

    Raises:
        ValueError: the codestream is broken or its values are outside the range of the image.
    """
    import gdcm

    shape = header.rows, header.columns
    allocated = 8 if header.bits <= 8 else 16
    raw = _decoded(data, shape, syntax, gdcm.PixelFormat(1, allocated, header.bits, header.bits - 1, 0))
    samples: npt.NDArray[np.generic] = np.frombuffer(raw, "<u2" if allocated == 16 else "u1").reshape(shape)
    if header.bits <= 12:
        # Loss may exceed the stored bits.
        return samples if header.bits <= bits_stored else samples.clip(None, (1 << bits_stored) - 1)
    values = samples.astype(np.int32) - _SIXTEEN_BIT_OFFSET
    lowest, highest = (
        (-(1 << bits_stored - 1), (1 << bits_stored - 1) - 1) if signed else (0, (1 << bits_stored) - 1)
    )
    margin = (1 << bits_stored) // _OVERSHOOT_DIVISOR
    if values.min() < lowest - margin or values.max() > highest + margin:
        raise ValueError("The values are not those of an image with so many bits.")
    return values.clip(lowest, highest).astype(np.int16 if signed else np.uint16)


def _decoded(data: bytes, shape: tuple[int, int], syntax: str, pixels: gdcm.PixelFormat) -> bytes:
    import gdcm

    fragment = gdcm.Fragment()
    # DICOM values have an even length.
    fragment.SetByteStringValue(data + b"\0" * (len(data) % 2))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((shape[1], shape[0], 1))
    image.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(pixels)
    text = image.GetBuffer()
    if text is None:
        raise ValueError("GDCM does not decode it.")
    # GDCM returns bytes as str.
    raw: bytes = text.encode("utf-8", "surrogateescape")
    if len(raw) != shape[0] * shape[1] * (1 if pixels.GetBitsAllocated() == 8 else 2):
        raise ValueError("GDCM decodes another number of bytes than the frame has.")
    return raw
