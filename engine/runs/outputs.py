"""The output folder of a run: its tables, run.json, the page, `reports/` and `studies/`.

Each study is first written to a file of its own in `studies/`, atomically; the tables are composed from these
files. So a run that is killed loses at most the study that it was grading, and a resumed run skips those that
have a file. The files are named by a hash of the study's key, which identifies no patient.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from stenosis_trt.engine.dicom.find import REPORTS_MARKER
from stenosis_trt.engine.dicom.patients import STUDY_UID_SHARED
from stenosis_trt.engine.errors import NotWritten, OutputError
from stenosis_trt.engine.records import Problem, StudyHeader, StudyResult
from stenosis_trt.engine.reports.making import read_made
from stenosis_trt.engine.runs.output_folder import (
    ERRORS_CSV,
    FINGERPRINT,
    GRADED,
    OUTPUT_FILES,
    REPORTS,
    RESULTS_CSV,
    RESULTS_JSONL,
    RUN_JSON,
    STATE,
    STUDIES,
    STUDIES_CSV,
    OutputFolder,
)
from stenosis_trt.engine.runs.path_names import HiddenPaths, PathNames
from stenosis_trt.engine.runs.stored_results import (
    FORMAT_VERSION,
    DamagedFile,
    RunState,
    StoredStudy,
    read_fingerprint,
    read_run_records,
    read_state,
    read_study,
    state_json,
    study_json,
)
from stenosis_trt.engine.runs.table_files import CsvFormat
from stenosis_trt.engine.runs.tables import TableTotals, TableWriter
from stenosis_trt.engine.support.atomic_files import PARTIAL_SUFFIX, atomic_write, write_text_atomically
from stenosis_trt.engine.support.safe_text import escape_controls, escape_controls_in

_FILE_OF_FORMAT = {"csv": RESULTS_CSV, "json": RESULTS_JSONL}
_TABLES = (RESULTS_CSV, RESULTS_JSONL, ERRORS_CSV, STUDIES_CSV)
"""In the order of the streams of `TableWriter`."""
_FOLDER_DIGITS = 16
"""Digits of the hash that names the reports of a study."""
_MOST_PATIENTS = 100
"""Patients that may share a Study Instance UID for the keys of an earlier run to be told."""
_FAILED = ".failed.json"
_MARKER_TEXT = "Reports of stenosis-trt. `stenosis-trt grade` skips a folder that holds this file.\n"
_DELETE_STUDY = "Delete it and give --resume, and its study is graded again."


@dataclass(frozen=True)
class StudyRow:
    """One study of the tables.

    Attributes:
        number: its number. study_uid: Study Instance UID. study: what is stored; None if no run reached it.
        requested: it lies below the paths of the present run. reports: folder of its reports, which may not
        exist. key: see `StudyHeader`; "" for a study of an earlier run whose key cannot be told.
    """

    key: str
    number: int
    study_uid: str
    study: StoredStudy | None
    requested: bool
    reports: Path


class ResultStore(OutputFolder):
    """The output folder of a run. Use it as a context manager: it locks the folder against other runs.

    Args:
        out: the folder; created if it does not exist.
        result_fingerprint: what decides the results (pack, versions, backend); see `provenance`. All results
            in a folder have the same one.
        resume: continue a run with the same fingerprint in this folder.
        names: how results and messages name paths.
        csv_format: format of the CSV files.
        reading_fingerprint: what decides which files can be read (limits, decoders). A study that lost images
            under another one is graded again.

    Raises:
        OutputError: the folder holds results and `resume` is False, or results with another fingerprint;
            another run is writing there; or it cannot be written. Every method raises it where the folder
            cannot be written any more, or a file in it is damaged.
    """

    def __init__(
        self,
        out: Path,
        result_fingerprint: Mapping[str, Any],
        resume: bool,
        names: PathNames | None = None,
        csv_format: CsvFormat | None = None,
        reading_fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(out, result_fingerprint, resume, names or PathNames())
        self._csv_format = csv_format or CsvFormat()
        self._reading_fingerprint = dict(reading_fingerprint or {})
        self._run = secrets.token_hex(8)
        self.keeps_identifiers = result_fingerprint.get("identifiers") is True
        """The results are of a run with --keep-identifiers."""

    @classmethod
    def reopen(cls, out: Path) -> ResultStore:
        """Open the folder of an earlier run, to write its tables and reports again.

        Raises:
            OutputError: the folder holds no results, or they cannot be used; see the class.
        """
        advice = "Give the folder that `stenosis-trt grade` was given as --out."
        place = escape_controls(str(out))
        file, state_file = out / STUDIES / FINGERPRINT, out / STUDIES / STATE
        if not file.is_file():
            raise OutputError(f"{place} holds no results of `grade`.", advice)
        try:
            name = file.name
            fingerprint = read_fingerprint(file)
            name = state_file.name
            state = read_state(state_file) if state_file.exists() else None
        except DamagedFile as error:
            raise OutputError(f"{STUDIES}/{name} in {place} {error}", advice) from error
        names = PathNames() if fingerprint.get("paths") else HiddenPaths()
        return cls(out, fingerprint, True, names, CsvFormat(state.decimal_mark if state else None))

    def _path(self, key: str, ending: str) -> Path:
        return self._studies / f"{hashlib.sha256(key.encode()).hexdigest()}{ending}"

    def stored(self, key: str) -> StoredStudy | None:
        """Return what is stored of a graded study; None if it was not graded."""
        path = self._path(key, GRADED)
        return self._read(read_study, path, _DELETE_STUDY) if path.exists() else None

    def has_images_of(self, study: StudyHeader) -> bool:
        """Return True if a study was graded from the images that `study` has."""
        stored = self.stored(study.key)
        return stored is not None and stored.images == _images_hash(study)

    def reports_place(self, key: str) -> Path:
        """Return the folder of the reports of a study. It is named by a hash, which identifies nobody."""
        return self.out / REPORTS / self._path(key, "").name[:_FOLDER_DIGITS]

    def prepare_reports(self) -> None:
        """Create the folder of all reports, marked so that grading skips it."""
        with self._write_errors():
            folder = self.out / REPORTS
            folder.mkdir(exist_ok=True)
            write_text_atomically(folder / REPORTS_MARKER, _MARKER_TEXT)
            for part in folder.glob(f".*{PARTIAL_SUFFIX}"):
                shutil.rmtree(part)

    def _remove_reports(self, key: str) -> None:
        """Delete the reports of an earlier result of a study."""
        place = self.reports_place(key)
        if place.exists():
            shutil.rmtree(place)

    def owns(self, path: str) -> bool:
        """Return True for a file of this folder: a scan finds those where the output lies in the input."""
        file = Path(path)
        if file.parent == Path(os.path.abspath(self.out)):
            return file.name in OUTPUT_FILES
        if file == Path(os.path.abspath(self.out / REPORTS)):
            return True
        return file.parent == Path(os.path.abspath(self._studies)) and file.name.endswith(GRADED)

    def is_done(self, study: StudyHeader) -> bool:
        """Return True if a study was graded from its present images, and none of them may be gained."""
        stored = self.stored(study.key)
        return (
            stored is not None
            and stored.images == _images_hash(study)
            and not stored.may_gain_images(self._reading_fingerprint)
        )

    def may_gain_images(self, study: StudyHeader) -> bool:
        """Return True if a study was graded without images that may be readable now."""
        stored = self.stored(study.key)
        return stored is not None and stored.may_gain_images(self._reading_fingerprint)

    def discard_outdated(self, study: StudyHeader) -> bool:
        """Delete the result of a study that had other images then, as if graded while it was being copied.

        Returns:
            True if there was one.
        """
        stored = self.stored(study.key)
        if stored is None or stored.images == _images_hash(study):
            return False
        with self._write_errors():
            self._remove_reports(study.key)
            self._path(study.key, GRADED).unlink()
        return True

    def add(self, study: StudyHeader, result: StudyResult, problems: Sequence[Problem]) -> None:
        """Store the result of a study, with the problems of its files.

        Raises:
            ValueError: a number in the result is not finite.
        """
        text = study_json(self._to_store(study, result, problems))
        with self._write_errors():
            self._remove_reports(study.key)
            write_text_atomically(self._path(study.key, GRADED), text + "\n")
            self._path(study.key, _FAILED).unlink(missing_ok=True)

    def add_failed(self, study: StudyHeader, problems: Sequence[Problem]) -> None:
        """Store why a study could not be graded. It is not done: a resumed run tries it again.

        An earlier result is deleted: the study was graded again for images that the result lacks.
        """
        text = study_json(self._to_store(study, None, problems))
        with self._write_errors():
            self._remove_reports(study.key)
            write_text_atomically(self._path(study.key, _FAILED), text + "\n")
            self._path(study.key, GRADED).unlink(missing_ok=True)

    def _to_store(
        self, study: StudyHeader, result: StudyResult | None, problems: Sequence[Problem]
    ) -> StoredStudy:
        images, before = _images_hash(study), self.stored(study.key)
        attempts = 0
        if before is not None and before.images == images:
            attempts = before.attempts(self._reading_fingerprint)
        return StoredStudy(
            format=FORMAT_VERSION,
            study_uid=study.study_uid,
            path=self._names.of_study(study),
            images=images,
            result=result,
            problems=self._names.in_study(study, problems),
            run=self._run,
            read_with=self._reading_fingerprint,
            tries=attempts + 1,
        )

    def earlier_runs(self) -> list[dict[str, Any]]:
        """Return the run.json records of the runs that graded something, oldest first."""
        path = self.out / RUN_JSON
        if not path.exists():
            return []
        return self._read(read_run_records, path, "Delete it and give --resume.")

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Write run.json."""
        with self._write_errors():
            text = json.dumps(escape_controls_in(record), indent=2, allow_nan=False)
            write_text_atomically(self.out / RUN_JSON, text + "\n")

    @property
    def state(self) -> RunState | None:
        """What the tables of the last run were composed from; None if no run has written them."""
        path = self._studies / STATE
        return self._read(read_state, path, "Delete it and give --resume.") if path.exists() else None

    def begin(self, formats: Collection[str]) -> None:
        """Keep the formats of a run before it begins, so that the one that resumes it writes them.

        Raises:
            NotWritten: the folder cannot be written.
        """
        earlier = self.state
        self._write_state(earlier.order if earlier else (), earlier.problems if earlier else (), formats)

    def _write_state(self, order: Iterable[str], problems: Iterable[Problem], formats: Iterable[str]) -> None:
        mark = self._csv_format.decimal_mark
        state = RunState(self.run_key, tuple(order), tuple(problems), tuple(formats), mark)
        with self._write_errors():
            write_text_atomically(self._studies / STATE, state_json(state) + "\n")

    def write_tables(
        self,
        order: Sequence[str],
        problems: Iterable[Problem],
        formats: Collection[str] = tuple(_FILE_OF_FORMAT),
    ) -> TableTotals:
        """Compose the tables from the stored studies, reading one study at a time.

        Args:
            order: keys of the requested studies, in the order of the rows. Studies that only earlier runs
                were asked for follow.
            problems: problems of files that are not stored with a study.
            formats: formats of the run. errors.csv and studies.csv are written with any.

        Returns:
            Counts of the rows.

        Raises:
            NotWritten: the disk has no room for some tables. The others are written; the message names those
                that are not.
        """
        problems = list(problems)
        left_out = {file for name, file in _FILE_OF_FORMAT.items() if name not in formats}
        tables = [name for name in _TABLES if name not in left_out]
        try:
            self._write_state(order, problems, formats)
            return self._compose(order, problems, tables)
        except NotWritten as error:
            missing = [name for name in tables if not self._fits(name, order, problems)]
            if not missing:
                return self.count(order, problems)
            kept = f"Every study that was graded is kept in {self.display_path}/{STUDIES}."
            reason = f"{error.reason} There is no room for {' and '.join(missing)} of now. {kept}"
            raise NotWritten(reason, error.advice) from error

    def count(self, order: Sequence[str], problems: Iterable[Problem]) -> TableTotals:
        """Return the counts of `write_tables` without writing."""
        return self._compose(order, problems, ())

    def _fits(self, name: str, order: Sequence[str], problems: Iterable[Problem]) -> bool:
        """Write one table; return False if that fails."""
        try:
            self._compose(order, problems, (name,))
        except NotWritten:
            return False
        return True

    def _compose(
        self, order: Sequence[str], problems: Iterable[Problem], tables: Collection[str]
    ) -> TableTotals:
        """Write the tables named in `tables`, and count the rows of all."""
        # A problem names its study by UID. Where studies share it, the problem gets no study number.
        keys = {*order}
        numbers = {key: number for number, key in enumerate(order, start=1) if f"{key}#2" not in keys}
        with self._write_errors(), ExitStack() as stack:
            streams = [stack.enter_context(self._open_table(name, name in tables)) for name in _TABLES]
            writer = TableWriter(*streams, csv_format=self._csv_format, run=self._run)
            for problem in problems:
                writer.add_problem(problem, numbers.get(problem.study_uid))
            for row in self.rows(order):
                if row.study is None:
                    writer.add_open_study(row.number, row.study_uid)
                else:
                    folder, made = self._made(row)
                    writer.add_study(row.number, row.study, row.requested, folder, made)
        return writer.totals

    def _made(self, row: StudyRow) -> tuple[str, list[Problem]]:
        """Return the folder of the reports of a study, and the reasons of those that could not be made."""
        made = read_made(row.reports)
        if made is None or row.study is None:
            return "", []
        folder = f"{REPORTS}/{row.reports.name}" if any(item.files for item in made.formats.values()) else ""
        return folder, made.problems(row.study.path, row.study.study_uid)

    def rows(self, order: Sequence[str]) -> Iterator[StudyRow]:
        """Yield each study of the tables in the order of their rows; see `write_tables`."""
        for number, (path, key) in enumerate(self._stored_files(order), start=1):
            if path is None:
                yield StudyRow(key, number, key.partition("#")[0], None, True, self.reports_place(key))
            else:
                study = self._read(read_study, path, _DELETE_STUDY)
                place = self.out / REPORTS / path.name[:_FOLDER_DIGITS]
                known = key or self._key_of(path, study.study_uid)
                yield StudyRow(known, number, study.study_uid, study, bool(key), place)

    def _key_of(self, path: Path, study_uid: str) -> str:
        """Return the key of a stored study of an earlier run: its file is named by a hash of the key."""
        keys = (study_uid, *(f"{study_uid}#{number}" for number in range(2, _MOST_PATIENTS)))
        return next((key for key in keys if path in (self._path(key, GRADED), self._path(key, _FAILED))), "")

    @property
    def run_key(self) -> str:
        """Name of the results in this folder, the same in each run that resumes them: random digits."""
        state = self.state
        return self._run if state is None else state.key

    def _open_table(self, name: str, written: bool) -> AbstractContextManager[TextIO]:
        if written:
            return atomic_write(self.out / name)
        return Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")

    def _stored_files(self, order: Sequence[str]) -> Iterator[tuple[Path | None, str]]:
        """Yield (file, key) of each study: first those of `order`, then those of earlier runs only.

        The file is None for a study that no run reached; the key is "" for studies of earlier runs.
        """
        names = {path.name for path in self._studies.glob(f"*{GRADED}")} - {FINGERPRINT, STATE}
        for key in order:
            # After a kill between writing a result and deleting the failure before it, both exist.
            graded, failed = (self._path(key, ending).name for ending in (GRADED, _FAILED))
            name = graded if graded in names else failed if failed in names else ""
            yield (self._studies / name if name else None), key
            names -= {graded, failed}
        for name in sorted(names):
            if not (name.endswith(_FAILED) and name.removesuffix(_FAILED) + GRADED in names):
                yield self._studies / name, ""


def _images_hash(study: StudyHeader) -> str:
    """Hash of the set of images of a study.

    Where patients share a Study Instance UID, it covers the paths too: which patient has which key depends on
    what else was found, and their images may have the same UIDs.
    """
    frames = [frame for series in study.series for frame in series.frames]
    names = sorted(f"{frame.sop_instance_uid} {frame.index}" for frame in frames)
    if STUDY_UID_SHARED in study.warnings:
        names.extend(sorted({str(frame.path) for frame in frames}))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
