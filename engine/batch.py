"""Grade everything below some paths: scan, choose, load, grade, keep.

While one study is computed the next is read. Whatever goes wrong with a study becomes a Problem, and the
rest is graded.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.selection import Decision, decide, open_backend
from stenosis_trt.engine.choose import Choice, choose
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader, Scan
from stenosis_trt.engine.outputs import ResultStore, write_whole
from stenosis_trt.engine.pack import Pack, reference_pack
from stenosis_trt.engine.pipeline import CannotGrade, grade_study
from stenosis_trt.engine.progress import show_progress
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy, Problem, Stage, StudyHeader, StudyResult
from stenosis_trt.engine.run_record import Costs, machine, made_with, peak_memory_bytes, versions

_LOG = logging.getLogger(__name__)

_SECONDS_BETWEEN_TABLES = 60.0
_STUDIES_AHEAD = 1
_MINIMUM_SAGITTAL_SLICES = 5
_GAP_FACTOR = 1.7
"""Neighbouring slices farther apart than this many median steps have one missing between them."""

Grade = Callable[[LoadedStudy, Pack, Backend], StudyResult]


@dataclass(frozen=True)
class GradeOptions:
    """How to grade. `pack` None is the reference pack; `workers` reading processes."""

    pack: Path | None = None
    device: str = "auto"
    resume: bool = False
    workers: int = 1
    threads: int | None = None
    keep_identifiers: bool = False
    limits: ReadLimits = field(default_factory=ReadLimits)


@dataclass(frozen=True)
class Outcome:
    """Counts of a run. `lost_files` are files that may have held an image and could not be read."""

    studies: int
    graded: int
    skipped: int
    failed: int
    lost_files: int
    problems: int
    out: Path

    @property
    def exit_code(self) -> int:
        """0 where every study was graded, 1 where something was not, or nothing was there."""
        return 0 if self.studies and not self.failed and not self.lost_files else 1


@dataclass(frozen=True)
class _Read:
    """A study ready to be graded, or the problem that keeps it from being."""

    header: StudyHeader
    study: LoadedStudy | None
    problems: tuple[Problem, ...]
    seconds: float


def grade_paths(
    paths: Sequence[Path], out: Path, options: GradeOptions, grade: Grade = grade_study
) -> Outcome:
    """Grade all studies below `paths` and write results, errors and run.json to `out`.

    Args:
        paths: folders, files, DICOMDIRs.
        out: output folder.
        options: see `GradeOptions`.
        grade: the pipe; tests put another in its place.

    Raises:
        PackError, DeviceError, OutputError: nothing was graded; each says what to do.
    """
    started = time.time()
    decision = decide(options.device)
    pack = Pack.load(options.pack or reference_pack())
    store = ResultStore(
        out, made_with(pack, decision.backend, "fp32", options.keep_identifiers), options.resume
    )
    backend = open_backend(pack, decision, options.threads)
    print(f"Backend: {decision.backend}, because {decision.reason}.", file=sys.stderr)
    costs = Costs()
    problems: list[Problem] = []
    graded = skipped = failed = 0
    try:
        with DicomReader(options.limits, options.workers) as reader:
            scan = _scan(reader, paths)
            order = [study.study_uid for study in scan.studies]
            waiting = [study for study in scan.studies if not store.is_done(study.study_uid)]
            skipped = len(order) - len(waiting)
            tables_at = time.monotonic()
            with show_progress("Grading", "studies") as progress:
                for done, read in enumerate(_read_ahead(reader, waiting), start=1):
                    result, trouble = _grade_one(read, pack, backend, grade)
                    if result is None:
                        problems.extend(trouble)
                        failed += 1
                    else:
                        if not options.keep_identifiers:
                            result = replace(result, patient_id="")
                        store.add(result, trouble)
                        costs.add({"read": read.seconds, **result.seconds})
                        graded += 1
                    progress.advance(done, len(waiting))
                    if time.monotonic() - tables_at > _SECONDS_BETWEEN_TABLES:
                        store.write_tables(order, [*scan.problems, *problems])
                        tables_at = time.monotonic()
    finally:
        backend.close()
    everything = [*scan.problems, *problems]
    store.write_tables(order, everything)
    outcome = Outcome(
        studies=len(order),
        graded=graded,
        skipped=skipped,
        failed=failed,
        lost_files=sum(not problem.harmless for problem in scan.problems),
        problems=len(everything),
        out=out,
    )
    record = _record(options, pack, decision, scan, outcome)
    record["seconds"] = {"total": round(time.time() - started, 3), "stages": costs.summary()}
    record["peak_memory_bytes"] = peak_memory_bytes()
    write_whole(out / "run.json", json.dumps(record, indent=2) + "\n")
    return outcome


def _scan(reader: DicomReader, paths: Sequence[Path]) -> Scan:
    with show_progress("Reading headers", "files") as progress:
        return reader.scan(paths, lambda done: progress.advance(done, 0))


def _record(
    options: GradeOptions, pack: Pack, decision: Decision, scan: Scan, outcome: Outcome
) -> dict[str, Any]:
    return {
        "versions": versions(),
        "pack": {"name": pack.name, "version": pack.version, "sha256": pack.sha256},
        "models": {name: model.sha256 for name, model in pack.models.items()},
        "backend": asdict(decision),
        "options": {
            "device": options.device,
            "workers": options.workers,
            "threads": options.threads,
            "resume": options.resume,
            "keep_identifiers": options.keep_identifiers,
            "limits": asdict(options.limits),
        },
        "machine": machine(len(os.sched_getaffinity(0))),
        "counts": {
            "files": scan.files,
            "studies": outcome.studies,
            "graded": outcome.graded,
            "skipped": outcome.skipped,
            "failed": outcome.failed,
            "lost_files": outcome.lost_files,
            "problems": outcome.problems,
        },
    }


def _read_ahead(reader: DicomReader, studies: Sequence[StudyHeader]) -> Iterator[_Read]:
    """Each study, loaded; the next one is being read while the caller works on this one."""
    pending: deque[Future[_Read]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        for study in studies:
            pending.append(pool.submit(_read, reader, study))
            if len(pending) > _STUDIES_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _read(reader: DicomReader, header: StudyHeader) -> _Read:
    start = time.perf_counter()
    choice = choose(header)
    if choice.sagittal is None:
        refused = (choice.problem,) if choice.problem else ()
        return _Read(header, None, refused, time.perf_counter() - start)
    study, problems = _load(reader, choice)
    return _Read(header, study, problems, time.perf_counter() - start)


def _load(reader: DicomReader, choice: Choice) -> tuple[LoadedStudy | None, tuple[Problem, ...]]:
    if choice.sagittal is None:
        raise ValueError("A study without a sagittal series cannot be loaded.")
    uid = choice.study.study_uid
    sagittal, broken = reader.load(choice.sagittal.frames)
    axial: tuple[LoadedSlice, ...] = ()
    if choice.axial is not None:
        axial, more = reader.load(choice.axial.frames)
        broken = (*broken, *more)
    problems = tuple(replace(problem, study_uid=uid) for problem in broken)
    if len(sagittal) < _MINIMUM_SAGITTAL_SLICES:
        reason = f"cannot grade: only {len(sagittal)} sagittal slices could be read."
        missing = Problem(choice.study.path, Stage.PIXELS, reason, "Send the study again.", uid)
        return None, (*problems, missing)
    flags = (
        *choice.flags,
        *(("slices_unreadable",) if broken else ()),
        *(("sagittal_slice_gap",) if _has_gap(sagittal) else ()),
    )
    study = LoadedStudy(
        header=choice.study,
        sagittal_series=choice.sagittal,
        sagittal=sagittal,
        axial_series=choice.axial,
        axial=axial,
        same_frame_of_reference=choice.same_frame_of_reference,
        flags=flags,
    )
    return study, problems


def _has_gap(slices: Sequence[LoadedSlice]) -> bool:
    normal = slices[0].pose.normal
    steps = np.abs(np.diff([float(item.pose.centre @ normal) for item in slices]))
    return bool(steps.max() > _GAP_FACTOR * np.median(steps))


def _grade_one(
    read: _Read, pack: Pack, backend: Backend, grade: Grade
) -> tuple[StudyResult | None, tuple[Problem, ...]]:
    """A study's result, or None with the problem that it could not be graded for."""
    if read.study is None:
        return None, read.problems
    path, uid = read.header.path, read.header.study_uid
    try:
        return grade(read.study, pack, backend), read.problems
    except CannotGrade as error:
        problem = Problem(path, error.stage, f"cannot grade: {error.reason}", error.advice, uid)
    except Exception as error:  # noqa: BLE001 - one study's fault must not end the batch
        _LOG.debug("grading failed", exc_info=True)
        problem = Problem(
            path,
            Stage.GRADE,
            f"cannot grade: the program failed ({type(error).__name__}).",
            "Run it again with --verbose and report what it prints.",
            uid,
        )
    return None, (*read.problems, problem)
