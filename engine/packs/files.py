"""The files of a pack, wherever it lies: a folder, or one zip of it. Nothing outside of it is read."""

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

_MAX_RATIO = 20
_FREE_BYTES = 16 << 20
"""How far a file of a zip may inflate, from this size on. Weights deflate to half, rounded ones to a quarter
of their size."""
_READ_BYTES = 1 << 20
"""Read from a zip at once. Its directory has to fit in: 46 bytes and a name for each file."""


def read_file(path: Path, name: str, limit: int) -> bytes:
    """A pack's file by its name in the manifest.

    Args:
        path: the pack's folder, or a zip of the folder or of what lies in it.
        name: relative to the pack, with slashes.
        limit: bytes; a larger file is refused.

    Raises:
        PackError: the name leaves the pack, or the file is missing, too large or cannot be read.
    """
    with _told(path, name):
        return _read(path, name, limit)


def read_optional_file(path: Path, name: str, limit: int) -> bytes | None:
    """As `read_file`; None where the pack has no such file."""
    with _told(path, name):
        try:
            return _read(path, name, limit)
        except (FileNotFoundError, KeyError):
            return None


def read_regular_file(path: Path, limit: int) -> bytes:
    """A file's first `limit` + 1 bytes at most: more than `limit` says that it is over the limit.

    Raises:
        OSError: it cannot be read, or is no regular file: a FIFO or a device could be waited for for ever.
    """
    with _open_regular(path) as stream:
        return stream.read(min(os.fstat(stream.fileno()).st_size, limit) + 1)


@contextmanager
def _told(path: Path, name: str) -> Iterator[None]:
    """What keeps a file from being read, in the words of a `PackError`."""
    try:
        yield
    # A RuntimeError is what zipfile raises on a password; the others, on archives that contradict themselves.
    except (
        *(OSError, KeyError, RuntimeError, ValueError, EOFError, OverflowError),
        *(struct.error, zipfile.BadZipFile, zlib.error),
    ) as error:
        why = str(error) if isinstance(error, _Unfit) else type(error).__name__
        raise PackError(
            f"{_shown(name)} of the pack {path} cannot be read ({why}).",
            "Give the folder or zip of a model pack with --pack.",
        ) from error


class _Unfit(OSError):
    """Something that is there and is not read. The message says what it is."""


def _shown(name: str) -> str:
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
        with _open_regular(path) as stream, zipfile.ZipFile(cast(BinaryIO, _ShortReads(stream))) as archive:
            entry = archive.getinfo(_top_folder(archive) + str(parts))
            size = entry.file_size
            data = _member(path, archive, entry) if size <= limit else b""
    if size > limit:
        raise PackError(f"{name} of the pack {path} has {size} bytes, over {limit}.", "Do not use this pack.")
    return data


def _open_regular(path: Path) -> BinaryIO:
    """A regular file opened to read. Opening does not wait, as it would for who writes into a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    stream = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise _Unfit("it is no regular file")
    return stream


def _refuse_links_out(folder: Path, name: str, file: Path) -> None:
    """A link within a pack may lead to another of its files, and to nothing else.

    Raises:
        PackError: it leads out of the pack.
    """
    if not file.resolve().is_relative_to(folder.resolve()):
        raise PackError(
            f"{name} of the pack {folder} is a link to a file outside the pack.",
            f"Copy the pack with what its links lead to: cp -rL {shlex.quote(str(folder))} NEW",
        )


def _member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A file of a zip, its size and how far it inflates known to be bounded."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PackError(
            f"{entry.filename} of the pack {path} is compressed by a method that is not read "
            f"({entry.compress_type}).",
            "Make the zip with stored or deflated files: python -m zipfile -c NEW.zip PACK/",
        )
    packed = min(entry.compress_size, path.stat().st_size)
    if entry.file_size > max(_FREE_BYTES, _MAX_RATIO * packed):
        raise PackError(
            f"{entry.filename} of the pack {path} inflates from {packed} to {entry.file_size} "
            f"bytes, over {_MAX_RATIO} times as many, as weights do not.",
            "Do not use this pack; if you know what is in it, unpack it and give its folder.",
        )
    with archive.open(entry) as stream:
        parts = []
        while part := stream.read(_READ_BYTES):
            parts.append(part)
    return b"".join(parts)


class _ShortReads(io.RawIOBase):
    """A file of which no more than a part is read at once.

    zipfile reads an archive's directory in one piece, of whatever size the archive says, and makes an object
    of each entry before anybody can count them.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """See `io.RawIOBase`."""
        data = self._stream.read(size if 0 <= size <= _READ_BYTES else _READ_BYTES + 1)
        if len(data) > _READ_BYTES:
            raise _Unfit(f"its directory has more than {_READ_BYTES} bytes")
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
    """The one folder that holds everything, with its slash, as archivers pack a folder; "" if none does."""
    tops = {name.partition("/")[0] for name in archive.namelist()} - {"__MACOSX"}
    return f"{tops.pop()}/" if len(tops) == 1 and tops != {MANIFEST} else ""
