"""A batch run: every study below some paths is read, graded and stored, and the tables are written.

The next study is read while one is graded. A study that fails becomes a Problem, and the others are graded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime, timezone
from operator import attrgetter
from pathlib import Path
from typing import Any

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.selection import BackendChoice, announce, needs_no_gpu
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory, PixelSlot
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import NotWritten, OutputError
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.grading.read_ahead import ReadStudy, internal_error_problem, read_ahead
from stenosis_trt.engine.grading.study_grader import GradeFunction, StudyGrader, pixel_memory
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import Problem, Stage, StudyHeader
from stenosis_trt.engine.runs.background_scan import BackgroundScan
from stenosis_trt.engine.runs.opening import Opening, open_models
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.runs.outputs import ResultStore
from stenosis_trt.engine.runs.path_names import HiddenPaths, PathNames
from stenosis_trt.engine.runs.provenance import (
    StageTimes,
    describe_machine,
    package_versions,
    peak_memory_bytes,
    reading_fingerprint,
    result_fingerprint,
)
from stenosis_trt.engine.runs.reports import (
    RunReports,
    check_formats,
    compose_run_formats,
    formats_to_write,
    provenance_of_record,
    provenance_of_run,
)
from stenosis_trt.engine.runs.run_record import (
    BackendRecord,
    CountsRecord,
    MachineRecord,
    MemoryRecord,
    OptionsRecord,
    PackRecord,
    RunRecord,
    SecondsRecord,
    StageSeconds,
)
from stenosis_trt.engine.runs.summary import RunSummary
from stenosis_trt.engine.runs.tables import TableTotals
from stenosis_trt.engine.support.interrupts import defer_signals
from stenosis_trt.engine.support.messages import print_message
from stenosis_trt.engine.support.progress import show_progress

_SECONDS_BETWEEN_TABLES = 60.0
_MAX_TABLES_TIME = 0.05
"""Largest fraction of a run's time spent on tables before its end: each time all stored studies are read."""


def grade_paths(
    paths: Sequence[Path],
    out: Path,
    options: GradeOptions,
    grade: GradeFunction = grade_study,
    *,
    opening: Opening | None = None,
) -> RunSummary:
    """Grade all studies below `paths` and write the results to `out`.

    If the run ends early, by an error or a signal other than SIGKILL, the tables hold what it graded.

    Args:
        paths: folders, files, DICOMDIRs or archives.
        out: output folder.
        options: options of the run.
        grade: the pipeline; tests replace it.
        opening: opens the models of `options`; the caller closes it.

    Raises:
        PackError, DeviceError, OutputError, InputError: the run cannot start or continue.
    """
    check_formats(options.formats, options.reports)
    names = HiddenPaths() if options.no_paths else PathNames()
    reading = reading_fingerprint(options.limits)
    with ExitStack() as stack:
        # A GPU's backend decides which memory files are read into; otherwise reading begins at once.
        early = stack.enter_context(_scan(paths, options)) if needs_no_gpu(options.device) else None
        # Opened before the output folder is created: a pack that the backend cannot use leaves none.
        pack, backend, decision = open_models(options) if opening is None else opening.result()
        stack.enter_context(closing(backend))
        fingerprint = result_fingerprint(
            pack, decision.fingerprint_fields, decision.precision, options.keep_identifiers, options.no_paths
        )
        store = stack.enter_context(
            ResultStore(out, fingerprint, options.resume, names, options.csv_format, reading)
        )
        announce(decision)
        earlier = store.earlier_runs()
        run = _BatchRun(store, options, pack, backend, grade, names)
        finished = False
        try:
            with (
                pixel_memory(backend) as memory,
                early or _scan(paths, options, memory) as scan,
                run.reports(decision) as reports,
            ):
                waiting = run.scan(scan, reports)
                run.grade_all(scan.reader, waiting, memory.slots if memory else (), reports)
            # 0 where it is unknown, as without /proc.
            run.reading_peak_bytes = scan.reader.peak_memory_bytes or None
            finished = True
        finally:
            # A signal must not interrupt the writing of the tables.
            with defer_signals():
                summary = run.finish(decision, finished, earlier)
    return summary


def _scan(paths: Sequence[Path], options: GradeOptions, memory: PixelMemory | None = None) -> BackgroundScan:
    return BackgroundScan(DicomReader(options.limits, options.workers, memory), paths)


class _BatchRun:
    """State of one run: its studies, problems, counts and times."""

    def __init__(
        self,
        store: ResultStore,
        options: GradeOptions,
        pack: Pack,
        backend: Backend,
        grade: GradeFunction,
        names: PathNames,
    ) -> None:
        self._store, self._options, self._names = store, options, names
        self._pack, self._backend = pack, backend
        self._grader = StudyGrader(pack, backend, options.threads, options.cpu_if_gpu_fails, grade)
        self._started, self._start = datetime.now(timezone.utc), time.monotonic()
        self._times = StageTimes()
        earlier = store.state
        self._formats = formats_to_write(options.formats, earlier.formats if earlier else ())
        store.begin(self._formats)
        self._order: list[str] = []
        self._numbers: dict[str, int] = {}
        self._file_problems: list[Problem] = []
        self._files = self._skipped = 0
        self.reading_peak_bytes: int | None = None
        """Peak memory of the largest reading process; known when the processes have ended."""

    def reports(self, decision: BackendChoice) -> RunReports:
        """Open what makes the reports of studies."""
        started = self._started.isoformat(timespec="seconds")
        return RunReports(
            self._store,
            self._formats,
            self._options.reports,
            self._options.limits,
            provenance_of_run(self._pack, decision.backend, decision.precision, started),
        )

    def scan(self, background: BackgroundScan, reports: RunReports) -> deque[StudyHeader]:
        """Read all headers and return the studies that have to be graded. The others get their reports."""
        with show_progress("Reading headers", "files") as progress:
            scan = background.result(lambda done: progress.advance(done, 0))
        reported = [problem for problem in scan.problems if not self._store.owns(problem.path)]
        self._file_problems = self._names.of_no_study(reported)
        self._files = scan.files - (len(scan.problems) - len(reported))
        found = sorted(scan.studies, key=attrgetter("path", "key"))
        waiting = deque(study for study in found if not self._store.is_done(study))
        outdated = sum(self._store.discard_outdated(study) for study in waiting)
        if outdated:
            print_message(f"Graded again, since they have other images than before: {outdated}.")
        lost = sum(map(self._store.may_gain_images, waiting))
        if lost:
            print_message(f"Graded again, since they lost images that may be read now: {lost}.")
        self._skipped = len(found) - len(waiting)
        self._order = [study.key for study in found]
        self._numbers = {key: number for number, key in enumerate(self._order, start=1)}
        to_grade = {study.key for study in waiting}
        for study in found:
            if study.key not in to_grade:
                reports.submit(study, study.key, self._numbers[study.key])
        return waiting

    def grade_all(
        self,
        reader: DicomReader,
        waiting: deque[StudyHeader],
        slots: Sequence[PixelSlot],
        reports: RunReports,
    ) -> None:
        """Grade each study and store its result, or why there is none. `slots` is the memory to read into."""
        total = len(waiting)
        tables_at = time.monotonic() + _SECONDS_BETWEEN_TABLES
        with (
            show_progress("Grading", "studies") as progress,
            closing(read_ahead(reader, waiting, slots, self._backend.prefetch)) as studies,
        ):
            if total:
                progress.advance(0, total)
            start = time.monotonic()
            try:
                for done, read in enumerate(studies, start=1):
                    self._grade_and_store(reader, read)
                    reports.submit(read.header, read.header.key, self._numbers[read.header.key])
                    self._times.add({"study": time.monotonic() - start})
                    progress.advance(done, total)
                    start = time.monotonic()
                    if start > tables_at:
                        tables_at = self._write_interim_tables()
            except KeyboardInterrupt:
                # Do not wait for the study that is being read.
                reader.close()
                raise
        reports.finish()

    def _write_interim_tables(self) -> float:
        """Write the tables of what was graded so far; return the time at which to write them again."""
        start = time.monotonic()
        try:
            self.write_tables()
        except NotWritten as error:
            # The disk may still have room for the files of studies.
            print_message(str(error))
        took = time.monotonic() - start
        return time.monotonic() + max(_SECONDS_BETWEEN_TABLES, took / _MAX_TABLES_TIME)

    def _grade_and_store(self, reader: DicomReader, read: ReadStudy) -> None:
        result, problems = self._grader.grade(reader, read)
        if result is not None:
            if not self._options.keep_identifiers:
                result = replace(result, patient_id="")
            try:
                self._store.add(read.header, result, problems)
            except ValueError as error:
                problems = (*problems, internal_error_problem(read.header, Stage.WRITE, error))
            else:
                self._times.add({"read": read.seconds, **result.seconds})
                return
        self._store.add_failed(read.header, problems)

    def write_tables(self) -> RunSummary:
        """Write the tables of what was graded so far, and return their counts."""
        return self._summary(self._store.write_tables(self._order, self._file_problems, self._formats))

    def finish(
        self, decision: BackendChoice, finished: bool, earlier: Sequence[Mapping[str, Any]]
    ) -> RunSummary:
        """Write the tables and run.json.

        Raises:
            OutputError: one of them could not be written; the others are.
        """
        failed: OutputError | None = None
        try:
            summary = self.write_tables()
        except NotWritten as error:
            failed = error
            summary = self._summary(self._store.count(self._order, self._file_problems))
        try:
            record = self.record(decision, summary, finished).to_dict(earlier)
            self._store.write_run(record)
        except NotWritten as error:
            failed = failed or error
        if failed is not None:
            raise failed
        compose_run_formats(
            self._store, self._order, self._formats, self._options.reports, provenance_of_record(record)
        )
        return summary

    def _summary(self, tables: TableTotals) -> RunSummary:
        return RunSummary(
            studies=len(self._order),
            graded=tables.graded_now,
            skipped=self._skipped,
            failed=tables.failed,
            lost_files=sum(not problem.harmless for problem in self._file_problems) + tables.lost_files,
            problems=tables.problems,
            failed_reports=tables.failed_reports,
            out=self._store.out,
            display_path=self._store.display_path,
            worst_grades=tables.worst_grades,
            warnings=tables.warnings,
        )

    def record(self, decision: BackendChoice, summary: RunSummary, finished: bool) -> RunRecord:
        """Return the content of run.json without the records of earlier runs."""
        options, pack = self._options, self._pack
        stages = {stage: StageSeconds(**seconds) for stage, seconds in self._times.summary().items()}
        return RunRecord(
            started=self._started.isoformat(timespec="seconds"),
            finished=finished,
            versions=package_versions(),
            pack=PackRecord(
                name=pack.name,
                version=pack.version,
                sha256=pack.sha256,
                signed_by=pack.signed_by or None,
                intended_use=pack.intended_use,
                clinical_use=pack.clinical_use,
            ),
            models={name: model.sha256 for name, model in pack.models.items()},
            backend=BackendRecord(
                backend=decision.backend,
                reason=decision.reason,
                gpu_failures=tuple(self._grader.gpu_failures),
                fields={**decision.details, **self._backend.record()},
            ),
            options=OptionsRecord(
                device=options.device,
                precision=decision.precision,
                workers=options.workers,
                threads=options.threads,
                resume=options.resume,
                keep_identifiers=options.keep_identifiers,
                no_paths=options.no_paths,
                formats=self._formats,
                limits=options.limits,
            ),
            machine=MachineRecord(**describe_machine()),
            counts=CountsRecord(
                files=self._files,
                studies=summary.studies,
                graded=summary.graded,
                skipped=summary.skipped,
                failed=summary.failed,
                lost_files=summary.lost_files,
                problems=summary.problems,
                failed_reports=summary.failed_reports,
            ),
            seconds=SecondsRecord(round(time.monotonic() - self._start, 3), stages),
            peak_memory_bytes=MemoryRecord(peak_memory_bytes(), self.reading_peak_bytes),
        )
