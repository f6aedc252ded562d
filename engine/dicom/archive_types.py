"""Recognition of archives by their first bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.engine.dicom.errors import ArchiveFound, DicomError
from stenosis_trt.engine.records import Stage

ARCHIVE_MAGIC_BYTES = 512
"""Bytes needed to recognise an archive: the first block of a tar."""

ZIP, TAR, GZIP, BZIP2, XZ = "zip", "tar", "gzip", "bzip2", "xz"
READABLE_ARCHIVES = {
    ZIP: (b"PK\x03\x04", b"PK\x05\x06"),
    GZIP: (b"\x1f\x8b\x08",),
    BZIP2: (b"BZh",),
    XZ: (b"\xfd7zXZ\0",),
}
"""Magic bytes of the archive types that are read, besides tar."""
_OTHERS = {
    "7-Zip": b"7z\xbc\xaf\x27\x1c",
    "RAR": b"Rar!\x1a\x07",
    "Zstandard": b"\x28\xb5\x2f\xfd",
    "compress (.Z)": b"\x1f\x9d",
}
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257


def archive_kind(start: bytes, name: str) -> str:
    """Return the type of a readable archive, or "". Old tar files have no magic and are recognised by name.

    Args:
        start: the first `ARCHIVE_MAGIC_BYTES` of the file, or all of a shorter one.
        name: name of the file.
    """
    if start[_TAR_MARK_AT:].startswith(_TAR_MARK) or (len(start) >= 512 and name.lower().endswith(".tar")):
        return TAR
    return next((kind for kind, marks in READABLE_ARCHIVES.items() if start.startswith(marks)), "")


def check_no_archive(start: bytes, name: str) -> None:
    """Raise if a file is an archive; the arguments are those of `archive_kind`.

    Raises:
        ArchiveFound: the archive can be read.
        DicomError: the archive cannot be read. It may hold studies, so the error is not harmless.
    """
    if kind := archive_kind(start, name):
        raise ArchiveFound(kind)
    for kind, mark in _OTHERS.items():
        if start.startswith(mark):
            reason = f"The file is a {kind} archive, which is not supported."
            raise DicomError(Stage.HEADER, reason, "Unpack it and give the folder with its files.")


@dataclass(frozen=True)
class ArchiveMember:
    """A file of an archive: its name there and the path it was unpacked to."""

    name: str
    path: Path


@dataclass(frozen=True)
class RefusedMember:
    """A file of an archive that was not unpacked, with the reason."""

    name: str
    error: DicomError
