"""Atomic writes of files and directories: after a kill or power cut a path has its old or its new content."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TextIO

PARTIAL_SUFFIX = ".part"
"""Suffix of files that are being written."""
_REPLACED = ".replaced"
"""Suffix of the old directory while `replace_directory` moves the new one into place."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
"""Error numbers of renameat2 on systems and file systems that cannot exchange two names."""


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text stream whose content replaces `path` when the context exits without an exception.

    The content is synced to the disk before it is renamed to `path`, and the rename before the context exits.
    Surrogates, which stand for the bytes of a file name that are not UTF-8, become backslash escapes.

    Raises:
        OSError: the directory does not exist or is not writable, or the disk is full; `path` is unchanged.
    """
    with atomic_write_binary(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="")
        try:
            yield text
        finally:
            # Flushes the text and leaves `stream` open: its own context syncs and closes it.
            text.detach()


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` to `path`; see `atomic_write`."""
    with atomic_write(path) as stream:
        stream.write(text)


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; see `atomic_write`."""
    with atomic_write_binary(path) as stream:
        stream.write(data)


def check_writable(path: Path) -> None:
    """Check, before long work, that a file or directory can be created at `path`. Nothing is created.

    Raises:
        OSError: the nearest existing parent is no directory, or not writable.
    """
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    number = 0
    if not parent.is_dir():
        number = errno.ENOTDIR
    elif not os.access(parent, os.W_OK | os.X_OK):
        number = errno.EACCES
    if number:
        raise OSError(number, os.strerror(number), str(parent))


@contextmanager
def staged_directory(path: Path) -> Iterator[Path]:
    """Give a path at which to build a directory that the caller then renames to `path`.

    The path does not exist yet and is on the file system of `path`. What is left there when the context exits
    is removed. Its parent has a random name, since process ids repeat (in containers at each start) and the
    remains of a killed run must not stop the next one.

    Raises:
        OSError: the parent directory of `path` cannot be created or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX, dir=path.parent) as work:
        yield Path(work) / path.name


def replace_directory(new: Path, place: Path) -> None:
    """Replace the directory `place` with the directory `new`, and remove the old one.

    Linux's renameat2 exchanges the names in one step, so that `place` always exists. File systems that cannot
    do this rename the old directory first: if the program is killed then, `recover_directory` restores it.

    Raises:
        OSError: a rename failed; `place` is unchanged.
    """
    if not _exchange(new, place):
        aside = _aside(place)
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(place, aside)
        try:
            os.rename(new, place)
        except OSError:
            os.rename(aside, place)
            raise
        _sync_folder(place.parent)
        shutil.rmtree(aside)
        return
    _sync_folder(place.parent)
    shutil.rmtree(new)


def recover_directory(place: Path) -> None:
    """Restore the old directory after a kill in `replace_directory`, where `place` does not exist.

    Raises:
        OSError: the rename failed.
    """
    aside = _aside(place)
    if aside.is_dir() and not os.path.lexists(place):
        os.rename(aside, place)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}{_REPLACED}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; return False where the system cannot.

    Raises:
        OSError: the exchange failed for another reason.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if not call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)):
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


@contextmanager
def atomic_write_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a binary stream whose content replaces `path`; see `atomic_write`."""
    part = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a directory to the disk, without which a rename in it may be lost at a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
