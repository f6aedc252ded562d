"""More studies than were made: copies with other identifiers, which cost a copy and no computing."""

from __future__ import annotations

import os
from pathlib import Path

from pydicom import dcmread

_LONGEST_NUMBER = 4
"""Digits at the end of a UID that tell the copies apart."""
_FIRST = 1000
"""No number begins with a zero, which no part of a UID may."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


def copy_studies(source: Path, out: Path, count: int) -> None:
    """Fill `out` with `count` studies: those below `source`, hard-linked, and then copies of them by turns.

    Only explicit or implicit little endian, uncompressed: the identifiers are replaced in the bytes.

    Args:
        source: a folder for each study.
        out: folder, made where absent.
        count: studies wanted, at most some thousand times those that there are.

    Raises:
        OSError: `out` cannot be written.
        ValueError: an identifier is too short to be told apart by its end.
    """
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    for number in range(count):
        turn, index = divmod(number, len(folders))
        folder = folders[index]
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            target = out / f"{turn:04d}" / folder.name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if turn:
                target.write_bytes(_renamed(path, turn))
            else:
                os.link(path, target)


def _renamed(path: Path, turn: int) -> bytes:
    """A file's content, with the last digits of its identifiers replaced."""
    data = path.read_bytes()
    header = dcmread(path, stop_before_pixels=True, specific_tags=list(_UIDS))
    ending = str(_FIRST + turn)
    for name in _UIDS:
        uid = str(header.get(name, ""))
        if not uid:
            continue
        if len(uid.rsplit(".", 1)[-1]) <= len(ending):
            raise ValueError(f"The {name} of {path} is too short to make copies of.")
        data = data.replace(uid.encode(), (uid[: -len(ending)] + ending).encode())
    return data
