"""Which files there are: folders walked, files taken as they are, a DICOMDIR followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.records import Problem, Stage

_DICOMDIR = "DICOMDIR"
_MISSING = "There is no such file or folder."

_Identity = tuple[int, int]

References = list[tuple[str, ...]]
"""Files that a DICOMDIR lists, each as the parts of its path below the DICOMDIR's folder."""


def find_files(
    paths: Sequence[Path], list_dicomdir: Callable[[Path], References | DicomError]
) -> Iterator[Path | Problem]:
    """Every file below the given paths, each once, in sorted order.

    Folders are walked to their end, through symbolic links too, each folder once. A DICOMDIR given by name
    stands for the files it lists; one met in a walk is passed over, since the walk meets its files too.

    Args:
        paths: folders, files, DICOMDIRs.
        list_dicomdir: reads what a DICOMDIR lists.

    Yields:
        Paths to read, and a Problem for a path that does not exist or cannot be reached, and a folder that
        cannot be listed.
    """
    seen: set[_Identity] = set()
    walked: set[_Identity] = set()
    for path in paths:
        for found in _find(path, walked, list_dicomdir):
            if isinstance(found, Problem):
                yield found
                continue
            status = _status(found)
            if isinstance(status, Problem):
                yield status
            elif _identity(status) not in seen:
                seen.add(_identity(status))
                yield found


def _status(path: Path) -> os.stat_result | Problem:
    """What the system says of a path, or why it says nothing."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            return Problem(str(path), Stage.FIND, "The link leads to nothing.", "Copy what it stands for.")
        return Problem(str(path), Stage.FIND, _MISSING, "Check the path.")
    except OSError as error:
        denied = isinstance(error, PermissionError)
        advice = "Give this user permission to read it and its folders." if denied else "Check the path."
        return Problem(str(path), Stage.FIND, f"It cannot be reached ({error.strerror}).", advice)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _find(
    path: Path, walked: set[_Identity], list_dicomdir: Callable[[Path], References | DicomError]
) -> Iterator[Path | Problem]:
    status = _status(path)
    if isinstance(status, Problem):
        yield status
    elif stat.S_ISDIR(status.st_mode):
        yield from _walk(path, walked)
    elif path.name.upper().startswith(_DICOMDIR):
        yield from _follow(path, list_dicomdir)
    else:
        yield path


def _walk(folder: Path, walked: set[_Identity]) -> Iterator[Path | Problem]:
    denied: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=denied.append, followlinks=True):
        status = _status(Path(parent))
        if isinstance(status, Problem) or _identity(status) in walked:
            # Gone meanwhile, a link back to a folder above, or a folder given twice.
            folders.clear()
            continue
        walked.add(_identity(status))
        folders.sort()
        for name in sorted(files):
            if name.upper() != _DICOMDIR:
                yield Path(parent) / name
    for error in denied:
        yield Problem(
            str(error.filename),
            Stage.FIND,
            f"The folder cannot be listed ({error.strerror}).",
            "Give this user permission to read it.",
        )


def _follow(path: Path, list_dicomdir: Callable[[Path], References | DicomError]) -> Iterator[Path | Problem]:
    """Files that a DICOMDIR references, in its order."""
    references = list_dicomdir(path)
    if isinstance(references, DicomError):
        yield references.problem(str(path))
        return
    if not references:
        advice = "Give the folder instead of its DICOMDIR."
        yield Problem(str(path), Stage.FIND, "The DICOMDIR lists no image.", advice)
    for parts in references:
        if any(part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part for part in parts):
            advice = "Give the folder instead of its DICOMDIR."
            yield Problem(str(path), Stage.FIND, "The DICOMDIR names a file outside its folder.", advice)
            continue
        target = _as_spelt_on_disk(path.parent, parts)
        status = _status(target)
        if not isinstance(status, Problem) and not stat.S_ISDIR(status.st_mode):
            yield target
        elif isinstance(status, Problem) and status.reason != _MISSING:
            yield status
        else:
            reason = "The DICOMDIR lists this file, but it is not there."
            yield Problem(str(target), Stage.FIND, reason, "Copy the medium again, whole.")


def _as_spelt_on_disk(folder: Path, parts: tuple[str, ...]) -> Path:
    """The path below `folder`; where there is none so spelt, one in lower case, as some systems show a CD."""
    for part in parts:
        exact, lower = folder / part, folder / part.lower()
        folder = lower if not os.path.exists(exact) and os.path.exists(lower) else exact
    return folder
