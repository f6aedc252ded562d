"""The files of a pack, wherever it lies: a folder, or one zip of it. Nothing outside of it is read."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

MANIFEST = "pack.json"
MAXIMUM_MANIFEST_BYTES = 4 << 20


class PackError(Exception):
    """A pack that cannot be used. `reason` says what is wrong, `advice` how to mend it."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason} {advice}")
        self.reason = reason
        self.advice = advice


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


def read_if_there(path: Path, name: str, limit: int) -> bytes | None:
    """As `read_file`; None where the pack has no such file."""
    with _told(path, name):
        try:
            return _read(path, name, limit)
        except (FileNotFoundError, KeyError):
            return None


@contextmanager
def _told(path: Path, name: str) -> Iterator[None]:
    """What keeps a file from being read, in the words of a `PackError`."""
    try:
        yield
    # A RuntimeError is what zipfile raises on a password, and on a compression that it does not know.
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise PackError(
            f"{name} of the pack {path} cannot be read ({type(error).__name__}).",
            "Give the folder or zip of a model pack with --pack.",
        ) from error


def _read(path: Path, name: str, limit: int) -> bytes:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or not parts.parts:
        raise PackError(f"The pack {path} names a file outside itself: {name!r}.", "Do not use this pack.")
    if path.is_dir():
        with path.joinpath(*parts.parts).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(size) if size <= limit else b""
    else:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(_top_folder(archive) + str(parts))
            size = entry.file_size
            data = archive.read(entry) if size <= limit else b""
    if size > limit:
        raise PackError(f"{name} of the pack {path} has {size} bytes, over {limit}.", "Do not use this pack.")
    return data


def _top_folder(archive: zipfile.ZipFile) -> str:
    """The one folder that holds everything, with its slash, as archivers pack a folder; "" if none does."""
    tops = {name.partition("/")[0] for name in archive.namelist()} - {"__MACOSX"}
    return f"{tops.pop()}/" if len(tops) == 1 and tops != {MANIFEST} else ""
