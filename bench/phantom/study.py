"""One phantom study: a patient seen by a sagittal and an axial T2 series, each with its own contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.acquisition import (
    Protocol,
    Scanner,
    acquire,
    plan_axial,
    plan_sagittal,
    sample_axial_protocol,
    sample_sagittal_protocol,
    sample_scanner,
)
from stenosis_trt.bench.phantom.anatomy import Anatomy, sample_anatomy
from stenosis_trt.bench.phantom.tissue import Tissues
from stenosis_trt.engine.geometry import SlicePose


@dataclass(frozen=True)
class PlannedSeries:
    """A series before it is acquired."""

    protocol: Protocol
    scanner: Scanner
    poses: tuple[SlicePose, ...]


@dataclass(frozen=True)
class PhantomStudy:
    """Everything that defines a study; pixels are made on demand by `slice_pixels`.

    `grade` is the one that every stenosis was given, or None where grades were drawn.
    """

    seed: int
    index: int
    grade: int | None
    anatomy: Anatomy
    sagittal: PlannedSeries
    axial: PlannedSeries

    def slice_pixels(self, series: PlannedSeries, number: int) -> npt.NDArray[np.uint16]:
        """Acquire slice `number` of `series`, uint16 (rows, columns).

        Each slice has a generator of its own, so that slices may be made in any order.
        """
        plane = 0 if series.protocol.plane == "sagittal" else 1
        rng = np.random.default_rng([self.seed, self.index, plane, number])
        tissues = Tissues(self.anatomy, series.scanner.signals)
        return acquire(self.anatomy, tissues, series.poses[number], series.scanner, rng)


def sample_study(seed: int, index: int, grade: int | None = None) -> PhantomStudy:
    """Study `index` of the set that `seed` defines; each study depends on nothing but the three."""
    rng = np.random.default_rng([seed, index])
    anatomy = sample_anatomy(rng, grade)
    sagittal, axial = sample_sagittal_protocol(rng), sample_axial_protocol(rng)
    return PhantomStudy(
        seed=seed,
        index=index,
        grade=grade,
        anatomy=anatomy,
        sagittal=PlannedSeries(sagittal, sample_scanner(rng), tuple(plan_sagittal(anatomy, sagittal, rng))),
        axial=PlannedSeries(axial, sample_scanner(rng), tuple(plan_axial(anatomy, axial, rng))),
    )
