"""More studies than were made: copies with other identifiers, which cost a copy and no computing."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

_FIRST = 1000
"""Copies are told apart by the last digits of a UID, which a turn's number replaces."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


def copy_studies(source: Path, out: Path, count: int) -> None:
    """Fill `out` with `count` studies: those below `source`, and then copies of them by turns.

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
            target.write_bytes(_renamed(path, turn) if turn else path.read_bytes())


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
