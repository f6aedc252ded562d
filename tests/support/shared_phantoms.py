"""Phantom studies on disk that all test files share; they are not to be changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from shared_products import shared_product

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.bench.phantom.dicom_files import write_study
from stenosis_trt.bench.phantom.scan.acquisition import plan_sagittal
from stenosis_trt.bench.phantom.study import PhantomStudy, sample_study


def phantoms(studies: int, seed: int, transfer_syntax: str = "explicit") -> Path:
    """Return a folder with studies as `stenosis-trt phantom` writes them, and their truth.csv."""

    def make(folder: Path) -> None:
        write_studies(folder, PhantomOptions(studies, seed, transfer_syntax=transfer_syntax))

    return shared_product("phantoms", make, studies, seed, transfer_syntax)


def small_phantoms(studies: int, seed: int, axial_step: int) -> Path:
    """Return a folder with studies of seven sagittal and fewer axial slices, for whoever computes slowly.

    Args:
        studies: in folders `study_0001` and so on.
        seed: of the set.
        axial_step: every so manieth axial slice is there.
    """

    def make(folder: Path) -> None:
        for index in range(studies):
            write_study(
                _small(sample_study(seed, index), seed, axial_step),
                folder / f"study_{index + 1:04}",
                "explicit",
            )

    return shared_product("small_phantoms", make, studies, seed, axial_step)


def _small(study: PhantomStudy, seed: int, axial_step: int) -> PhantomStudy:
    sagittal = replace(study.sagittal.protocol, slices=7)
    planned = tuple(plan_sagittal(study.anatomy, sagittal, np.random.default_rng(seed)))
    return replace(
        study,
        sagittal=replace(study.sagittal, protocol=sagittal, poses=planned),
        axial=replace(study.axial, poses=study.axial.poses[::axial_step]),
    )
