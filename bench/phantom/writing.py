"""A set of phantom studies on disk, with the truth beside it."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from stenosis_trt.bench.phantom.dicom_files import (
    TRANSFER_SYNTAXES,
    patient_id,
    phantom_uid,
    sop_instance_uid,
    write_study,
)
from stenosis_trt.bench.phantom.study import PhantomStudy, PlannedSeries, sample_study

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
)


@dataclass(frozen=True)
class PhantomOptions:
    """What to make: `studies` of the set that `seed` defines.

    `grade` (0–3) gives every stenosis that grade; None draws grades as a symptomatic population has
    them. `transfer_syntax` is a key of `TRANSFER_SYNTAXES`. `workers` processes share the work.
    """

    studies: int
    seed: int = 0
    grade: int | None = None
    transfer_syntax: str = "explicit"
    workers: int = 1

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


def write_studies(
    out: Path, options: PhantomOptions, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write the studies below `out` and `truth.csv` beside them.

    Args:
        out: folder, made where absent. Existing files of the same names are replaced.
        options: see `PhantomOptions`.
        progress: called with (studies done, studies in all) after each.

    Returns:
        The path of truth.csv.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[list[dict[str, object]]] = []
    make = partial(_make_one, out, options)
    if options.workers > 1 and options.studies > 1:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            for done, truth in enumerate(pool.map(make, range(options.studies)), start=1):
                rows.append(truth)
                if progress:
                    progress(done, options.studies)
    else:
        for index in range(options.studies):
            rows.append(make(index))
            if progress:
                progress(index + 1, options.studies)
    path = out / "truth.csv"
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, TRUTH_COLUMNS)
        writer.writeheader()
        writer.writerows(chain.from_iterable(rows))
    os.replace(part, path)
    return path


def _make_one(out: Path, options: PhantomOptions, index: int) -> list[dict[str, object]]:
    study = sample_study(options.seed, index, options.grade)
    write_study(study, out / f"study_{index + 1:04d}", options.transfer_syntax)
    return truth_rows(study)


def truth_rows(study: PhantomStudy) -> list[dict[str, object]]:
    """One row of truth.csv a level; lengths in mm, positions in LPS."""
    curve = study.anatomy.curve
    rows: list[dict[str, object]] = []
    for truth in study.anatomy.levels:
        canal = curve.to_patient(0.0, 0.0, truth.s)
        rows.append(
            {
                "study_uid": phantom_uid(study, "study"),
                "patient_id": patient_id(study),
                "level": truth.level,
                "kang_grade": truth.grade,
                "compression_ratio": round(truth.compression_ratio, 4),
                "ap_mm": round(truth.ap_mm, 3),
                "transverse_mm": round(truth.transverse_mm, 3),
                "sagittal_sop_uid": _nearest(study, study.sagittal, np.asarray(truth.point)),
                "axial_sop_uid": _nearest(study, study.axial, canal),
                "x_mm": round(truth.point[0], 3),
                "y_mm": round(truth.point[1], 3),
                "z_mm": round(truth.point[2], 3),
                "csf_fraction": round(truth.csf_fraction, 4),
            }
        )
    return rows


def _nearest(study: PhantomStudy, series: PlannedSeries, point: np.ndarray) -> str:
    distances = [abs(float(pose.to_pixels(point)[2])) for pose in series.poses]
    return sop_instance_uid(study, series, int(np.argmin(distances)))
