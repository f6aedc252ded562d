"""Folder of unpacked archives and the names of their files: the reader's side of `archives`."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from stenosis_trt.engine.dicom.archive_types import ArchiveMember, RefusedMember
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.records import Problem, StudyHeader

_SEPARATOR = "!/"
"""Separates the path of an archive from the name of a member."""


class UnpackedArchives:
    """A temporary folder in TMPDIR with the files of archives, created on demand and removed by `close`.

    The folder is private (mode 0700), since its files hold patient data.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._archives: dict[Path, Path] = {}
        self._names: dict[Path, str] = {}

    def new_folder(self, archive: Path) -> Path:
        """Create an empty folder for the files of one archive. Thread-safe.

        Raises:
            OSError: the folder cannot be created.
        """
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="stenosis-trt-", ignore_cleanup_errors=True)
            folder = Path(os.path.abspath(self._folder.name)) / f"{len(self._archives):06d}"
            folder.mkdir(mode=0o700)
            self._archives[folder] = archive
        return folder

    def add(self, archive: Path, members: Iterable[ArchiveMember]) -> list[Path]:
        """Register the members of an archive; return the paths they were unpacked to."""
        found = {member.path: unpacked_member_path(archive, member.name) for member in members}
        self._names |= found
        return list(found)

    def discard(self, folder: Path) -> None:
        """Remove the files of an archive that is rejected."""
        shutil.rmtree(folder, ignore_errors=True)

    def shown(self, path: Path) -> str:
        """Return the path to report: "archive.zip!/folder/file" for an unpacked file."""
        return self._names.get(path, str(path))

    def problems(self, found: Sequence[Problem]) -> tuple[Problem, ...]:
        """Return problems with the paths to report."""
        if not self._names:
            return tuple(found)
        return tuple(replace(problem, path=self._shown_place(Path(problem.path))) for problem in found)

    def studies(self, found: Sequence[StudyHeader]) -> tuple[StudyHeader, ...]:
        """Return studies with the path of their archive, or the common folder if they are partly in one."""
        if not self._names:
            return tuple(found)
        return tuple(replace(study, path=self._place(study)) for study in found)

    def _place(self, study: StudyHeader) -> str:
        folders = {frame.path.parent for series in study.series for frame in series.frames}
        places = {str(self._archives.get(folder, folder)) for folder in folders}
        return places.pop() if len(places) == 1 else os.path.commonpath(places)

    def _shown_place(self, path: Path) -> str:
        return str(self._archives[path]) if path in self._archives else self.shown(path)

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def members_of(
    archive: Path, answers: Sequence[ArchiveMember | RefusedMember | DicomError]
) -> tuple[list[ArchiveMember], list[Problem]]:
    """Return the unpacked members and a Problem for each other one, or the Problem of a rejected archive."""
    members: list[ArchiveMember] = []
    problems: list[Problem] = []
    for answer in answers:
        if isinstance(answer, DicomError):
            return [], [answer.problem(str(archive))]
        if isinstance(answer, ArchiveMember):
            members.append(answer)
        else:
            problems.append(answer.error.problem(unpacked_member_path(archive, answer.name)))
    return members, problems


def unpacked_member_path(archive: Path, name: str) -> str:
    """Return the path to report for a member of an archive."""
    return f"{archive}{_SEPARATOR}{name}"
