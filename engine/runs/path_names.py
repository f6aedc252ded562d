"""What results say in place of paths with `--no-paths`: folders are often named after patients."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from stenosis_trt.engine.records import Problem, StudyHeader
from stenosis_trt.engine.support.safe_text import escape_controls

_KEY_BYTES = 32
_HASH_DIGITS = 12


class PathNames:
    """Paths as results name them: as they are, with control characters escaped."""

    def of_folder(self, folder: Path) -> str:
        """The output folder, in messages."""
        return escape_controls(str(folder))

    def of_study(self, study: StudyHeader) -> str:
        """The folder of a study."""
        return escape_controls(study.path)

    def in_study(self, study: StudyHeader, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """The problems of a study and of its files, with their paths named."""
        return tuple(problems)

    def of_no_study(self, problems: Sequence[Problem]) -> list[Problem]:
        """The problems of files that are of no study, with their paths named."""
        return list(problems)


class HiddenPaths(PathNames):
    """Numbers and hashes in place of paths.

    A file of a study has its number among the study's files, in the order of their paths; any other file that
    is reported, its number among those. `inspect --files` lists both. The hash (HMAC-SHA-256) tells whether
    two names are of one path. Its key is drawn for each run and kept nowhere, so nobody can find a path by
    trying names.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_KEY_BYTES)

    def of_folder(self, folder: Path) -> str:
        return "the folder of --out"

    def of_study(self, study: StudyHeader) -> str:
        return self._named("study", study.path)

    def in_study(self, study: StudyHeader, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        numbers = {path: number for number, path in enumerate(study_files(study), start=1)}
        return tuple(
            replace(
                problem,
                path=self._named(f"file {numbers[problem.path]}", problem.path)
                if problem.path in numbers and problem.path != study.path
                else self._named("study" if problem.path == study.path else "file", problem.path),
            )
            for problem in problems
        )

    def of_no_study(self, problems: Sequence[Problem]) -> list[Problem]:
        numbers = {path: number for number, path in enumerate(reported_files(problems), start=1)}
        return [
            replace(problem, path=self._named(f"reported file {numbers[problem.path]}", problem.path))
            for problem in problems
        ]

    def _named(self, what: str, path: str) -> str:
        digest = hmac.new(self._key, path.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
        return f"{what} [{digest[:_HASH_DIGITS]}]"


def study_files(study: StudyHeader) -> list[str]:
    """Paths of a study's files, sorted."""
    return sorted({str(frame.path) for series in study.series for frame in series.frames})


def reported_files(problems: Iterable[Problem]) -> list[str]:
    """Paths of files that were reported when headers were read, sorted."""
    return sorted({problem.path for problem in problems})
