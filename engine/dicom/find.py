"""Search for files: folders are walked, a DICOMDIR is replaced by the files it references."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.uids import DICOMDIR_CLASS
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import Problem, Stage
from stenosis_trt.engine.support.safe_text import escape_controls

_DICOMDIR_NAMES = ("dicomdir", "dicomdir.dcm")
_DICOMDIR_CLASS = b"UI\x14\x00" + DICOMDIR_CLASS.encode()
"""MediaStorageSOPClassUID of a DICOMDIR, as encoded in the file meta information."""
_SEARCHED_BYTES = 1024
_VERSION = re.compile(r";\d+$", re.ASCII)
REPORTS_MARKER = "reports-of-stenosis-trt.txt"
"""Name of a file in the folder of reports of a run. They are DICOM objects of the same studies: reading them
with the images would change what a study consists of."""
_MISSING = "There is no such file or folder."

_Identity = tuple[int, int]

References = list[tuple[str, ...]]
"""Files that a DICOMDIR references, each as the components of its path below the DICOMDIR's folder."""


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
    """Yield every file below the given paths once, in sorted order.

    Folders are walked recursively, each once, following symbolic links. A DICOMDIR among `paths` is replaced
    by the files it references; one inside a folder is skipped, since its files are found anyway.

    Args:
        paths: folders, files, DICOMDIRs.
        list_dicomdir: reads the references of a DICOMDIR.

    Yields:
        Paths of files, and a Problem for each path that cannot be reached or folder that cannot be listed.
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
    """Return the status of a path, or the Problem that prevents it."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            return Problem(str(path), Stage.FIND, "The link is broken.", "Copy what it should point to.")
        return Problem(str(path), Stage.FIND, _MISSING, "Check the path.")
    except OSError as error:
        denied = isinstance(error, PermissionError)
        advice = "Give this user permission to read it and its folders." if denied else "Check the path."
        return Problem(str(path), Stage.FIND, f"The path cannot be reached ({error.strerror}).", advice)


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
    """Return True if a file is a DICOMDIR, by its name or by its SOP class."""
    if _normalised_name(path.name) in _DICOMDIR_NAMES:
        return True
    try:
        with path.open("rb") as stream:
            return _DICOMDIR_CLASS in stream.read(_SEARCHED_BYTES)
    except OSError:
        # Reading its header reports the reason.
        return False


def _walk(folder: Path, walked: set[_Identity]) -> Iterator[Path | Problem]:
    denied: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=denied.append, followlinks=True):
        status = _status(Path(parent))
        if isinstance(status, Problem) or _identity(status) in walked:
            # Removed meanwhile, a link to a parent folder, or a folder given twice.
            folders.clear()
            continue
        walked.add(_identity(status))
        if REPORTS_MARKER in files:
            folders.clear()
            reason = "The folder holds reports of stenosis-trt, not images of a scanner."
            yield Problem(parent, Stage.FIND, reason, "None is needed.", harmless=True)
            continue
        folders.sort()
        for name in sorted(files):
            if _normalised_name(name) not in _DICOMDIR_NAMES:
                yield Path(parent) / name
    for error in denied:
        yield Problem(
            str(error.filename),
            Stage.FIND,
            f"The folder cannot be listed ({error.strerror}).",
            "Give this user permission to read it.",
        )


def _follow(path: Path, list_dicomdir: Callable[[Path], References | DicomError]) -> Iterator[Path | Problem]:
    """Yield the files that a DICOMDIR references, in its order."""
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
            reason = f"The DICOMDIR lists this file, and {names} both match it."
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
            yield Problem(str(target), Stage.FIND, reason, "Copy the whole medium again.")


class _Folders:
    """Finds files by names that a file system or an export may have changed: another case, the version ";1"
    of ISO 9660, or an added file extension."""

    def __init__(self) -> None:
        self._names: dict[Path, list[str]] = {}

    def find(self, folder: Path, parts: tuple[str, ...]) -> list[Path]:
        """Return the files below `folder` that match the components of a path best: one, none, or several if
        the match is ambiguous."""
        for number, part in enumerate(parts):
            if os.path.lexists(folder / part):
                folder /= part
                continue
            last = number == len(parts) - 1
            found = self._similar_names(folder, part, with_ending=last)
            if len(found) != 1:
                return found if last else []
            folder = found[0]
        return [folder]

    def _similar_names(self, folder: Path, part: str, with_ending: bool) -> list[Path]:
        if folder not in self._names:
            self._names[folder] = _listed(folder)
        names, wanted = self._names[folder], _normalised_name(part)
        found = [name for name in names if _normalised_name(name) == wanted]
        if not found and with_ending:
            found = [name for name in names if _stem(name) == wanted or _stem(part) == _normalised_name(name)]
        return [folder / name for name in found]


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        # Each file in it is reported as missing.
        return []


def _normalised_name(name: str) -> str:
    """Return the name without case, ISO 9660 version and trailing dots."""
    return _VERSION.sub("", name).rstrip(".").casefold()


def _stem(name: str) -> str:
    """Return the plain name without its file extension."""
    return _normalised_name(name).rpartition(".")[0]
