"""A set of phantom studies on disk, with the truth beside it."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from stenosis_trt.bench.phantom.dicom_files import (
    TRANSFER_SYNTAXES,
    phantom_uid,
    sop_instance_uid,
    write_study,
)
from stenosis_trt.bench.phantom.study import Phantoms, PhantomStudy, PlannedSeries, StudySource

TRUTH_COLUMNS = (
    "study_uid",
    "patient_id",
    "level",
    "kang_grade",
    "compression_ratio",
    "ap_mm",
    "transverse_mm",
    "sagittal_sop_uid",
    "axial_sop_uid",
    "x_mm",
    "y_mm",
    "z_mm",
    "csf_fraction",
    "narrowest_ratio",
)
"""Diameters and ratio are those of the axial slice of maximal compression, the best that can be measured;
`narrowest_ratio` is that of the narrowest place of the anatomy, which may lie between slices."""


@dataclass(frozen=True)
class PhantomOptions:
    """What to make: `studies` of the set that `seed` defines.

    `grade` (0–3) gives every stenosis that grade; None draws grades as a symptomatic population has
    them. `transfer_syntax` is a key of `TRANSFER_SYNTAXES`. `workers` processes share the work.
    `source` gives the studies: phantoms, or real anatomies with made stenoses.
    """

    studies: int
    seed: int = 0
    grade: int | None = None
    transfer_syntax: str = "explicit"
    workers: int = 1
    source: StudySource = Phantoms()  # noqa: RUF009 - frozen and without state

    def __post_init__(self) -> None:
        if self.studies < 1:
            raise ValueError(f"{self.studies} studies were asked for. Ask for at least 1.")
        if self.seed < 0:
            raise ValueError(f"The seed is {self.seed}. Give a seed of 0 or more.")
        if self.grade is not None and self.grade not in range(4):
            raise ValueError(f"Kang grade {self.grade} does not exist. Give 0, 1, 2 or 3.")
        if self.transfer_syntax not in TRANSFER_SYNTAXES:
            known = ", ".join(TRANSFER_SYNTAXES)
            raise ValueError(f"Transfer syntax {self.transfer_syntax!r} is not known. Give one of {known}.")


Rows = list[dict[str, object]]


def write_studies(
    out: Path, options: PhantomOptions, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write the studies below `out` and `truth.csv` beside them.

    The truth grows with each study. However the work ends, short of being killed, it is of the studies that
    are there: what was not finished is removed.

    Args:
        out: folder, made where absent.
        options: see `PhantomOptions`.
        progress: called with (studies done, studies in all) at the start and after each.

    Returns:
        The path of truth.csv.

    Raises:
        OSError: `out` is not empty, or cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(out))
    path, done = out / "truth.csv", 0
    if progress:
        progress(0, options.studies)
    try:
        with path.open("w", newline="", encoding="utf-8") as stream, closing(_made(out, options)) as made:
            table = csv.DictWriter(stream, TRUTH_COLUMNS, lineterminator="\n")
            table.writeheader()
            for rows in made:
                table.writerows(rows)
                stream.flush()
                done += 1
                if progress:
                    progress(done, options.studies)
    finally:
        for index in range(done, options.studies):
            shutil.rmtree(_folder(out, index), ignore_errors=True)
    return path


def _made(out: Path, options: PhantomOptions) -> Generator[Rows, None, None]:
    """The rows of each study in order, once it is written. No study is being written after the end."""
    if options.workers == 1 or options.studies == 1:
        for index in range(options.studies):
            yield _make_one(out, options, index)
        return
    with ProcessPoolExecutor(options.workers, get_context("spawn"), _leave_interrupts_to_the_parent) as pool:
        waiting: deque[Future[Rows]] = deque()
        for index in range(options.studies):
            # No more than can be worked on: what was handed to the pool is waited for after an interrupt.
            if len(waiting) == options.workers:
                yield waiting.popleft().result()
            with _interrupts_held_back():
                waiting.append(pool.submit(_make_one, out, options, index))
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Keep interrupts from the processes that start meanwhile: until they ignore them, each would print a
    traceback. Whoever holds them back gets them at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _folder(out: Path, index: int) -> Path:
    return out / f"study_{index + 1:04d}"


def _make_one(out: Path, options: PhantomOptions, index: int) -> Rows:
    study = options.source.sample(options.seed, index, options.grade)
    write_study(study, _folder(out, index), options.transfer_syntax)
    return truth_rows(study)


def truth_rows(study: PhantomStudy) -> Rows:
    """One row of truth.csv a level; lengths in mm, positions in LPS."""
    rows: Rows = []
    for truth, seen in zip(study.anatomy.levels, study.seen_compression(), strict=True):
        rows.append(
            {
                "study_uid": phantom_uid(study, "study"),
                "patient_id": study.patient_id,
                "level": truth.level,
                "kang_grade": truth.grade,
                "compression_ratio": round(seen.compression_ratio, 4) if seen else "",
                "ap_mm": round(seen.ap_mm, 3) if seen else "",
                "transverse_mm": round(seen.transverse_mm, 3) if seen else "",
                "sagittal_sop_uid": _nearest(study, study.sagittal, np.asarray(truth.point)),
                "axial_sop_uid": sop_instance_uid(study, study.axial, seen.number) if seen else "",
                "x_mm": round(truth.point[0], 3),
                "y_mm": round(truth.point[1], 3),
                "z_mm": round(truth.point[2], 3),
                "csf_fraction": round(truth.csf_fraction, 4),
                "narrowest_ratio": round(truth.compression_ratio, 4),
            }
        )
    return rows


def _nearest(study: PhantomStudy, series: PlannedSeries, point: np.ndarray) -> str:
    distances = [abs(float(pose.to_pixels(point)[2])) for pose in series.poses]
    return sop_instance_uid(study, series, int(np.argmin(distances)))
