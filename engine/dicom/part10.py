"""Opening of DICOM files: size, prefix and file meta information (DICOM PS3.10, chapter 7).

A file without preamble and prefix is opened if its content is a dataset; see `bare_dataset`.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from stenosis_trt.engine.dicom.archive_types import ARCHIVE_MAGIC_BYTES, check_no_archive
from stenosis_trt.engine.dicom.bare_dataset import DATASET_STARTS, guess_transfer_syntax
from stenosis_trt.engine.dicom.elements import FIRST_PIXEL_TAG, ElementReader, Elements
from stenosis_trt.engine.dicom.errors import DicomError, header_error
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.plain_elements import TagTable
from stenosis_trt.engine.dicom.tags import tag_table
from stenosis_trt.engine.dicom.transfer_syntaxes import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_BIG_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
)
from stenosis_trt.engine.dicom.uids import is_uid

_PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
_META_BEGIN = _PREAMBLE_BYTES + len(_PREFIX)
_MARK_BYTES = max(_META_BEGIN, ARCHIVE_MAGIC_BYTES)
_GUESSED_BYTES = 1 << 16
"""Bytes at the start of a bare dataset that its encoding is guessed from."""
_AFTER_META = 0x00030000
_META = tag_table(["TransferSyntaxUID", "MediaStorageSOPClassUID"])
_INFLATE_BYTES = 1 << 20
_IDENTITY = tag_table(["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Rows"])
_IMAGE_ENDINGS = {"dcm", "dicom", "dic", "ima", "img", "image", "mr", "mri", "mag", "acr", "gz", "zip", "tar"}
_MARKERS = {
    "done",
    "ready",
    "complete",
    "completed",
    "finished",
    "ok",
    "success",
    "end",
    "eof",
    "lock",
    "marker",
}
"""Names without extension of empty marker files."""


@dataclass(frozen=True)
class Part10:
    """An open file: a stream of `size` bytes with the dataset from offset `begin` on, inflated if it was
    deflated."""

    size: int
    begin: int
    transfer_syntax: str
    sop_class: str
    _raw: io.BytesIO | io.FileIO
    _reader: ElementReader

    @cached_property
    def stream(self) -> BinaryIO:
        """The stream, with a buffer. Read the elements first."""
        return self._raw if isinstance(self._raw, io.BytesIO) else io.BufferedReader(self._raw)

    @property
    def explicit(self) -> bool:
        """True for explicit VR."""
        return self.transfer_syntax != IMPLICIT_LITTLE_ENDIAN

    @property
    def little_endian(self) -> bool:
        """True for little endian."""
        return self.transfer_syntax != EXPLICIT_BIG_ENDIAN

    def elements(self, wanted: TagTable, stop: int) -> Elements:
        """Return elements of the dataset up to the tag `stop`; see `ElementReader.read`."""
        return self._reader.read(self.begin, self.explicit, self.little_endian, wanted, stop)


@contextmanager
def open_part10(path: Path, limits: ReadLimits) -> Iterator[Part10]:
    """Open a file and read its file meta information. A deflated dataset is inflated, up to the limit.

    Raises:
        ArchiveFound: the file is an archive that may hold DICOM files.
        DicomError: empty, too large, not DICOM, or a deflated dataset that is broken or too large.
        OSError: the file cannot be read.
    """
    # Before the file is opened: that of a pipe would wait for its writer.
    size = os.stat(path).st_size
    if size == 0:
        raise empty_file(path.name)
    if size > limits.max_file_bytes:
        raise header_error(
            f"The file has {size} bytes, over the limit of {limits.max_file_bytes}.",
            raise_limit("max_file_bytes", size),
        )
    # Without a buffer, which would cost more time than a header takes.
    with io.FileIO(path) as raw:
        reader = ElementReader(raw, size, limits)
        meta_begin = _meta_begin(reader.first_bytes(_MARK_BYTES), path.name)
        if meta_begin == 0 and guess_transfer_syntax(reader.first_bytes(_GUESSED_BYTES), 0, size) is None:
            raise not_dicom()
        meta = reader.read(meta_begin, True, True, _META, _AFTER_META)
        syntax = meta.text("TransferSyntaxUID")
        sop_class = meta.text("MediaStorageSOPClassUID")
        if not syntax:
            part = _open_bare(reader, raw, size, meta.end)
            yield _require_uids(part) if meta_begin == 0 else part
            return
        if syntax != DEFLATED_LITTLE_ENDIAN:
            yield Part10(size, meta.end, syntax, sop_class, raw, reader)
            return
        raw.seek(meta.end)
        inflated = inflate(raw, limits.max_inflated_bytes)
        size = inflated.getbuffer().nbytes
        yield Part10(size, 0, syntax, sop_class, inflated, ElementReader(inflated, size, limits))


def empty_file(name: str) -> DicomError:
    """Return the error of an empty file; harmless if its name is that of a marker file, not of an image."""
    stem, dot, ending = name.lower().rpartition(".")
    if dot:
        # An extension of digits only is the end of a UID.
        harmless = not stem or (ending not in _IMAGE_ENDINGS and not ending.isdigit())
    else:
        harmless = ending.strip("_") in _MARKERS
    advice = "Nothing to do: it is skipped." if harmless else "Copy or export it again."
    return header_error("The file is empty.", advice, harmless)


def not_dicom() -> DicomError:
    """Return the error of a file that is not DICOM."""
    return header_error(
        "The file is not DICOM: it has no DICM prefix and does not start like a DICOM dataset.",
        "Nothing to do if it is not meant to be an image; otherwise export it again as DICOM Part 10.",
        harmless=True,
    )


def looks_like_dicom(start: bytes) -> bool:
    """Return True if a file may be DICOM by its first 132 bytes."""
    marked = start[_PREAMBLE_BYTES:_META_BEGIN] == _PREFIX or start.startswith(_PREFIX)
    return marked or start[:2] in DATASET_STARTS


def _meta_begin(start: bytes, name: str) -> int:
    """Return the offset of the file meta information, or of the dataset if there is none."""
    if start[_PREAMBLE_BYTES:_META_BEGIN] == _PREFIX:
        return _META_BEGIN
    if start.startswith(_PREFIX):
        return len(_PREFIX)
    if start[:2] in DATASET_STARTS:
        return 0
    check_no_archive(start[:ARCHIVE_MAGIC_BYTES], name)
    raise not_dicom()


def _open_bare(reader: ElementReader, raw: io.FileIO, size: int, begin: int) -> Part10:
    """Open a dataset without declared transfer syntax, which its first elements determine."""
    syntax = guess_transfer_syntax(reader.first_bytes(_GUESSED_BYTES), begin, size)
    if syntax is None:
        raise header_error(
            "The file does not state its transfer syntax.", "Export it again as DICOM Part 10."
        )
    part = Part10(size, begin, syntax, "", raw, reader)
    sop_class = part.elements(_IDENTITY, FIRST_PIXEL_TAG).text("SOPClassUID")
    return replace(part, sop_class=sop_class)


def _require_uids(part: Part10) -> Part10:
    """Return a dataset without preamble and prefix if it has the UIDs of a DICOM object; else raise."""
    found = part.elements(_IDENTITY, FIRST_PIXEL_TAG)
    if all(is_uid(found.text(keyword)) for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")):
        return part
    if found.stopped_at is None or found.number("Rows") is None:
        raise not_dicom()
    raise header_error(
        "The file has pixels after a header like DICOM's, but no preamble and no image UIDs.",
        "Convert it to DICOM Part 10, or export it again.",
    )


def inflate(source: BinaryIO, limit: int) -> io.BytesIO:
    """Inflate a raw deflate stream in pieces, with at most `limit` bytes in memory.

    Raises:
        DicomError: the stream is broken, ends early, or is larger than the limit once inflated.
    """
    target = io.BytesIO()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof:
        packed = inflater.unconsumed_tail or source.read(_INFLATE_BYTES)
        try:
            # Empty input flushes output that was held back.
            piece = inflater.decompress(packed, _INFLATE_BYTES)
        except zlib.error as error:
            raise header_error("The deflated dataset is broken.") from error
        if not packed and not piece and not inflater.eof:
            raise header_error("The deflated dataset ends too early.")
        if target.tell() + len(piece) > limit:
            raise header_error(
                f"The deflated dataset is larger than {limit} bytes once inflated.",
                f"If the file is trusted: {raise_limit('max_inflated_bytes', 2 * limit)}",
            )
        target.write(piece)
    return target
