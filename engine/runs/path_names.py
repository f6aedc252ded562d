"""Names of paths in results and messages. `--no-paths` hides them: folders are often named after patients."""

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
    """Names paths by themselves, with control characters escaped."""

    def of_folder(self, folder: Path) -> str:
        """Return the name of the output folder."""
        return escape_controls(str(folder))

    def of_study(self, study: StudyHeader) -> str:
        """Return the name of a study's folder."""
        return escape_controls(study.path)

    def in_study(self, study: StudyHeader, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """Return the problems of a study and its files, with names as paths."""
        return tuple(problems)

    def of_no_study(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return problems of files that belong to no study, with names as paths."""
        return list(problems)


class HiddenPaths(PathNames):
    """Names paths by numbers and hashes.

    The number of a file is its position among the files of its study, or among the other files that are
    reported, in the order of their paths; `inspect --files` lists both. Names of one path have the same hash,
    HMAC-SHA-256 with a random key. The key is not stored, so that no path can be found by hashing guesses.
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
    """Return the paths of a study's files, sorted."""
    return sorted({str(frame.path) for series in study.series for frame in series.frames})


def reported_files(problems: Iterable[Problem]) -> list[str]:
    """Return the paths of files with problems, sorted."""
    return sorted({problem.path for problem in problems})
