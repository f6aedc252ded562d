"""Which files there are: folders walked, files taken as they are, a DICOMDIR followed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from stenosis_trt.engine.records import Problem, Stage

_DICOMDIR = "DICOMDIR"
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_MAX_DICOMDIR_BYTES = 64 << 20


def find_files(paths: Sequence[Path]) -> Iterator[Path | Problem]:
    """Every file below the given paths, each once, in sorted order.

    A folder is walked to its end; symbolic links to folders are not followed, so a loop ends nothing. A
    DICOMDIR given by name stands for the files it lists; one met in a walk is passed over, since the
    walk meets its files too.

    Yields:
        Paths to read, and a Problem for a path that does not exist or a folder that cannot be listed.
    """
    seen: set[Path] = set()
    for path in paths:
        for found in _find(path):
            if isinstance(found, Problem):
                yield found
                continue
            real = found.resolve()
            if real not in seen:
                seen.add(real)
                yield found


def _find(path: Path) -> Iterator[Path | Problem]:
    if path.is_dir():
        yield from _walk(path)
    elif not os.path.lexists(path):
        yield Problem(str(path), Stage.FIND, "There is no such file or folder.", "Check the path.")
    elif path.name.upper().startswith(_DICOMDIR):
        yield from _follow(path)
    else:
        yield path


def _walk(folder: Path) -> Iterator[Path | Problem]:
    denied: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=denied.append):
        folders.sort()
        for name in sorted(files):
            if name.upper() != _DICOMDIR:
                yield Path(parent) / name
        while denied:
            error = denied.pop()
            yield Problem(
                str(error.filename),
                Stage.FIND,
                f"The folder cannot be listed ({error.strerror}).",
                "Give this user permission to read it.",
            )
    for error in denied:
        yield Problem(
            str(error.filename),
            Stage.FIND,
            f"The folder cannot be listed ({error.strerror}).",
            "Give this user permission to read it.",
        )


def _follow(path: Path) -> Iterator[Path | Problem]:
    """Files that a DICOMDIR references, in its order."""
    advice = "Give the folder instead of its DICOMDIR."
    try:
        if path.stat().st_size > _MAX_DICOMDIR_BYTES:
            yield Problem(str(path), Stage.FIND, "The DICOMDIR is too large to be one.", advice)
            return
        directory = pydicom.dcmread(path)
        if str(directory.file_meta.get("MediaStorageSOPClassUID", "")) != _MEDIA_STORAGE_DIRECTORY:
            yield path
            return
        references = [
            [str(part) for part in ([value] if isinstance(value, str) else value)]
            for record in directory.get("DirectoryRecordSequence") or []
            if (value := record.get("ReferencedFileID"))
        ]
    except (InvalidDicomError, OSError, AttributeError, ValueError, TypeError, KeyError) as error:
        yield Problem(str(path), Stage.FIND, f"The DICOMDIR cannot be read ({type(error).__name__}).", advice)
        return
    if not references:
        yield Problem(str(path), Stage.FIND, "The DICOMDIR lists no image.", advice)
    for parts in references:
        if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
            yield Problem(str(path), Stage.FIND, "The DICOMDIR names a file outside its folder.", advice)
            continue
        target = path.parent.joinpath(*parts)
        if target.is_file():
            yield target
        else:
            yield Problem(
                str(target),
                Stage.FIND,
                "The DICOMDIR lists this file, but it is not there.",
                "Copy it whole.",
            )
