"""Transfer syntaxes that are read, and the decoder of each compressed one (DICOM PS3.5, 10 and annex A).

pydicom's decoders are imported when the first compressed file is met; see `pydicom_loader`.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from stenosis_trt.engine.dicom.pydicom_loader import load_pydicom
from stenosis_trt.engine.dicom.uids import is_uid

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import Decoder

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = {IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN}
"""Transfer syntaxes with uncompressed pixels."""

RLE_LOSSLESS = "1.2.840.10008.1.2.5"
JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS, JPEG_2000 = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

LOSSY_JPEG = {JPEG_BASELINE, JPEG_EXTENDED}
_MAYBE_LOSSY = {JPEG_LS_NEAR_LOSSLESS, JPEG_2000, HTJ2K}
"""Transfer syntaxes of both reversible and irreversible compression; LossyImageCompression decides."""
# The decoder of each compressed syntax: the fastest of those that reject broken data. With several decoders
# in turn, a tolerant one would decode what the others rejected, as pylibjpeg does for a truncated JPEG 2000.
DECODERS = {
    RLE_LOSSLESS: "pylibjpeg",
    JPEG_BASELINE: "gdcm",
    JPEG_EXTENDED: "gdcm",
    JPEG_LOSSLESS: "gdcm",
    JPEG_LOSSLESS_SV1: "gdcm",
    JPEG_LS_LOSSLESS: "pyjpegls",
    JPEG_LS_NEAR_LOSSLESS: "pyjpegls",
    JPEG_2000_LOSSLESS: "gdcm",
    JPEG_2000: "gdcm",
    HTJ2K_LOSSLESS: "pylibjpeg",
    HTJ2K_LOSSLESS_RPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
}
_KEPT_SYNTAXES = 64
"""Answers that are kept. A transfer syntax may be any text of a file."""


@cache
def pixel_decoder(transfer_syntax: str) -> Decoder:
    """Return pydicom's decoder of a transfer syntax in NATIVE or DECODERS."""
    load_pydicom()
    from pydicom.pixels.decoders.base import get_decoder

    return get_decoder(transfer_syntax)


def is_compressed(transfer_syntax: str) -> bool:
    """Return True for a readable transfer syntax with compressed pixels."""
    return transfer_syntax not in NATIVE


@lru_cache(_KEPT_SYNTAXES)
def is_readable(transfer_syntax: str) -> bool:
    """Return True if an installed decoder supports a transfer syntax."""
    if transfer_syntax in NATIVE:
        return True
    plugin = DECODERS.get(transfer_syntax)
    return plugin is not None and plugin in pixel_decoder(transfer_syntax).available_plugins


def syntax_name(transfer_syntax: str) -> str:
    """Return the name of a transfer syntax, or its UID if it has no name."""
    if not is_uid(transfer_syntax):
        return "not a valid UID"
    load_pydicom()
    from pydicom.uid import UID

    return str(UID(transfer_syntax).name)


def is_lossy(transfer_syntax: str, stated: str) -> bool:
    """Return True if the pixels are or were lossily compressed.

    Args:
        transfer_syntax: transfer syntax of the file.
        stated: its LossyImageCompression: "01", "00", or "" if absent.
    """
    if stated == "01" or transfer_syntax in LOSSY_JPEG:
        return True
    return transfer_syntax in _MAYBE_LOSSY and stated != "00"
