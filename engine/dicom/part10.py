"""Opening a DICOM file: its size, its marks and its meta header checked (DICOM PS3.10, chapter 7).

A file that lacks the marks is opened where its content shows that it is a dataset; see `bare`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from stenosis_trt.engine.dicom.archive_marks import ARCHIVE_MAGIC_BYTES, check_no_archive
from stenosis_trt.engine.dicom.bare import DATASET_STARTS, guess_transfer_syntax, is_uid
from stenosis_trt.engine.dicom.elements import (
    FIRST_PIXEL_TAG,
    ElementReader,
    Elements,
    TagTable,
    tag_table,
)
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.records import Stage

_PREAMBLE_BYTES = 128
_MARK = b"DICM"
_META_BEGIN = _PREAMBLE_BYTES + len(_MARK)
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
"""Names without an ending that programs give to empty files."""

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

    def elements(self, wanted: TagTable, stop: int) -> Elements:
        """Elements of the dataset up to the tag `stop`; see `ElementReader.read`."""
        return self._reader.read(self.begin, self.explicit, self.little_endian, wanted, stop)


@contextmanager
def open_part10(path: Path, limits: ReadLimits) -> Iterator[Part10]:
    """Open a file and read its meta header. A deflated dataset is inflated, up to the limit.

    Raises:
        ArchiveFound: it is an archive that may hold DICOM files.
        DicomError: empty, too large, not DICOM, or a deflated dataset that is broken or too large.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise empty_file(path.name)
    if size > limits.max_file_bytes:
        raise _error(
            f"The file has {size} bytes, over the limit of {limits.max_file_bytes}.",
            raise_limit("max_file_bytes", size),
        )
    with path.open("rb") as stream:
        reader = ElementReader(stream, size, limits)
        meta_begin = _meta_begin(reader.first_bytes, path.name)
        if meta_begin == 0 and guess_transfer_syntax(reader.first_bytes, 0, size) is None:
            raise not_dicom()
        meta = reader.read(meta_begin, True, True, _META, _AFTER_META)
        syntax = meta.text("TransferSyntaxUID")
        sop_class = meta.text("MediaStorageSOPClassUID")
        if not syntax:
            part = _guessed(reader, stream, size, meta.end)
            yield _checked(part) if meta_begin == 0 else part
            return
        if syntax != DeflatedExplicitVRLittleEndian:
            yield Part10(stream, size, meta.end, syntax, sop_class, reader)
            return
        stream.seek(meta.end)
        inflated = inflate(stream, limits.max_inflated_bytes)
        reader = ElementReader(inflated, inflated.getbuffer().nbytes, limits)
        yield Part10(inflated, inflated.getbuffer().nbytes, 0, syntax, sop_class, reader)


def _error(reason: str, advice: str = _EXPORT_AGAIN) -> DicomError:
    return DicomError(Stage.HEADER, reason, advice)


def empty_file(name: str) -> DicomError:
    """An empty file. Harmless where its name is no image's: a marker that tells when a folder is complete."""
    stem, dot, ending = name.lower().rpartition(".")
    if dot:
        # An ending of digits alone is the end of a UID.
        harmless = not stem or (ending not in _IMAGE_ENDINGS and not ending.isdigit())
    else:
        harmless = ending.strip("_") in _MARKERS
    advice = "Nothing to do: it is skipped." if harmless else "Copy or export it again."
    return DicomError(Stage.HEADER, "The file is empty.", advice, harmless)


def not_dicom() -> DicomError:
    """A file that is no DICOM by its content."""
    return DicomError(
        Stage.HEADER,
        "The file is not DICOM: it has no DICM mark, and does not begin as a DICOM dataset does.",
        "Nothing to do if it is not meant to be an image; otherwise export it again as DICOM Part 10.",
        harmless=True,
    )


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file may be DICOM by its first 132 bytes."""
    marked = start[_PREAMBLE_BYTES:_META_BEGIN] == _MARK or start.startswith(_MARK)
    return marked or start[:2] in DATASET_STARTS


def _meta_begin(start: bytes, name: str) -> int:
    """Where the meta header begins, or the dataset where the file has none."""
    if start[_PREAMBLE_BYTES:_META_BEGIN] == _MARK:
        return _META_BEGIN
    if start.startswith(_MARK):
        return len(_MARK)
    if start[:2] in DATASET_STARTS:
        return 0
    check_no_archive(start[:ARCHIVE_MAGIC_BYTES], name)
    raise not_dicom()


def _guessed(reader: ElementReader, stream: BinaryIO, size: int, begin: int) -> Part10:
    """A dataset whose transfer syntax is not said anywhere, by its first elements."""
    syntax = guess_transfer_syntax(reader.first_bytes, begin, size)
    if syntax is None:
        raise _error("The file does not say its transfer syntax.", "Export it again as DICOM Part 10.")
    part = Part10(stream, size, begin, syntax, "", reader)
    sop_class = part.elements(_IDENTITY, FIRST_PIXEL_TAG).text("SOPClassUID")
    return replace(part, sop_class=sop_class)


def _checked(part: Part10) -> Part10:
    """A dataset without any mark of Part 10, if it says of itself that it is one of DICOM's objects."""
    found = part.elements(_IDENTITY, FIRST_PIXEL_TAG)
    if all(is_uid(found.text(keyword)) for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")):
        return part
    if found.stopped_at is None or found.number("Rows") is None:
        raise not_dicom()
    raise _error(
        "The file holds pixels behind a header like DICOM's, but no preamble and not the UIDs of an image.",
        "Convert it to DICOM Part 10, or export it again.",
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
        try:
            # Without input it hands out what it has held back: it may have taken all of it in before.
            piece = inflater.decompress(packed, _INFLATE_BYTES)
        except zlib.error as error:
            raise _error("The deflated dataset is broken.") from error
        if not packed and not piece and not inflater.eof:
            raise _error("The deflated dataset ends too early.")
        if target.tell() + len(piece) > limit:
            raise _error(
                f"The deflated dataset is larger than {limit} bytes once inflated.",
                f"If the file is trusted: {raise_limit('max_inflated_bytes', 2 * limit)}",
            )
        target.write(piece)
    return target
