"""Multiply studies by copying their files with new identifiers, which needs no rendering."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

_FIRST_SUFFIX = 1000
"""The last digits of a copy's UIDs are this number plus that of the copy."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


def copy_studies(source: Path, out: Path, count: int) -> None:
    """Fill `out` with `count` studies: those below `source`, then copies of them in turn.

    Identifiers are replaced in the bytes of the file: only uncompressed little endian is supported.

    Args:
        source: a folder with one folder per study.
        out: output folder, created if missing.
        count: number of studies, at most about 9000 times those in `source`.

    Raises:
        OSError: `out` cannot be written.
        ValueError: an identifier is too short for its last digits to be replaced.
    """
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    for number in range(count):
        turn, index = divmod(number, len(folders))
        folder = folders[index]
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            target = out / f"{turn:04d}" / folder.name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_renamed(path, turn) if turn else path.read_bytes())


def _renamed(path: Path, turn: int) -> bytes:
    """Content of a file, with the last digits of its identifiers replaced."""
    data = path.read_bytes()
    header = dcmread(path, stop_before_pixels=True, specific_tags=list(_UIDS))
    ending = str(_FIRST_SUFFIX + turn)
    for name in _UIDS:
        uid = str(header.get(name, ""))
        if not uid:
            continue
        if len(uid.rsplit(".", 1)[-1]) <= len(ending):
            raise ValueError(f"The {name} of {path} is too short to make copies of.")
        data = data.replace(uid.encode(), (uid[: -len(ending)] + ending).encode())
    return data
