"""Which files there are: folders walked, files taken as they are, a DICOMDIR followed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydicom.uid import MediaStorageDirectoryStorage

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import Problem, Stage
from stenosis_trt.engine.support.safe_text import escape_controls

_DICOMDIR_NAMES = ("dicomdir", "dicomdir.dcm")
_CLASS = b"UI\x14\x00" + MediaStorageDirectoryStorage.encode()
"""The element MediaStorageSOPClassUID of a DICOMDIR, which stands in a meta header."""
_CLASS_WITHIN = 1024
_VERSION = re.compile(r";\d+$", re.ASCII)
_MISSING = "There is no such file or folder."

_Identity = tuple[int, int]

References = list[tuple[str, ...]]
"""Files that a DICOMDIR lists, each as the parts of its path below the DICOMDIR's folder."""


def check_paths(paths: Sequence[Path], no_paths: bool = False) -> None:
    """Check that something exists at one of the paths at least.

    Args:
        paths: what a user gave.
        no_paths: name none of them in the error.

    Raises:
        InputError: there is nothing at any of them.
    """
    if not any(map(os.path.lexists, paths)):
        shown = "any of the PATHS" if no_paths else ", ".join(escape_controls(str(path)) for path in paths)
        raise InputError(f"There is nothing at {shown}.", "Give folders, files or DICOMDIRs that are there.")


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
    elif stat.S_ISREG(status.st_mode) and _is_dicomdir(path):
        yield from _follow(path, list_dicomdir)
    else:
        yield path


def _is_dicomdir(path: Path) -> bool:
    """Whether a file that was given is a DICOMDIR: by its name, or, called otherwise, by its SOP class."""
    if _plain_name(path.name) in _DICOMDIR_NAMES:
        return True
    try:
        with path.open("rb") as stream:
            return _CLASS in stream.read(_CLASS_WITHIN)
    except OSError:
        # Why it cannot be read is said where its header is read.
        return False


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
            if _plain_name(name) not in _DICOMDIR_NAMES:
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
    folders = _Folders()
    for parts in references:
        if any(part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part for part in parts):
            advice = "Give the folder instead of its DICOMDIR."
            yield Problem(str(path), Stage.FIND, "The DICOMDIR names a file outside its folder.", advice)
            continue
        targets = folders.find(path.parent, parts) or [path.parent.joinpath(*parts)]
        if len(targets) > 1:
            names = " and ".join(target.name for target in targets[:2])
            reason = f"The DICOMDIR lists this file, and {names} could both be it."
            advice = "Give the folder instead of its DICOMDIR."
            yield Problem(str(path.parent.joinpath(*parts)), Stage.FIND, reason, advice)
            continue
        (target,) = targets
        status = _status(target)
        if not isinstance(status, Problem) and not stat.S_ISDIR(status.st_mode):
            yield target
        elif isinstance(status, Problem) and status.reason != _MISSING:
            yield status
        else:
            reason = "The DICOMDIR lists this file, but it is not there."
            yield Problem(str(target), Stage.FIND, reason, "Copy the medium again, whole.")


class _Folders:
    """Names in folders, found as a medium's file system may show them: in another case, with the ";1" of ISO
    9660, with an ending that the export added."""

    def __init__(self) -> None:
        self._names: dict[Path, list[str]] = {}

    def find(self, folder: Path, parts: tuple[str, ...]) -> list[Path]:
        """Files or folders below `folder` that the parts of a path may stand for: one, unless it is not clear
        which, or none is there. Names that fit better leave out those that fit less."""
        for number, part in enumerate(parts):
            if os.path.lexists(folder / part):
                folder /= part
                continue
            last = number == len(parts) - 1
            found = self._alike(folder, part, with_ending=last)
            if len(found) != 1:
                return found if last else []
            folder = found[0]
        return [folder]

    def _alike(self, folder: Path, part: str, with_ending: bool) -> list[Path]:
        if folder not in self._names:
            self._names[folder] = _listed(folder)
        names, wanted = self._names[folder], _plain_name(part)
        found = [name for name in names if _plain_name(name) == wanted]
        if not found and with_ending:
            found = [name for name in names if _stem(name) == wanted or _stem(part) == _plain_name(name)]
        return [folder / name for name in found]


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        # That it is not there is said of each file in it.
        return []


def _plain_name(name: str) -> str:
    """In one case, without the version that ISO 9660 puts behind a name and the point of an empty ending."""
    return _VERSION.sub("", name).rstrip(".").casefold()


def _stem(name: str) -> str:
    """The same, without an ending."""
    return _plain_name(name).rpartition(".")[0]
