"""Grade everything below some paths: scan, choose, load, grade, keep.

While one study is computed the next is read. Whatever goes wrong with a study becomes a Problem, and the
rest is graded.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from operator import attrgetter
from pathlib import Path
from typing import Any

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.gpu.options import GpuOptions
from stenosis_trt.engine.backends.selection import BackendChoice, announce, open_backend
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.pixel_memory import PixelSlot
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import NotWritten, OutputError
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.grading.read_ahead import ReadStudy, internal_error_problem, read_ahead
from stenosis_trt.engine.grading.study_grader import GradeFunction, StudyGrader, pixel_memory
from stenosis_trt.engine.packs.pack import Pack, open_pack
from stenosis_trt.engine.packs.signature import TrustedKeys
from stenosis_trt.engine.records import Problem, Stage, StudyHeader
from stenosis_trt.engine.runs.outputs import ResultStore, TableTotals
from stenosis_trt.engine.runs.path_names import HiddenPaths, PathNames
from stenosis_trt.engine.runs.provenance import (
    StageTimes,
    describe_machine,
    package_versions,
    peak_memory_bytes,
    reading_fingerprint,
    result_fingerprint,
)
from stenosis_trt.engine.runs.table_files import CsvFormat
from stenosis_trt.engine.support.interrupts import defer_signals
from stenosis_trt.engine.support.messages import print_message
from stenosis_trt.engine.support.progress import show_progress

_SECONDS_BETWEEN_TABLES = 60.0
_TABLES_SHARE = 0.05
"""Writing the tables reads every study kept so far: at most this share of a run's time goes into it."""


@dataclass(frozen=True)
class GradeOptions:
    """How to grade.

    Attributes:
        pack: None for the reference pack.
        device: one of `DEVICES` in `backends.selection`.
        precision: one of `PRECISIONS` in `packs.pack`, or "auto"; see `backends.selection.decide`.
        resume: go on where an earlier run stopped.
        workers: reading processes.
        threads: to compute with on the CPU; None for all cores.
        keep_identifiers: write the PatientID to the results.
        no_paths: write numbers and hashes in place of paths.
        csv_format: how tables are written.
        limits: of reading.
        trust: whose signature the pack must have; None for nobody's.
        gpu: how a GPU is used.
        cpu_if_gpu_fails: grade a study that the GPU fails on on the CPU, instead of reporting it.
    """

    pack: str | os.PathLike[str] | None = None
    device: str = "auto"
    precision: str = "auto"
    resume: bool = False
    workers: int = 1
    threads: int | None = None
    keep_identifiers: bool = False
    no_paths: bool = False
    csv_format: CsvFormat = field(default_factory=CsvFormat)
    limits: ReadLimits = field(default_factory=ReadLimits)
    trust: TrustedKeys | None = None
    gpu: GpuOptions = field(default_factory=GpuOptions)
    cpu_if_gpu_fails: bool = False


@dataclass(frozen=True)
class RunSummary:
    """Counts of a run.

    `skipped` were graded by the run that this one resumes. `lost_files` are files that may have held an
    image and could not be read. `problems` are the rows of errors.csv. `worst_grades` and `warnings` are
    those of `Tables`; `shown` is the output folder as messages name it.
    """

    studies: int
    graded: int
    skipped: int
    failed: int
    lost_files: int
    problems: int
    out: Path
    shown: str = ""
    worst_grades: Mapping[int | None, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where every study was graded, 1 where something was not, or nothing was there."""
        return 0 if self.studies and not self.failed and not self.lost_files else 1


def grade_paths(
    paths: Sequence[Path], out: Path, options: GradeOptions, grade: GradeFunction = grade_study
) -> RunSummary:
    """Grade all studies below `paths` and write results, errors and run.json to `out`.

    However the run ends, short of being killed, the tables hold what was graded until then.

    Args:
        paths: folders, files, DICOMDIRs.
        out: output folder.
        options: see `GradeOptions`.
        grade: the pipe; tests put another in its place.

    Raises:
        PackError, DeviceError, OutputError, ReaderError: the run cannot start or go on; each says what to do.
    """
    pack = open_pack(options.pack, options.trust)
    # The backend comes first: a pack that it cannot use leaves no output folder.
    backend, decision = open_backend(pack, options.device, options.precision, options.threads, options.gpu)
    pack = pack.in_precision(decision.precision)
    kind = result_fingerprint(
        pack, decision.fingerprint_fields, decision.precision, options.keep_identifiers, options.no_paths
    )
    names = HiddenPaths() if options.no_paths else PathNames()
    reading = reading_fingerprint(options.limits)
    with (
        closing(backend),
        ResultStore(out, kind, options.resume, names, options.csv_format, reading) as store,
    ):
        announce(decision)
        earlier = store.earlier_runs()
        run = _BatchRun(store, options, pack, backend, grade, names)
        finished = False
        try:
            with (
                pixel_memory(backend) as memory,
                DicomReader(options.limits, options.workers, memory) as reader,
            ):
                run.grade_all(reader, run.scan(reader, paths), memory.slots if memory else ())
            # 0 where nothing is known, as without /proc.
            run.reading_peak_bytes = reader.peak_memory_bytes or None
            finished = True
        finally:
            # An interrupt waits until the tables hold what was graded.
            with defer_signals():
                outcome = run.finish(decision, finished, earlier)
    return outcome


class _BatchRun:
    """The state of one run: what was found, counted and measured."""

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
        self._costs = StageTimes()
        self._order: list[str] = []
        self._file_problems: list[Problem] = []
        self._files = self._skipped = 0
        self.reading_peak_bytes: int | None = None
        """What the largest reading process took; not known before they have ended."""

    def scan(self, reader: DicomReader, paths: Sequence[Path]) -> deque[StudyHeader]:
        """Read all headers; returns the studies that are not done."""
        with show_progress("Reading headers", "files") as progress:
            scan = reader.scan(paths, lambda done: progress.advance(done, 0))
        reported = [problem for problem in scan.problems if not self._store.owns(problem.path)]
        self._file_problems = self._names.of_no_study(reported)
        self._files = scan.files - (len(scan.problems) - len(reported))
        found = sorted(scan.studies, key=attrgetter("path", "key"))
        waiting = deque(study for study in found if not self._store.is_done(study))
        outdated = sum(self._store.discard_outdated(study) for study in waiting)
        if outdated:
            print_message(f"Graded again, since they have other images than before: {outdated}.")
        lost = sum(map(self._store.lost_images, waiting))
        if lost:
            print_message(f"Graded again, since they lost images that may be read now: {lost}.")
        self._skipped = len(found) - len(waiting)
        self._order = [study.key for study in found]
        return waiting

    def grade_all(self, reader: DicomReader, waiting: deque[StudyHeader], slots: Sequence[PixelSlot]) -> None:
        """Grade each study, read into a slot where there are some, and keep its result, or why there is
        none."""
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
                    self._one(reader, read)
                    self._costs.add({"study": time.monotonic() - start})
                    progress.advance(done, total)
                    start = time.monotonic()
                    if start > tables_at:
                        tables_at = self._write_tables_meanwhile()
            except KeyboardInterrupt:
                # Nobody waits for the study that is being read.
                reader.close()
                raise

    def _write_tables_meanwhile(self) -> float:
        """Write the tables while the run goes on; returns when to do so again."""
        start = time.monotonic()
        try:
            self.write_tables()
        except NotWritten as error:
            # There may be room for studies still.
            print_message(str(error))
        took = time.monotonic() - start
        return time.monotonic() + max(_SECONDS_BETWEEN_TABLES, took / _TABLES_SHARE)

    def _one(self, reader: DicomReader, read: ReadStudy) -> None:
        result, problems = self._grader.grade(reader, read)
        if result is not None:
            if not self._options.keep_identifiers:
                result = replace(result, patient_id="")
            try:
                self._store.add(read.header, result, problems)
            except ValueError as error:
                problems = (*problems, internal_error_problem(read.header, Stage.WRITE, error))
            else:
                self._costs.add({"read": read.seconds, **result.seconds})
                return
        self._store.add_failed(read.header, problems)

    def write_tables(self) -> RunSummary:
        """Write the tables of what was graded until now; the counts are of what they hold."""
        return self._outcome(self._store.write_tables(self._order, self._file_problems))

    def finish(
        self, decision: BackendChoice, finished: bool, earlier: Sequence[Mapping[str, Any]]
    ) -> RunSummary:
        """Write the tables and run.json, or what of them can be written.

        Raises:
            OutputError: not all of them could be.
        """
        failed: OutputError | None = None
        try:
            outcome = self.write_tables()
        except NotWritten as error:
            failed = error
            outcome = self._outcome(self._store.count(self._order, self._file_problems))
        try:
            self._store.write_run({**self.record(decision, outcome, finished), "earlier": earlier})
        except NotWritten as error:
            failed = failed or error
        if failed is not None:
            raise failed
        return outcome

    def _outcome(self, tables: TableTotals) -> RunSummary:
        return RunSummary(
            studies=len(self._order),
            graded=tables.graded_now,
            skipped=self._skipped,
            failed=tables.failed,
            lost_files=sum(not problem.harmless for problem in self._file_problems) + tables.lost_files,
            problems=tables.problems,
            out=self._store.out,
            shown=self._store.shown,
            worst_grades=tables.worst_grades,
            warnings=tables.warnings,
        )

    def record(self, decision: BackendChoice, outcome: RunSummary, finished: bool) -> dict[str, Any]:
        """The content of run.json, less the runs before this one."""
        options, pack = self._options, self._pack
        return {
            "started": self._started.isoformat(timespec="seconds"),
            "finished": finished,
            "versions": package_versions(),
            "pack": {
                "name": pack.name,
                "version": pack.version,
                "sha256": pack.sha256,
                # Whose signature was required and found; null where none was required.
                "signed_by": pack.signed_by or None,
            },
            "models": {name: model.sha256 for name, model in pack.models.items()},
            "backend": {
                "backend": decision.backend,
                "reason": decision.reason,
                **decision.details,
                **self._backend.record(),
                "gpu_failures": self._grader.gpu_failures,
            },
            "options": {
                "device": options.device,
                "precision": decision.precision,
                "workers": options.workers,
                "threads": options.threads,
                "resume": options.resume,
                "keep_identifiers": options.keep_identifiers,
                "no_paths": options.no_paths,
                "limits": asdict(options.limits),
            },
            "machine": describe_machine(),
            "counts": {
                "files": self._files,
                "studies": outcome.studies,
                "graded": outcome.graded,
                "skipped": outcome.skipped,
                "failed": outcome.failed,
                "lost_files": outcome.lost_files,
                "problems": outcome.problems,
            },
            "seconds": {
                "total": round(time.monotonic() - self._start, 3),
                "stages": self._costs.summary(),
            },
            "peak_memory_bytes": {"process": peak_memory_bytes(), "reading": self.reading_peak_bytes},
        }
