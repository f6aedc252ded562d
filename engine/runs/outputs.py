"""What a run leaves behind: results.csv, results.jsonl, errors.csv, studies.csv, run.json.

Each study is first one file of its own below `studies/`, written whole; the tables are put together from
those. So a run that is killed loses at most the study it was on, and one that is resumed skips what is
there. Files are named by the hash of the study's key, never by anything that identifies a patient.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

from stenosis_trt.engine.dicom.patients import STUDY_UID_SHARED
from stenosis_trt.engine.errors import NotWritten, OutputError
from stenosis_trt.engine.records import Problem, StudyHeader, StudyResult
from stenosis_trt.engine.runs.path_names import PathNames
from stenosis_trt.engine.runs.regrading import grading_attempts, lost_image, should_regrade
from stenosis_trt.engine.runs.stored_results import (
    FORMAT_VERSION,
    DamagedFile,
    StoredStudy,
    read_fingerprint,
    read_run_records,
    read_study,
    study_json,
)
from stenosis_trt.engine.runs.table_files import CsvFormat, CsvTable
from stenosis_trt.engine.runs.tables import (
    ERROR_COLUMNS,
    RESULT_COLUMNS,
    STUDY_COLUMNS,
    error_row,
    result_rows,
    study_row,
    study_warnings,
    unreached_row,
    worst_level,
)
from stenosis_trt.engine.support.atomic_files import PARTIAL_SUFFIX, atomic_write, write_text_atomically
from stenosis_trt.engine.support.safe_text import escape_controls_in

RESULTS_CSV, RESULTS_JSONL, ERRORS_CSV, RUN_JSON = "results.csv", "results.jsonl", "errors.csv", "run.json"
STUDIES_CSV = "studies.csv"
_TABLES = (RESULTS_CSV, RESULTS_JSONL, ERRORS_CSV, STUDIES_CSV)
_OF_A_RUN = (*_TABLES, RUN_JSON)
_STUDIES = "studies"
_MADE_WITH = "made_with.json"
_DONE = ".json"
_FAILED = ".failed.json"
_NAMES = {"identifiers": "setting of --keep-identifiers", "paths": "setting of --no-paths"}
"""What keys of `result_fingerprint` are called where a person reads them."""
_GRADED_AGAIN = "Delete it and give --resume, and its study is graded again."

_Content = TypeVar("_Content")


@dataclass(frozen=True)
class TableTotals:
    """What the tables hold.

    `graded` and `failed` are studies, of those that were asked for, `graded_now` those that this run graded;
    `problems` are all rows of errors.csv.
    `lost_files` are images of the studies that were asked for that were lost when their pixels were read.
    Of the studies that were asked for and graded, `worst_grades` counts those of each worst grade (None
    where no level has a grade), `warnings` those that have a warning.
    """

    graded: int
    failed: int
    problems: int
    lost_files: int = 0
    graded_now: int = 0
    worst_grades: Counter[int | None] = field(default_factory=Counter, compare=False)
    warnings: Counter[str] = field(default_factory=Counter, compare=False)


class ResultStore:
    """The output folder of a run. Use it as a context manager: until its end no other run may write there.

    Args:
        out: made where absent.
        made_with: everything that decides results (pack, versions, backend); a folder holds results of
            one kind only.
        resume: go on with what an earlier run of the same kind left there.
        names: how results and messages name paths.
        form: how tables are written.
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
        result_fingerprint: Mapping[str, Any],
        resume: bool,
        names: PathNames | None = None,
        form: CsvFormat | None = None,
        reading_fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        self.out, self._names_of_paths, self._form = out, names or PathNames(), form or CsvFormat()
        self._read_with = dict(reading_fingerprint or {})
        self._run = secrets.token_hex(8)
        self._studies = out / _STUDIES
        self._lock = -1
        with self._written("Give another --out."):
            self._studies.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._studies, os.O_RDONLY)
        try:
            self._take_lock()
            self._check(result_fingerprint, resume)
            with self._written("Give another --out."):
                for part in [*out.glob(f".*{PARTIAL_SUFFIX}"), *self._studies.glob(f".*{PARTIAL_SUFFIX}")]:
                    part.unlink()
                write_text_atomically(
                    self._marker, json.dumps(result_fingerprint, indent=2, sort_keys=True) + "\n"
                )
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
    def shown(self) -> str:
        """The folder as messages name it."""
        return self._names_of_paths.of_folder(self.out)

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
                    f"Another run is writing to {self.shown}.", "Wait for its end, or give another --out."
                ) from error

    def _check(self, now: Mapping[str, Any], resume: bool) -> None:
        """Refuse what would be written over or mixed."""
        held = [name for name in _OF_A_RUN if os.path.lexists(self.out / name)]
        if not self._marker.exists():
            if held:
                raise OutputError(
                    f"{self.shown} holds a {held[0]} that no run left there.", "Give another --out."
                )
            return
        if not resume:
            if held or any(path != self._marker for path in self._studies.glob(f"*{_DONE}")):
                raise OutputError(
                    f"{self.shown} already holds results.",
                    "Give --resume to go on with them, or another --out.",
                )
            return
        before = self._content(read_fingerprint, self._marker, "Give another --out.")
        differs = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differs:
            raise OutputError(
                f"The results in {self.shown} were made with another "
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
                f"The output folder {self.shown} cannot be written ({error.strerror}).", advice
            ) from error

    def _content(self, read: Callable[[Path], _Content], path: Path, advice: str) -> _Content:
        """What a file of this folder holds."""
        try:
            return read(path)
        except DamagedFile as error:
            raise OutputError(f"{path.relative_to(self.out)} in {self.shown} {error}", advice) from error

    def _kept(self, name: str) -> StoredStudy:
        return self._content(read_study, self._studies / name, _GRADED_AGAIN)

    def _path(self, key: str, ending: str) -> Path:
        return self._studies / f"{hashlib.sha256(key.encode()).hexdigest()}{ending}"

    def owns(self, path: str) -> bool:
        """Whether this file is kept here; a scan meets such files where the output lies in the input."""
        place = Path(path)
        if place.parent == Path(os.path.abspath(self.out)):
            return place.name in _OF_A_RUN
        return place.parent == Path(os.path.abspath(self._studies)) and place.name.endswith(_DONE)

    def is_done(self, study: StudyHeader) -> bool:
        """Whether this study was graded from the images it has now, and from all that can be read."""
        return self._is_kept(study) and not self._is_outdated(study) and not self.lost_images(study)

    def lost_images(self, study: StudyHeader) -> bool:
        """Whether this study was graded without images that may be read now; see `regrading`."""
        if not self._is_kept(study):
            return False
        return should_regrade(self._kept(self._path(study.key, _DONE).name), self._read_with)

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
        return self._kept(self._path(study.key, _DONE).name).images != _images(study)

    def _tries(self, study: StudyHeader) -> int:
        """How often this study was graded from the images it has now, read as now."""
        if not self._is_kept(study) or self._is_outdated(study):
            return 0
        return grading_attempts(self._kept(self._path(study.key, _DONE).name), self._read_with)

    def add(self, study: StudyHeader, result: StudyResult, problems: Sequence[Problem]) -> None:
        """Keep a graded study, with the problems its files had.

        Raises:
            ValueError: the result holds a number that is not finite.
        """
        text = study_json(self._to_keep(study, result, problems))
        with self._written():
            write_text_atomically(self._path(study.key, _DONE), text + "\n")
            self._path(study.key, _FAILED).unlink(missing_ok=True)

    def add_failed(self, study: StudyHeader, problems: Sequence[Problem]) -> None:
        """Keep why a study could not be graded. It is not done: a run that is resumed tries it again.

        An earlier result of it is removed: it was to be graded from more images, and cannot be.
        """
        text = study_json(self._to_keep(study, None, problems))
        with self._written():
            write_text_atomically(self._path(study.key, _FAILED), text + "\n")
            self._path(study.key, _DONE).unlink(missing_ok=True)

    def _to_keep(
        self, study: StudyHeader, result: StudyResult | None, problems: Sequence[Problem]
    ) -> StoredStudy:
        return StoredStudy(
            format=FORMAT_VERSION,
            study_uid=study.study_uid,
            path=self._names_of_paths.of_study(study),
            images=_images(study),
            result=result,
            problems=self._names_of_paths.in_study(study, problems),
            run=self._run,
            read_with=self._read_with,
            tries=self._tries(study) + 1,
        )

    def earlier_runs(self) -> list[dict[str, Any]]:
        """The records in run.json of runs that graded something, the oldest first: what the results cost."""
        path = self.out / RUN_JSON
        if not path.exists():
            return []
        return self._content(read_run_records, path, "Delete it and give --resume.")

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Write run.json."""
        with self._written():
            text = json.dumps(escape_controls_in(record), indent=2, allow_nan=False)
            write_text_atomically(self.out / RUN_JSON, text + "\n")

    def write_tables(self, order: Sequence[str], problems: Iterable[Problem]) -> TableTotals:
        """Put the tables together, one study at a time.

        Args:
            order: keys of the studies in the order of the rows; studies of an earlier run follow.
            problems: those that belong to no study, or to one that has others of its own.

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
            kept = f"Every study that was graded is kept in {self.shown}/{_STUDIES}."
            reason = f"{error.reason} There is no room for {' and '.join(missing)} of now. {kept}"
            raise NotWritten(reason, error.advice) from error

    def count(self, order: Sequence[str], problems: Iterable[Problem]) -> TableTotals:
        """What the tables would hold; nothing is written."""
        return self._tables(order, problems, ())

    def _fits(self, name: str, order: Sequence[str], problems: Iterable[Problem]) -> bool:
        """Write one of the tables; False where it cannot be."""
        try:
            self._tables(order, problems, (name,))
        except NotWritten:
            return False
        return True

    def _tables(
        self, order: Sequence[str], problems: Iterable[Problem], names: Collection[str]
    ) -> TableTotals:
        """Write those tables that are in `names`."""
        graded = graded_now = failed = rows_of_errors = lost_files = 0
        worst_grades: Counter[int | None] = Counter()
        warnings: Counter[str] = Counter()
        # Of studies that share a UID no one is meant.
        keys = {*order}
        numbers = {key: number for number, key in enumerate(order, start=1) if f"{key}#2" not in keys}
        with self._written(), ExitStack() as stack:
            rows, lines, errors, studies = (stack.enter_context(self._table(name, names)) for name in _TABLES)
            results = CsvTable(rows, RESULT_COLUMNS, self._form)
            failures = CsvTable(errors, ERROR_COLUMNS, self._form)
            summary = CsvTable(studies, STUDY_COLUMNS, self._form)
            for problem in problems:
                failures.add([error_row(problem, numbers.get(problem.study_uid))])
                rows_of_errors += 1
            for number, (name, key) in enumerate(self._names(order), start=1):
                if not name:
                    summary.add([unreached_row(number, key.partition("#")[0])])
                    continue
                kept, wanted = self._kept(name), bool(key)
                summary.add([study_row(number, kept)])
                failures.add(error_row(problem, number) for problem in kept.problems)
                rows_of_errors += len(kept.problems)
                lost_files += sum(map(lost_image, kept.problems)) if wanted else 0
                if kept.result is None:
                    failed += wanted
                    continue
                results.add(result_rows(number, kept.result))
                lines.write(json.dumps(_line(number, kept.path, kept.result)) + "\n")
                graded += wanted
                graded_now += wanted and kept.run == self._run
                if wanted:
                    worst = worst_level(kept.result)
                    worst_grades[worst.grade if worst else None] += 1
                    warnings.update(study_warnings(kept.result))
        return TableTotals(graded, failed, rows_of_errors, lost_files, graded_now, worst_grades, warnings)

    def _table(self, name: str, names: Collection[str]) -> AbstractContextManager[TextIO]:
        if name in names:
            return atomic_write(self.out / name)
        return Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")

    def _names(self, order: Sequence[str]) -> Iterator[tuple[str, str]]:
        """The file and the key of each study: of those of `order` first and in that order, "" for the file of
        one that a run did not come to; then of those kept besides, "" for their keys."""
        names = {path.name for path in self._studies.glob(f"*{_DONE}")} - {_MADE_WITH}
        for key in order:
            # A kill may have come between writing a result and deleting the failure before it.
            done, failed = (self._path(key, ending).name for ending in (_DONE, _FAILED))
            yield (done if done in names else failed if failed in names else ""), key
            names -= {done, failed}
        for name in sorted(names):
            if not (name.endswith(_FAILED) and name.removesuffix(_FAILED) + _DONE in names):
                yield name, ""


def _line(number: int, path: str, result: StudyResult) -> dict[str, Any]:
    """The object of a study in results.jsonl."""
    return {"study_number": number, "study_path": path, **asdict(result)}


def _images(study: StudyHeader) -> str:
    """A hash of which images a study has, in whatever order they were found.

    Where patients share a UID, the images' paths count too: which of the patients has a key depends on who
    else was found, and their images may have the same UIDs.
    """
    frames = [frame for series in study.series for frame in series.frames]
    names = sorted(f"{frame.sop_instance_uid} {frame.index}" for frame in frames)
    if STUDY_UID_SHARED in study.warnings:
        names.extend(sorted({str(frame.path) for frame in frames}))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
