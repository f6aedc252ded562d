"""Archives, told from other files by their first bytes."""

from __future__ import annotations

from stenosis_trt.engine.dicom.errors import ArchiveFound, DicomError
from stenosis_trt.engine.records import Stage

ARCHIVE_MAGIC_BYTES = 512
"""How much of a file tells what kind of archive it is: the first block of a tar."""

ZIP, TAR, GZIP, BZIP2, XZ = "zip", "tar", "gzip", "bzip2", "xz"
READABLE_ARCHIVES = {
    ZIP: (b"PK\x03\x04", b"PK\x05\x06"),
    GZIP: (b"\x1f\x8b\x08",),
    BZIP2: (b"BZh",),
    XZ: (b"\xfd7zXZ\0",),
}
"""Kinds of archives that are read, tar beside them, and what they begin with."""
_OTHERS = {
    "7-Zip": b"7z\xbc\xaf\x27\x1c",
    "RAR": b"Rar!\x1a\x07",
    "Zstandard": b"\x28\xb5\x2f\xfd",
    "compress (.Z)": b"\x1f\x9d",
}
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257


def archive_kind(start: bytes, name: str) -> str:
    """One of the kinds that are read, or "". The old form of tar has no mark and is told by its name.

    Args:
        start: the first `ARCHIVE_MAGIC_BYTES` of the file, or all of a shorter one.
        name: of the file.
    """
    if start[_TAR_MARK_AT:].startswith(_TAR_MARK) or (len(start) >= 512 and name.lower().endswith(".tar")):
        return TAR
    return next((kind for kind, marks in READABLE_ARCHIVES.items() if start.startswith(marks)), "")


def check_no_archive(start: bytes, name: str) -> None:
    """Raise what has to be said of an archive; see `archive_kind` for the arguments.

    Raises:
        ArchiveFound: it is one of a kind that is read.
        DicomError: it is one of another kind. Studies may be in it, so it is not harmless.
    """
    if kind := archive_kind(start, name):
        raise ArchiveFound(kind)
    for kind, mark in _OTHERS.items():
        if start.startswith(mark):
            reason = f"The file is a {kind} archive, which is not read."
            raise DicomError(Stage.HEADER, reason, "Unpack it and give the folder with its files.")
