"""What a run leaves behind: results.csv, results.jsonl, errors.csv, run.json.

Each study is first one file of its own below `studies/`, written whole; the tables are put together from
those. So a run that is killed loses at most the study it was on, and one that is resumed skips what is
there. Files are named by the hash of the study's key, never by anything that identifies a patient.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from stenosis_trt.engine.dicom.patients import STUDY_UID_SHARED
from stenosis_trt.engine.records import Problem, StudyHeader, StudyResult
from stenosis_trt.engine.regrading import lost_an_image, may_read_more, tries
from stenosis_trt.engine.tables import ERROR_COLUMNS, RESULT_COLUMNS, error_row, result_rows
from stenosis_trt.engine.whole_files import PART, write_whole, writing_whole

RESULTS, LINES, ERRORS, RUN = "results.csv", "results.jsonl", "errors.csv", "run.json"
_TABLES = (RESULTS, LINES, ERRORS)
_STUDIES = "studies"
_MADE_WITH = "made_with.json"
_DONE = ".json"
_FAILED = ".failed.json"
_NAMES = {"identifiers": "setting of --keep-identifiers"}
"""What keys of `made_with` are called where a person reads them."""


class OutputError(Exception):
    """The output folder cannot be used. `advice` says what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason} {advice}")
        self.reason, self.advice = reason, advice


@dataclass(frozen=True)
class Tables:
    """What the tables hold.

    `graded` and `failed` are studies, of those that were asked for, `graded_now` those that this run graded;
    `problems` are all rows of errors.csv;
    `lost_files` are images of the studies that were asked for that were lost when their pixels were read.
    """

    graded: int
    failed: int
    problems: int
    lost_files: int = 0
    graded_now: int = 0


class NotWritten(OutputError):
    """The output folder can be used, but not be written to: the disk is full, say."""


class ResultStore:
    """The output folder of a run. Use it as a context manager: until its end no other run may write there.

    Args:
        out: made where absent.
        made_with: everything that decides results (pack, versions, backend); a folder holds results of
            one kind only.
        resume: go on with what an earlier run of the same kind left there.
        read_with: what decides which files can be read (limits, decoders). A study that lost images under
            others is not done.

    Raises:
        OutputError: the folder holds results and `resume` is not given, or they were made with something
            else, or another run is writing there, or it cannot be written. Every method raises it where the
            folder can no longer be written, or holds a file that something else damaged.
    """

    def __init__(
        self,
        out: Path,
        made_with: Mapping[str, Any],
        resume: bool,
        read_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.out, self._read_with = out, dict(read_with or {})
        self._run = secrets.token_hex(8)
        self._studies = out / _STUDIES
        self._lock = -1
        with self._written("Give another --out."):
            self._studies.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._studies, os.O_RDONLY)
        try:
            self._take_lock()
            self._check(made_with, resume)
            with self._written("Give another --out."):
                for part in [*out.glob(f".*{PART}"), *self._studies.glob(f".*{PART}")]:
                    part.unlink()
                write_whole(self._marker, json.dumps(made_with, indent=2, sort_keys=True) + "\n")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ResultStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other runs write to the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def _marker(self) -> Path:
        return self._studies / _MADE_WITH

    def _take_lock(self) -> None:
        with self._written("Give another --out."):
            try:
                # The system gives the lock back when the process ends, however it ends.
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"Another run is writing to {self.out}.", "Wait for its end, or give another --out."
                ) from error

    def _check(self, now: Mapping[str, Any], resume: bool) -> None:
        """Refuse what would be written over or mixed."""
        held = [name for name in (RESULTS, LINES, ERRORS, RUN) if os.path.lexists(self.out / name)]
        if not self._marker.exists():
            if held:
                raise OutputError(
                    f"{self.out} holds a {held[0]} that no run left there.", "Give another --out."
                )
            return
        before = self._content(self._marker, "Give another --out.")
        if not resume:
            if held or any(path != self._marker for path in self._studies.glob(f"*{_DONE}")):
                raise OutputError(
                    f"{self.out} already holds results.",
                    "Give --resume to go on with them, or another --out.",
                )
            return
        differs = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differs:
            raise OutputError(
                f"The results in {self.out} were made with another "
                f"{', '.join(_NAMES.get(key, key) for key in differs)}.",
                "Give another --out, or the same pack, versions, device and settings as before.",
            )

    @contextmanager
    def _written(self, advice: str = "Make room, and give --resume to go on.") -> Iterator[None]:
        """Say in one sentence why the folder cannot be written."""
        try:
            yield
        except OSError as error:
            raise NotWritten(
                f"The output folder {self.out} cannot be written ({error.strerror}).", advice
            ) from error

    def _content(
        self, path: Path, advice: str = "Delete it and give --resume, and its study is graded again."
    ) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} cannot be read ({type(error).__name__}).", advice) from error
        if not isinstance(content, dict):
            raise OutputError(f"{path} does not hold what a run writes there.", advice)
        return content

    def _path(self, key: str, ending: str) -> Path:
        return self._studies / f"{hashlib.sha256(key.encode()).hexdigest()}{ending}"

    def owns(self, path: str) -> bool:
        """Whether this file is kept here; a scan meets such files where the output lies in the input."""
        place = Path(path)
        if place.parent == Path(os.path.abspath(self.out)):
            return place.name in (RESULTS, LINES, ERRORS, RUN)
        return place.parent == Path(os.path.abspath(self._studies)) and place.name.endswith(_DONE)

    def is_done(self, study: StudyHeader) -> bool:
        """Whether this study was graded from the images it has now, and from all that can be read."""
        return self._is_kept(study) and not self._is_outdated(study) and not self.lost_images(study)

    def lost_images(self, study: StudyHeader) -> bool:
        """Whether this study was graded without images that may be read now; see `regrading`."""
        if not self._is_kept(study):
            return False
        return may_read_more(self._content(self._path(study.key, _DONE)), self._read_with)

    def discard_outdated(self, study: StudyHeader) -> bool:
        """Forget a result from other images than the study has now: it was graded while it was being copied.

        Returns:
            Whether there was one.
        """
        if not self._is_kept(study) or not self._is_outdated(study):
            return False
        with self._written():
            self._path(study.key, _DONE).unlink()
        return True

    def _is_kept(self, study: StudyHeader) -> bool:
        return self._path(study.key, _DONE).exists()

    def _is_outdated(self, study: StudyHeader) -> bool:
        return self._content(self._path(study.key, _DONE)).get("images") != _images(study)

    def _tries(self, study: StudyHeader) -> int:
        """How often this study was graded from the images it has now, read as now."""
        if not self._is_kept(study) or self._is_outdated(study):
            return 0
        return tries(self._content(self._path(study.key, _DONE)), self._read_with)

    def add(self, study: StudyHeader, result: StudyResult, problems: Sequence[Problem]) -> None:
        """Keep a graded study, with the problems its files had.

        Raises:
            ValueError: the result holds a number that is not finite.
        """
        content = {
            "images": _images(study),
            "run": self._run,
            "read_with": self._read_with,
            "tries": self._tries(study) + 1,
            "result": asdict(result),
            "problems": [asdict(problem) for problem in problems],
        }
        text = json.dumps(content, allow_nan=False)
        with self._written():
            write_whole(self._path(study.key, _DONE), text + "\n")
            self._path(study.key, _FAILED).unlink(missing_ok=True)

    def add_failed(self, study: StudyHeader, problems: Sequence[Problem]) -> None:
        """Keep why a study could not be graded. It is not done: a run that is resumed tries it again.

        An earlier result of it is removed: it was to be graded from more images, and cannot be.
        """
        content = {"problems": [asdict(problem) for problem in problems]}
        with self._written():
            write_whole(self._path(study.key, _FAILED), json.dumps(content) + "\n")
            self._path(study.key, _DONE).unlink(missing_ok=True)

    def earlier_runs(self) -> list[dict[str, Any]]:
        """The records in run.json of runs that graded something, the oldest first: what the results cost."""
        path = self.out / RUN
        if not path.exists():
            return []
        last = self._content(path, "Delete it and give --resume.")
        earlier = last.pop("earlier", [])
        return [*earlier, last] if last.get("counts", {}).get("graded") else earlier

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Write run.json."""
        with self._written():
            write_whole(self.out / RUN, json.dumps(record, indent=2) + "\n")

    def write_tables(self, order: Sequence[str], problems: Iterable[Problem]) -> Tables:
        """Put the three tables together, one study at a time.

        Args:
            order: keys of the studies in the order of the rows; studies of an earlier run follow.
            problems: those that belong to no study.

        Returns:
            What they hold, of the studies in `order`.

        Raises:
            NotWritten: a table does not fit; those that do are written, and the message names the others.
        """
        of_no_study = list(problems)
        try:
            return self._tables(order, of_no_study, _TABLES)
        except NotWritten as error:
            missing = [name for name in _TABLES if not self._fits(name, order, of_no_study)]
            if not missing:
                return self.count(order, of_no_study)
            kept = f"Every study that was graded is kept in {self._studies}."
            reason = f"{error.reason} There is no room for {' and '.join(missing)} of now. {kept}"
            raise NotWritten(reason, error.advice) from error

    def count(self, order: Sequence[str], problems: Iterable[Problem]) -> Tables:
        """What the tables would hold; nothing is written."""
        return self._tables(order, problems, ())

    def _fits(self, name: str, order: Sequence[str], problems: Iterable[Problem]) -> bool:
        """Write one of the tables; False where it cannot be."""
        try:
            self._tables(order, problems, (name,))
        except NotWritten:
            return False
        return True

    def _tables(self, order: Sequence[str], problems: Iterable[Problem], names: Collection[str]) -> Tables:
        """Write those tables that are in `names`."""
        wanted = {self._path(key, ending).name for key in order for ending in (_DONE, _FAILED)}
        graded = graded_now = failed = rows_of_errors = lost_files = 0
        with self._written(), ExitStack() as stack:
            rows, lines, errors = (stack.enter_context(self._table(name, names)) for name in _TABLES)
            table = csv.DictWriter(rows, RESULT_COLUMNS, lineterminator="\n")
            table.writeheader()
            failures = csv.DictWriter(errors, ERROR_COLUMNS, lineterminator="\n")
            failures.writeheader()
            for problem in problems:
                failures.writerow(error_row(asdict(problem)))
                rows_of_errors += 1
            for name in self._names(order):
                content = self._content(self._studies / name)
                if "result" in content:
                    table.writerows(result_rows(content["result"]))
                    lines.write(json.dumps(content["result"]) + "\n")
                    graded += name in wanted
                    graded_now += name in wanted and content.get("run") == self._run
                else:
                    failed += name in wanted
                failures.writerows(error_row(problem) for problem in content["problems"])
                rows_of_errors += len(content["problems"])
                lost_files += sum(map(lost_an_image, content["problems"])) if name in wanted else 0
        return Tables(graded, failed, rows_of_errors, lost_files, graded_now)

    def _table(self, name: str, names: Collection[str]) -> AbstractContextManager[TextIO]:
        if name in names:
            return writing_whole(self.out / name)
        return Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")

    def _names(self, order: Sequence[str]) -> Iterator[str]:
        """Files of all studies kept, those of `order` first and in that order."""
        names = {path.name for path in self._studies.glob(f"*{_DONE}")} - {_MADE_WITH}
        wanted = [self._path(key, ending).name for key in order for ending in (_DONE, _FAILED)]
        for name in [*(name for name in wanted if name in names), *sorted(names - {*wanted})]:
            # A kill may have come between writing a result and deleting the failure before it.
            if name.endswith(_FAILED) and name.removesuffix(_FAILED) + _DONE in names:
                continue
            yield name


def _images(study: StudyHeader) -> str:
    """A hash of which images a study has, in whatever order they were found.

    Where patients share a UID, the images' paths count too: which of the patients has a key depends on who
    else was found, and their images may have the same UIDs.
    """
    frames = [frame for series in study.series for frame in series.frames]
    names = sorted(f"{frame.sop_instance_uid} {frame.index}" for frame in frames)
    if STUDY_UID_SHARED in study.flags:
        names.extend(sorted({str(frame.path) for frame in frames}))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
