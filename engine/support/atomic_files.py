"""Files and folders that are there whole or not at all, also after a kill or a power cut."""

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
"""Ending of a file that is still being written."""
_REPLACED = ".replaced"
"""Ending of a folder that stands aside while another takes its place."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
"""What renameat2 fails with where the system or the file system cannot exchange names."""


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """A UTF-8 text stream whose content takes the place of `path` once the context ends well.

    The content is on the disk before it gets its name, and the name before the context ends. If the context
    ends with an exception, `path` stays as it was. Characters that UTF-8 cannot hold (bytes of a file name
    that are not UTF-8) are written as backslash escapes.

    Raises:
        OSError: the folder is not there or not writable, or the disk is full; `path` stays as it was.
    """
    with atomic_write_binary(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="")
        try:
            yield text
        finally:
            # Hands the text on, and leaves the stream open for what its own context does with it.
            text.detach()


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` as `atomic_write` does."""
    with atomic_write(path) as stream:
        stream.write(text)


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `atomic_write` does text.

    Raises:
        OSError: as there.
    """
    with atomic_write_binary(path) as stream:
        stream.write(data)


def check_writable(path: Path) -> None:
    """Find out before long work whether a new file or folder can be made at `path`. Nothing is made.

    Raises:
        OSError: it cannot, as far as the system tells beforehand.
    """
    place = next(folder for folder in path.absolute().parents if folder.exists())
    wrong = (
        errno.ENOTDIR
        if not place.is_dir()
        else errno.EACCES
        if not os.access(place, os.W_OK | os.X_OK)
        else 0
    )
    if wrong:
        raise OSError(wrong, os.strerror(wrong), str(place))


@contextmanager
def staged_directory(path: Path) -> Iterator[Path]:
    """Where to make a folder that then takes the place of `path`, by `os.replace`; nothing of it stays else.

    It is not there yet, on the disk of `path`, and nobody else's: process numbers repeat, in containers
    at each start, and what a killed run left must not stop the next.

    Raises:
        OSError: the folder of `path` cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX, dir=path.parent) as work:
        yield Path(work) / path.name


def replace_directory(new: Path, place: Path) -> None:
    """Put the folder `new` in the place of another, which is removed.

    The names are exchanged in one step (renameat2 of Linux), so that `place` always holds one of the two.
    On file systems that cannot do so the old folder stands aside in between: if the program is killed there,
    `recover_directory` brings it back.

    Raises:
        OSError: the system refused; `place` stays as it was.
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
    """Bring back the folder that a killed `replace_directory` left aside, where nothing has its place.

    Raises:
        OSError: it cannot be renamed.
    """
    aside = _aside(place)
    if aside.is_dir() and not os.path.lexists(place):
        os.rename(aside, place)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}{_REPLACED}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where that is not offered.

    Raises:
        OSError: the system refused for another reason.
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
    """`atomic_write` for a stream of bytes.

    Raises:
        OSError: as there.
    """
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
    """A rename lasts only once its folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
