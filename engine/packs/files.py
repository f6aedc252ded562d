"""Reading the files of a pack from a folder or a zip. No file outside the pack is read."""

from __future__ import annotations

import io
import os
import shlex
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from stenosis_trt.engine.errors import PackError

MANIFEST = "pack.json"
MAXIMUM_MANIFEST_BYTES = 4 << 20
MAXIMUM_MODEL_BYTES = 1 << 30
"""EfficientNet-B5 in FP32 has 113 MB; protobuf ends at 2 GiB."""

_MAX_INFLATION = 20
_MIN_CHECKED_BYTES = 16 << 20
"""Smaller zip members may inflate further. Deflate reduces weights to a half, rounded ones to a quarter."""
_READ_BYTES = 1 << 20
"""Size limit of one read from a zip, and so of its directory: 46 bytes and a name for each file."""


def read_file(path: Path, name: str, limit: int) -> bytes:
    """Read a file of a pack.

    Args:
        path: the pack's folder, or a zip of the folder or of its contents.
        name: as in the manifest: relative to the pack, with slashes.
        limit: size limit in bytes.

    Raises:
        PackError: the name points outside the pack, or the file is missing, larger than `limit` or
            unreadable.
    """
    with _as_pack_error(path, name):
        return _read(path, name, limit)


def read_optional_file(path: Path, name: str, limit: int) -> bytes | None:
    """Read a file of a pack as `read_file` does; None if the pack has no such file."""
    with _as_pack_error(path, name):
        try:
            return _read(path, name, limit)
        except (FileNotFoundError, KeyError):
            return None


def read_regular_file(path: Path, limit: int) -> bytes:
    """Read at most `limit` + 1 bytes of a file: a result longer than `limit` means that it is too large.

    Raises:
        OSError: the file cannot be read, or is not a regular file (reading a FIFO or a device may block).
    """
    with _open_regular(path) as stream:
        return stream.read(min(os.fstat(stream.fileno()).st_size, limit) + 1)


@contextmanager
def _as_pack_error(path: Path, name: str) -> Iterator[None]:
    """Turn any error while reading a file into a `PackError`."""
    try:
        yield
    # zipfile raises RuntimeError for encrypted members, and the others for inconsistent archives.
    except (
        *(OSError, KeyError, RuntimeError, ValueError, EOFError, OverflowError),
        *(struct.error, zipfile.BadZipFile, zlib.error),
    ) as error:
        why = str(error) if isinstance(error, _UnacceptableFile) else type(error).__name__
        raise PackError(
            f"{_printable(name)} of the pack {path} cannot be read ({why}).",
            "Give the folder or zip of a model pack with --pack.",
        ) from error


class _UnacceptableFile(OSError):
    """A file that exists but is not acceptable. The message says why."""


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _read(path: Path, name: str, limit: int) -> bytes:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or not parts.parts:
        raise PackError(f"The pack {path} names a file outside itself: {name!r}.", "Do not use this pack.")
    if path.is_dir():
        file = path.joinpath(*parts.parts)
        _refuse_links_out(path, name, file)
        with _open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(size) if size <= limit else b""
    else:
        with _open_regular(path) as stream, zipfile.ZipFile(cast(BinaryIO, _BoundedReads(stream))) as archive:
            entry = archive.getinfo(_top_folder(archive) + str(parts))
            size = entry.file_size
            data = _read_member(path, archive, entry) if size <= limit else b""
    if size > limit:
        raise PackError(f"{name} of the pack {path} has {size} bytes, over {limit}.", "Do not use this pack.")
    return data


def _open_regular(path: Path) -> BinaryIO:
    """Open a regular file without blocking, as opening a FIFO would."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    stream = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise _UnacceptableFile("it is no regular file")
    return stream


def _refuse_links_out(folder: Path, name: str, file: Path) -> None:
    """Raise PackError if `file` is a symbolic link that leads out of the pack."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise PackError(
            f"{name} of the pack {folder} is a link to a file outside the pack.",
            f"Copy the pack with what its links lead to: cp -rL {shlex.quote(str(folder))} NEW",
        )


def _read_member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read a member of a zip after checking its compression method and ratio."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PackError(
            f"{entry.filename} of the pack {path} is compressed by a method that is not read "
            f"({entry.compress_type}).",
            "Make the zip with stored or deflated files: python -m zipfile -c NEW.zip PACK/",
        )
    packed = min(entry.compress_size, path.stat().st_size)
    if entry.file_size > max(_MIN_CHECKED_BYTES, _MAX_INFLATION * packed):
        raise PackError(
            f"{entry.filename} of the pack {path} inflates from {packed} to {entry.file_size} "
            f"bytes, over {_MAX_INFLATION} times as many, as weights do not.",
            "Do not use this pack; if you know what is in it, unpack it and give its folder.",
        )
    with archive.open(entry) as stream:
        parts = []
        while part := stream.read(_READ_BYTES):
            parts.append(part)
    return b"".join(parts)


class _BoundedReads(io.RawIOBase):
    """A file that refuses to read more than `_READ_BYTES` at once.

    zipfile reads the directory of an archive in one piece, of the size that the archive states, and creates
    an object for each entry before they can be counted.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """See `io.RawIOBase`."""
        data = self._stream.read(size if 0 <= size <= _READ_BYTES else _READ_BYTES + 1)
        if len(data) > _READ_BYTES:
            raise _UnacceptableFile(f"its directory has more than {_READ_BYTES} bytes")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """See `io.RawIOBase`."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._stream.tell()

    def seekable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True


def _top_folder(archive: zipfile.ZipFile) -> str:
    """Return the single top-level folder of a zip with its slash; "" if there is none."""
    tops = {name.partition("/")[0] for name in archive.namelist()} - {"__MACOSX"}
    return f"{tops.pop()}/" if len(tops) == 1 and tops != {MANIFEST} else ""
