"""Unpacking of zip and tar archives and of gzip, bzip2 and xz files. Runs in a reading process.

Members that look like DICOM are unpacked into a private folder, under limits, and read there like any other
file. Archives are unpacked up to two levels deep. Member names are only shown, never used as file names. An
archive that is broken, encrypted or over a limit is rejected as a whole.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, BinaryIO, cast

from stenosis_trt.engine.dicom.archive_types import (
    ARCHIVE_MAGIC_BYTES,
    BZIP2,
    GZIP,
    TAR,
    XZ,
    ZIP,
    ArchiveMember,
    RefusedMember,
    archive_kind,
    check_no_archive,
)
from stenosis_trt.engine.dicom.errors import DicomError, header_error
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.part10 import empty_file, looks_like_dicom, not_dicom
from stenosis_trt.engine.records import Stage

_MAX_DEPTH = 2
"""Levels of nesting: an archive and an archive within it."""
_ALWAYS_UNPACKED_BYTES = 256 << 20
_COPY_BYTES = 1 << 20
_TAR_BLOCK = 512
_KEPT_FREE_BYTES = 64 << 20
"""Space that unpacking leaves on the disk, since results may be written there."""
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    gzip.BadGzipFile,
    struct.error,
    OverflowError,
    ValueError,
)
_UNPACK = "Unpack it and give the folder with its files."


Unpacked = ArchiveMember | RefusedMember | DicomError


def unpack(path: Path, kind: str, folder: Path, limits: ReadLimits) -> Iterator[Unpacked]:
    """Unpack the DICOM files of an archive into `folder`, which exists and is empty.

    Yields:
        An ArchiveMember for each file that looks like DICOM, a RefusedMember for each other one. A final
        DicomError if the archive is rejected as a whole; its members must then not be used. An archive
        without any DICOM file is rejected with a harmless error.

    Raises:
        DicomError: the archive is rejected as a whole.
    """
    unpacker = _Unpacker(path, folder, limits)
    # Files that are not DICOM are reported only if the archive has DICOM files too.
    waiting: list[RefusedMember] | None = []
    try:
        for item in unpacker.members(path, kind, "", 1):
            if waiting is not None and isinstance(item, RefusedMember) and item.error.harmless:
                waiting.append(item)
                continue
            yield from waiting or ()
            waiting = None
            yield item
        if waiting is not None:
            yield header_error(
                f"The {kind} archive holds no DICOM file.", "Nothing to do: it is skipped.", True
            )
    except _BROKEN as error:
        yield _broken(kind, error)
    except OSError as error:
        yield _cannot_write(error, folder, kind)


class _UnsupportedArchive(DicomError):
    """An intact archive that cannot be read. Within another archive it does not affect the other members."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(Stage.HEADER, reason, advice)


class _Unpacker:
    """Unpacks an archive and those nested in it, with a common count of bytes and members."""

    def __init__(self, archive: Path, folder: Path, limits: ReadLimits) -> None:
        self._folder, self._limits = folder, limits
        self._bytes = self._members = self._files = 0
        expanded = limits.max_archive_expansion * archive.stat().st_size
        self._max_expanded_bytes = max(_ALWAYS_UNPACKED_BYTES, expanded)

    def members(
        self, path: Path, kind: str, within: str, depth: int
    ) -> Iterator[ArchiveMember | RefusedMember]:
        """Yield the members of an archive, with `within` as prefix of their names."""
        if kind == ZIP:
            yield from self._zip(path, within, depth)
            return
        with path.open("rb") as packed, closing(_decompressed(packed, kind)) as plain:
            stream = _CountingStream(plain, self._count)
            start = stream.peek(ARCHIVE_MAGIC_BYTES)
            if kind == TAR or archive_kind(start, path.name.rpartition(".")[0]) == TAR:
                yield from self._tar(stream, within, depth)
                return
            name = within.removesuffix("!/").rpartition("/")[2] if within else path.name
            self._count_member()
            yield from self._file(name.rpartition(".")[0] or name, stream, within, depth)

    def _zip(self, path: Path, within: str, depth: int) -> Iterator[ArchiveMember | RefusedMember]:
        with zipfile.ZipFile(path) as archive:
            found = [info for info in archive.infolist() if not info.is_dir()]
            if any(info.flag_bits & 1 for info in found):
                raise _UnsupportedArchive(
                    "The zip archive is encrypted.", f"{_UNPACK[:-1]}; unpacking asks for its password."
                )
            for info in found:
                self._count_member()
                name = _printable(within + info.filename)
                try:
                    with archive.open(info) as stream:
                        counted = _CountingStream(cast(BinaryIO, stream), self._count)
                        yield from self._file(info.filename, counted, within, depth)
                except NotImplementedError as error:
                    reason = "The zip archive is compressed by an unsupported method."
                    raise _UnsupportedArchive(reason, _UNPACK) from error
                except _BROKEN:
                    advice = "Send or export the archive again."
                    yield RefusedMember(
                        name, header_error("The file is broken within its zip archive.", advice)
                    )

    def _tar(
        self, stream: _CountingStream, within: str, depth: int
    ) -> Iterator[ArchiveMember | RefusedMember]:
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
            for info in archive:
                self._count_member()
                # Links and devices have no content of their own.
                content = archive.extractfile(info) if info.isreg() else None
                if content is not None:
                    yield from self._file(info.name, _CountingStream(cast(BinaryIO, content)), within, depth)
        while stream.read(_COPY_BYTES):
            pass
        if stream.tail.strip(b"\0") or len(stream.tail) < _TAR_BLOCK:
            # A complete tar ends with zero blocks; tarfile accepts any end between two members.
            raise tarfile.ReadError("no end")

    def _file(
        self, name: str, stream: _CountingStream, within: str, depth: int
    ) -> Iterator[ArchiveMember | RefusedMember]:
        """Unpack one member, or its contents if it is an archive itself."""
        shown = _printable(within + name)
        if name.replace("\\", "/").rpartition("/")[2].upper() == "DICOMDIR":
            # The files that it lists are members themselves.
            return
        start = stream.peek(ARCHIVE_MAGIC_BYTES)
        kind = "" if looks_like_dicom(start) else archive_kind(start, name)
        try:
            if not start:
                raise empty_file(name)
            if kind and depth == _MAX_DEPTH:
                raise header_error("An archive within an archive within an archive is not read.", _UNPACK)
            if not kind and not looks_like_dicom(start):
                check_no_archive(start, name)
                raise not_dicom()
        except DicomError as error:
            yield RefusedMember(shown, error)
            return
        target = self._folder / f"{self._files:06d}"
        self._files += 1
        with target.open("wb") as file:
            self._copy(stream, file)
        if not kind:
            yield ArchiveMember(shown, target)
            return
        inner = list(self._inner(target, kind, shown, depth + 1))
        target.unlink()
        yield from inner

    def _inner(
        self, path: Path, kind: str, shown: str, depth: int
    ) -> Iterator[ArchiveMember | RefusedMember]:
        """Yield the members of a nested archive. A broken one does not affect the others."""
        found: list[ArchiveMember | RefusedMember] = []
        try:
            found.extend(self.members(path, kind, f"{shown}!/", depth))
        except _UnsupportedArchive as error:
            found = [RefusedMember(shown, header_error(error.reason, error.advice))]
        except _BROKEN as error:
            found = [RefusedMember(shown, _broken(kind, error))]
        if all(isinstance(item, RefusedMember) and item.error.harmless for item in found):
            found = [RefusedMember(shown, not_dicom())]
        yield from found

    def _copy(self, stream: _CountingStream, file: BinaryIO) -> None:
        size = 0
        while block := stream.read(_COPY_BYTES):
            size += len(block)
            if size > self._limits.max_file_bytes:
                advice = raise_limit("max_file_bytes", 2 * self._limits.max_file_bytes)
                raise header_error("The archive holds a file over the limit.", advice)
            if shutil.disk_usage(self._folder).free < len(block) + _KEPT_FREE_BYTES:
                raise OSError(errno.ENOSPC, "No space left on device")
            file.write(block)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limits.max_archive_bytes:
            advice = raise_limit("max_archive_bytes", 2 * self._limits.max_archive_bytes)
            raise header_error(
                "The archive is larger than the limit once unpacked.", f"If it is trusted: {advice}"
            )
        if self._bytes > self._max_expanded_bytes:
            advice = raise_limit("max_archive_expansion", 10 * self._limits.max_archive_expansion)
            reason = f"The archive unpacks to more than {self._limits.max_archive_expansion} times its size."
            raise header_error(reason, f"If it is trusted: {advice}")

    def _count_member(self) -> None:
        self._members += 1
        if self._members > self._limits.max_archive_members:
            advice = raise_limit("max_archive_members", 2 * self._limits.max_archive_members)
            raise header_error("The archive holds more files than the limit.", advice)


class _CountingStream(io.RawIOBase):
    """A stream with `peek` that counts the bytes read; `tail` holds the last ones."""

    def __init__(self, stream: BinaryIO, count: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._stream, self._count, self._ahead = stream, count, b""
        self.tail = b""

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (block := self._next(size - len(self._ahead))):
            self._ahead += block
        return self._ahead[:size]

    def read(self, size: int = -1) -> bytes:
        if self._ahead:
            size = len(self._ahead) if size < 0 else size
            block, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            block = self._next(_COPY_BYTES if size < 0 else size)
        self.tail = (self.tail + block[-_TAR_BLOCK:])[-_TAR_BLOCK:]
        return block

    def _next(self, size: int) -> bytes:
        block = self._stream.read(size)
        if self._count is not None:
            self._count(len(block))
        return block


def _decompressed(packed: BinaryIO, kind: str) -> BinaryIO:
    if kind == GZIP:
        return cast(BinaryIO, gzip.GzipFile(fileobj=packed, mode="rb"))
    if kind == BZIP2:
        return cast(BinaryIO, bz2.BZ2File(packed))
    if kind == XZ:
        return cast(BinaryIO, lzma.LZMAFile(packed))
    return packed


def _printable(name: str) -> str:
    """Return the name of a member with control characters and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _broken(kind: str, error: BaseException) -> DicomError:
    return header_error(
        f"The {kind} archive is broken or cut off; nothing of it is read ({type(error).__name__}).",
        "Send or export the archive again, or unpack what is whole and give the folder.",
    )


def _cannot_write(error: OSError, folder: Path, kind: str) -> DicomError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return header_error(
            f"There is no room in {folder.parents[1]} to unpack the {kind} archive.",
            "Set TMPDIR to a folder with more room, or unpack the archive and give the folder.",
        )
    if error.errno is None:
        # bzip2 raises OSError without errno for invalid data.
        return _broken(kind, error)
    return header_error(f"The archive cannot be unpacked ({error.strerror}).", _UNPACK)
