"""One phantom study: a patient seen by a sagittal and an axial T2 series, each with its own contrast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.acquisition import (
    Scanner,
    SeriesProtocol,
    acquire,
    plan_axial,
    plan_sagittal,
    sample_axial_protocol,
    sample_sagittal_protocol,
    sample_scanner,
)
from stenosis_trt.bench.phantom.anatomy import Anatomy, sample_anatomy
from stenosis_trt.bench.phantom.tissue import Tissues, TissueSource
from stenosis_trt.bench.phantom.tissue_traits import Signals
from stenosis_trt.engine.geometry import SlicePose

LEVEL_WINDOW_MM = 6.0
"""How far from a disc its compression may lie; the truth is looked for no farther either."""


@dataclass(frozen=True)
class SeriesPlan:
    """Where the slices of a series lie."""

    protocol: SeriesProtocol
    poses: tuple[SlicePose, ...]


@dataclass(frozen=True)
class PlannedSeries(SeriesPlan):
    """A series before it is acquired."""

    scanner: Scanner


@dataclass(frozen=True)
class SliceCompression:
    """The cord on the axial slice of maximal compression near a level, as that slice shows it. Lengths in mm.

    `number` is the slice's place in its series.
    """

    number: int
    ap_mm: float
    transverse_mm: float

    @property
    def compression_ratio(self) -> float:
        """AP ÷ transverse diameter."""
        return self.ap_mm / self.transverse_mm


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

    @property
    def origin(self) -> tuple[object, ...]:
        """What the study was sampled from, for its UIDs."""
        # Without a given grade the UIDs are those of every release, so that a truth.csv keeps its worth.
        given = () if self.grade is None else (f"grade {self.grade}",)
        return ("stenosis-trt phantom", self.seed, self.index, *given)

    @property
    def patient_id(self) -> str:
        """The identifier the patient carries."""
        return f"PHANTOM-{self.seed}-{self.index:04d}"

    def slice_pixels(self, series: PlannedSeries, number: int) -> npt.NDArray[np.uint16]:
        """Acquire slice `number` of `series`, uint16 (rows, columns).

        Each slice has a generator of its own, so that slices may be made in any order.
        """
        plane = 0 if series.protocol.plane == "sagittal" else 1
        rng = np.random.default_rng([self.seed, self.index, plane, number])
        signals = series.scanner.signals
        if signals not in self._tissues:
            self._tissues[signals] = self.tissues(signals)
        return acquire(self.anatomy, self._tissues[signals], series.poses[number], series.scanner, rng)

    @cached_property
    def _tissues(self) -> dict[Signals, TissueSource]:
        """Those that were needed so far: the slices of a series share theirs."""
        return {}

    def slice_compressions(self) -> tuple[SliceCompression | None, ...]:
        """For each level what could be measured at best: a compression ratio is taken on an axial image.

        Slices are those within `LEVEL_WINDOW_MM` of the level along the canal, and nearer to no other; None
        where there is none.
        """
        curve, levels = self.anatomy.curve, self.anatomy.levels
        places = np.array([level.s for level in levels])
        best: list[SliceCompression | None] = [None] * len(levels)
        for number, pose in enumerate(self.axial.poses):
            points = self.anatomy.cord_points(pose)
            if points is None:
                continue
            away = np.abs(curve.to_canal(points.mean(axis=0))[2] - places)
            level = int(np.argmin(away))
            ap, transverse = (float(np.linalg.norm(points[k] - points[k + 1])) for k in (0, 2))
            seen = SliceCompression(number, ap, transverse)
            before = best[level]
            if away[level] <= LEVEL_WINDOW_MM and (
                before is None or seen.compression_ratio < before.compression_ratio
            ):
                best[level] = seen
        return tuple(best)

    def tissues(self, signals: Signals) -> TissueSource:
        """What gives signal at a point of the patient under one acquisition's contrast."""
        return Tissues(self.anatomy, signals)


def plan_series(rng: np.random.Generator, anatomy: Anatomy) -> tuple[PlannedSeries, PlannedSeries]:
    """A sagittal and an axial series of a patient, each with a scanner of its own."""
    sagittal, axial = sample_sagittal_protocol(rng), sample_axial_protocol(rng)
    scanner = sample_scanner(rng)
    along = PlannedSeries(sagittal, tuple(plan_sagittal(anatomy, sagittal, rng)), scanner)
    scanner = sample_scanner(rng)
    return along, PlannedSeries(axial, tuple(plan_axial(anatomy, axial, rng)), scanner)


def sample_study(seed: int, index: int, grade: int | None = None) -> PhantomStudy:
    """Study `index` of the set that `seed` defines; each study depends on nothing but the three."""
    rng = np.random.default_rng([seed, index])
    anatomy = sample_anatomy(rng, grade)
    sagittal, axial = plan_series(rng, anatomy)
    return PhantomStudy(seed, index, grade, anatomy, sagittal, axial)


class StudySource(Protocol):
    """Where the studies of a set come from; study `index` of set `seed` is always the same."""

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy: ...


@dataclass(frozen=True)
class PhantomSource:
    """Studies that are painted from nothing."""

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy:
        """See `sample_study`."""
        return sample_study(seed, index, grade)
