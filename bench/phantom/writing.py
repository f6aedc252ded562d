"""Write a set of phantom studies with its truth.csv."""

from __future__ import annotations

import csv
import errno
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from stenosis_trt.bench.phantom.dicom_files import (
    TRANSFER_SYNTAXES,
    phantom_uid,
    slice_path,
    sop_instance_uid,
    write_study,
)
from stenosis_trt.bench.phantom.study import PhantomSource, PhantomStudy, PlannedSeries, StudySource
from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.support.atomic_files import PARTIAL_SUFFIX, atomic_write
from stenosis_trt.engine.support.workers import worker_pool

TRUTH = "truth.csv"
_NAME = re.compile(r"study_\d{4,}")
_PART_NAME = re.compile(rf"\.(study_\d{{4,}}|{re.escape(TRUTH)}\.\d+){re.escape(PARTIAL_SUFFIX)}")

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
"""Diameters and ratio are those of the axial slice of maximal compression, measured across the cord: the best
that can be measured. `narrowest_ratio` is the ratio at the narrowest position of the anatomy, which may lie
between slices. An empty `kang_grade` says that the level must not be graded: metal lies there or hides it."""


@dataclass(frozen=True)
class PhantomOptions:
    """Options of `write_studies`.

    Attributes:
        studies: number of studies of the set, at least 1.
        seed: of the set, 0 or more.
        grade: Kang grade (0–3) of every stenosis; None draws grades, see `stenoses.sample_grades`.
        transfer_syntax: key of `TRANSFER_SYNTAXES`.
        workers: processes that share the work.
        source: samples the studies: synthetic ones, or real anatomies with synthetic stenoses.

    Raises:
        ValueError: a value is not allowed; the message says which are.
    """

    studies: int
    seed: int = 0
    grade: int | None = None
    transfer_syntax: str = "explicit"
    workers: int = 1
    source: StudySource = PhantomSource()  # noqa: RUF009 - frozen and without state

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


class ResumeError(OutputError):
    """The folder cannot be resumed with these options; `reason` and `advice` say why and what to do."""


def write_studies(
    out: Path,
    options: PhantomOptions,
    progress: Callable[[int, int], None] | None = None,
    resume: bool = False,
) -> Path:
    """Write studies and `truth.csv` to `out`.

    A study is written to `.study_NNNN.part` and renamed to `study_NNNN` once it is complete. Its rows are
    appended to truth.csv, which is sorted at the end. Unless the process is killed, truth.csv holds exactly
    the studies in `out`, also after an error.

    Args:
        out: output folder, created if missing.
        options: see `PhantomOptions`.
        progress: called with (studies written, studies to write) at the start and after each study.
        resume: keep the complete studies of an earlier, interrupted run with the same options, and write the
            others.

    Returns:
        The path of truth.csv.

    Raises:
        OSError: `out` is not empty, or cannot be written.
        ResumeError: with `resume`, `out` contains other files, or studies of other options.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not resume and any(out.iterdir()):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(out))
    found = _complete_studies(out, options) if resume else {}
    path = out / TRUTH
    missing = [index for index in range(options.studies) if index not in found]
    if progress:
        progress(0, len(missing))
    try:
        with (
            path.open("w", newline="", encoding="utf-8") as stream,
            closing(_write_missing(out, options, missing)) as made,
        ):
            table = _table(stream)
            for index in sorted(found):
                table.writerows(found[index])
            for done, (index, rows) in enumerate(zip(missing, made, strict=True), start=1):
                found[index] = rows
                table.writerows(rows)
                stream.flush()
                if progress:
                    progress(done, len(missing))
    finally:
        _write_sorted_truth(out, options, found)
    return path


def _table(stream: TextIO) -> csv.DictWriter[str]:
    table = csv.DictWriter(stream, TRUTH_COLUMNS, lineterminator="\n")
    table.writeheader()
    return table


def _write_sorted_truth(out: Path, options: PhantomOptions, known: dict[int, Rows]) -> None:
    """Write truth.csv of all complete studies, also of those completed by other workers after an error."""
    for index in range(options.studies):
        shutil.rmtree(_part(out, index), ignore_errors=True)
        if index not in known and _folder(out, index).exists():
            known[index] = truth_rows(options.source.sample(options.seed, index, options.grade))
    with atomic_write(out / TRUTH) as stream:
        table = _table(stream)
        for index in sorted(known):
            table.writerows(known[index])


def _complete_studies(out: Path, options: PhantomOptions) -> dict[int, Rows]:
    """Find the complete studies of an earlier run, return their truth, and remove incomplete ones.

    Raises:
        ResumeError: see `write_studies`. Nothing is removed in this case.
    """
    parts = []
    for path in sorted(out.iterdir()):
        if _PART_NAME.fullmatch(path.name):
            parts.append(path)
        elif _NAME.fullmatch(path.name):
            if int(path.name.removeprefix("study_")) > options.studies:
                raise ResumeError(
                    f"{path} is beyond the {options.studies} studies that were asked for.",
                    "Ask for at least as many as there are.",
                )
        elif path.name != TRUTH:
            raise ResumeError(
                f"{path} is not of an interrupted run.", "Give the folder of one, or a new one."
            )
    there = [index for index in range(options.studies) if _folder(out, index).exists()]
    studies = {index: options.source.sample(options.seed, index, options.grade) for index in there}
    whole = {index for index in there if _is_complete(_folder(out, index), studies[index], options)}
    for path in parts + [_folder(out, index) for index in there if index not in whole]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return {index: truth_rows(studies[index]) for index in sorted(whole)}


def _is_complete(folder: Path, study: PhantomStudy, options: PhantomOptions) -> bool:
    """Return True if the folder holds every slice of the study with all its pixels.

    Raises:
        ResumeError: the files belong to another study or have another transfer syntax.
    """
    return all(
        _is_complete_slice(slice_path(folder, series, number), study, series, options)
        for series in (study.sagittal, study.axial)
        for number in range(len(series.poses))
    )


def _is_complete_slice(
    path: Path, study: PhantomStudy, series: PlannedSeries, options: PhantomOptions
) -> bool:
    try:
        header = dcmread(path)
        found, syntax, stored = header.StudyInstanceUID, header.file_meta.TransferSyntaxUID, header.PixelData
    except (FileNotFoundError, InvalidDicomError, EOFError, AttributeError, zlib.error, struct.error):
        # Missing, or truncated by a kill or a full disk.
        return False
    if found != phantom_uid(study, "study"):
        raise ResumeError(
            f"{path} is of another seed, grade, anatomy or condition.",
            "Give the options that were given first, or another folder.",
        )
    if syntax != TRANSFER_SYNTAXES[options.transfer_syntax]:
        raise ResumeError(
            f"{path} is written as {syntax.name}.",
            "Give the --transfer-syntax that was given first, or another folder.",
        )
    if syntax.is_encapsulated:
        return True
    return len(stored) == 2 * series.protocol.rows * series.protocol.columns


def _write_missing(out: Path, options: PhantomOptions, indices: Sequence[int]) -> Generator[Rows, None, None]:
    """Write studies and yield the truth of each, in order of `indices`; no worker runs after the end."""
    make = partial(_write_one, out, options)
    if options.workers == 1 or len(indices) <= 1:
        yield from map(make, indices)
        return
    with worker_pool(options.workers) as workers:
        yield from workers.map_in_order(make, indices)


def _folder(out: Path, index: int) -> Path:
    return out / f"study_{index + 1:04d}"


def _part(out: Path, index: int) -> Path:
    return out / f".study_{index + 1:04d}{PARTIAL_SUFFIX}"


def _write_one(out: Path, options: PhantomOptions, index: int) -> Rows:
    study = options.source.sample(options.seed, index, options.grade)
    write_study(study, _part(out, index), options.transfer_syntax)
    _part(out, index).rename(_folder(out, index))
    return truth_rows(study)


def truth_rows(study: PhantomStudy) -> Rows:
    """Rows of truth.csv, one per level; lengths in mm, positions in LPS. Operated levels have no grade."""
    rows: Rows = []
    anatomy = study.anatomy
    for truth, operated, seen in zip(
        anatomy.levels, anatomy.operated, study.slice_compressions(), strict=True
    ):
        rows.append(
            {
                "study_uid": phantom_uid(study, "study"),
                "patient_id": study.patient_id,
                "level": truth.level,
                "kang_grade": "" if operated else truth.grade,
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
