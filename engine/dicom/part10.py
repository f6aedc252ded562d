"""Opening a DICOM Part 10 file: its size, its marks and its meta header checked (DICOM PS3.10, chapter 7)."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from stenosis_trt.engine.dicom.elements import ElementReader, Elements, Vocabulary, vocabulary
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.records import Stage

_PREAMBLE_BYTES = 128
_MARK = b"DICM"
_META_BEGIN = _PREAMBLE_BYTES + len(_MARK)
_AFTER_META = 0x00030000
_META = vocabulary(["TransferSyntaxUID", "MediaStorageSOPClassUID"])
_INFLATE_BYTES = 1 << 20
# How a dataset without preamble and meta header begins: group 0008 or 0002, in either byte order.
_BARE_BEGINNINGS = (b"\x08\0", b"\x02\0", b"\0\x08", b"\0\x02")

_EXPORT_AGAIN = "Send or export the file again."


@dataclass(frozen=True)
class Part10:
    """An open file. `stream` holds the dataset from offset `begin` on, inflated if it was deflated; `size` is
    the stream's length in bytes."""

    stream: BinaryIO
    size: int
    begin: int
    transfer_syntax: str
    sop_class: str
    _reader: ElementReader

    @property
    def explicit(self) -> bool:
        """Whether elements tell their value representation."""
        return self.transfer_syntax != ImplicitVRLittleEndian

    @property
    def little_endian(self) -> bool:
        """The dataset's byte order."""
        return self.transfer_syntax != ExplicitVRBigEndian

    def elements(self, wanted: Vocabulary, stop: int) -> Elements:
        """Elements of the dataset up to the tag `stop`; see `ElementReader.read`."""
        return self._reader.read(self.begin, self.explicit, self.little_endian, wanted, stop)


@contextmanager
def open_part10(path: Path, limits: ReadLimits) -> Iterator[Part10]:
    """Open a file and read its meta header. A deflated dataset is inflated, up to the limit.

    Raises:
        DicomError: empty, too large, not Part 10, or a deflated dataset that is broken or too large.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise _error("The file is empty.", "Copy or export it again.")
    if size > limits.max_file_bytes:
        raise _error(
            f"The file has {size} bytes, over the limit of {limits.max_file_bytes}.",
            raise_limit("max_file_bytes", size),
        )
    with path.open("rb") as stream:
        _check_mark(stream)
        reader = ElementReader(stream, size, limits)
        meta = reader.read(_META_BEGIN, True, True, _META, _AFTER_META)
        syntax = meta.text("TransferSyntaxUID")
        if not syntax:
            raise _error("The file does not say its transfer syntax.", "Export it again as DICOM Part 10.")
        sop_class = meta.text("MediaStorageSOPClassUID")
        if syntax != DeflatedExplicitVRLittleEndian:
            yield Part10(stream, size, meta.end, syntax, sop_class, reader)
            return
        stream.seek(meta.end)
        inflated = inflate(stream, limits.max_inflated_bytes)
        reader = ElementReader(inflated, inflated.getbuffer().nbytes, limits)
        yield Part10(inflated, inflated.getbuffer().nbytes, 0, syntax, sop_class, reader)


def _error(reason: str, advice: str = _EXPORT_AGAIN) -> DicomError:
    return DicomError(Stage.HEADER, reason, advice)


def _check_mark(stream: BinaryIO) -> None:
    start = stream.read(_META_BEGIN)
    if start[_PREAMBLE_BYTES:] == _MARK:
        return
    if start[:2] in _BARE_BEGINNINGS and len(start) > 8:
        raise _error(
            "The file looks like DICOM, but has no preamble and DICM mark.",
            "Export it again as DICOM Part 10.",
        )
    raise DicomError(
        Stage.HEADER,
        "The file is not DICOM: it has no DICM mark.",
        "Nothing to do if it is not meant to be an image; otherwise export it again as DICOM Part 10.",
        harmless=True,
    )


def inflate(source: BinaryIO, limit: int) -> io.BytesIO:
    """Inflate a raw deflate stream piece by piece, so that never more than `limit` bytes are in memory.

    Raises:
        DicomError: the stream is broken, ends early, or is larger than the limit once inflated.
    """
    target = io.BytesIO()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof:
        packed = inflater.unconsumed_tail or source.read(_INFLATE_BYTES)
        if not packed:
            raise _error("The deflated dataset ends too early.")
        try:
            piece = inflater.decompress(packed, _INFLATE_BYTES)
        except zlib.error as error:
            raise _error("The deflated dataset is broken.") from error
        if target.tell() + len(piece) > limit:
            raise _error(
                f"The deflated dataset is larger than {limit} bytes once inflated.",
                f"If the file is trusted: {raise_limit('max_inflated_bytes', 2 * limit)}",
            )
        target.write(piece)
    return target
