"""JPEG with loss, decoded by GDCM: Baseline with 8 bits a sample and Extended with up to 12.

pydicom's way to GDCM leaves 12 bits out, which GDCM decodes as libjpeg-turbo does, bit for bit. It also asks
for no more than the number of bits in the header, while the codestream's own number decides what comes out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

_START = b"\xff\xd8"
# SOF markers of every JPEG process, and JPEG-LS's; C4, C8 and CC are no frame headers (ISO 10918-1, B.1.1.3).
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL, _ARITHMETIC = {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF}, {0xC9, 0xCA, 0xCB}
_SIXTEEN_BIT_MIDDLE = 1 << 15
_OVERSHOOT = 4
"""An image with loss reaches beyond its range by less than the range divided by this."""


@dataclass(frozen=True)
class JpegFrame:
    """What the frame header of a JPEG or JPEG-LS codestream claims."""

    process: int
    bits: int
    rows: int
    columns: int
    components: int

    @property
    def unreadable(self) -> str:
        """What of JPEG it uses that no decoder here does; "" where there is nothing."""
        if self.process in _ARITHMETIC:
            return "arithmetic coding"
        return "the hierarchical process" if self.process in _HIERARCHICAL else ""


def frame_header(data: bytes) -> JpegFrame | None:
    """The frame header of a codestream (ISO 10918-1, B.2.2); None where there is none."""
    if not data.startswith(_START):
        return None
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        if marker in _FRAME_HEADERS:
            return JpegFrame(marker, *struct.unpack_from(">B2HB", data, place + 4))
        place += 2 + length
    return None


def decode_lossy(
    data: bytes, header: JpegFrame, syntax: UID, bits_stored: int, signed: bool
) -> npt.NDArray[np.generic]:
    """The samples of a frame, (rows, columns).

    GDCM also writes frames of 16 bits a sample, which JPEG with loss does not have: values from 0 on lie at
    half of 65536 and may go below by the loss. They are moved down and clipped to the bits that are stored,
    where GDCM itself would turn what is below 0 into the largest values. With 16 bits stored the two could
    not be told apart.

    Args:
        data: the codestream, whose size has been checked.
        header: its frame header.
        syntax: the transfer syntax.
        bits_stored: of the file's header; below 16 where the codestream has 16.
        signed: whether stored values are signed.

    Raises:
        ValueError: the codestream is broken, or its values cannot be those of such an image.
    """
    shape = header.rows, header.columns
    allocated = 8 if header.bits <= 8 else 16
    raw = _decoded(data, shape, syntax, gdcm.PixelFormat(1, allocated, header.bits, header.bits - 1, 0))
    samples: npt.NDArray[np.generic] = np.frombuffer(raw, "<u2" if allocated == 16 else "u1").reshape(shape)
    if header.bits <= 12:
        # Loss may lead beyond the bits that are stored.
        return samples if header.bits <= bits_stored else samples.clip(None, (1 << bits_stored) - 1)
    values = samples.astype(np.int32) - _SIXTEEN_BIT_MIDDLE
    lowest, highest = (
        (-(1 << bits_stored - 1), (1 << bits_stored - 1) - 1) if signed else (0, (1 << bits_stored) - 1)
    )
    margin = (1 << bits_stored) // _OVERSHOOT
    if values.min() < lowest - margin or values.max() > highest + margin:
        raise ValueError("The values are not those of an image with so many bits.")
    return values.clip(lowest, highest).astype(np.int16 if signed else np.uint16)


def _decoded(data: bytes, shape: tuple[int, int], syntax: UID, pixels: gdcm.PixelFormat) -> bytes:
    fragment = gdcm.Fragment()
    # Values in DICOM have an even length.
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
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str.__str__(syntax))))
    image.SetPixelFormat(pixels)
    text = image.GetBuffer()
    if text is None:
        raise ValueError("GDCM does not decode it.")
    # GDCM's bytes come as text.
    raw: bytes = text.encode("utf-8", "surrogateescape")
    if len(raw) != shape[0] * shape[1] * (1 if pixels.GetBitsAllocated() == 8 else 2):
        raise ValueError("GDCM decodes another number of bytes than the frame has.")
    return raw
