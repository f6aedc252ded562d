"""One phantom study: a patient imaged by a sagittal and an axial T2 series, each with its own contrast."""

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
from stenosis_trt.bench.phantom.anatomy import LEVEL_WINDOW_MM, Anatomy, sample_anatomy
from stenosis_trt.bench.phantom.conditions import ORDINARY, Conditions, condition_rng
from stenosis_trt.bench.phantom.finding_tissue import with_findings
from stenosis_trt.bench.phantom.findings import draw_findings
from stenosis_trt.bench.phantom.tissue import Tissues, TissueSource
from stenosis_trt.bench.phantom.tissue_traits import Signals
from stenosis_trt.engine.geometry import SlicePose


@dataclass(frozen=True)
class SeriesPlan:
    """Protocol of a series and the poses of its slices."""

    protocol: SeriesProtocol
    poses: tuple[SlicePose, ...]


@dataclass(frozen=True)
class PlannedSeries(SeriesPlan):
    """A series to be acquired by a simulated scanner."""

    scanner: Scanner


@dataclass(frozen=True)
class SliceCompression:
    """Cord diameters on the axial slice of maximal compression near a level. Lengths in mm.

    `number` is the index of the slice in its series.
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
    """Definition of a study; `slice_pixels` computes pixels on demand.

    `grade` is the grade of every stenosis, or None where grades were drawn.
    """

    seed: int
    index: int
    grade: int | None
    anatomy: Anatomy
    sagittal: PlannedSeries
    axial: PlannedSeries

    @property
    def uid_source(self) -> tuple[object, ...]:
        """Values that the study's UIDs are derived from."""
        # Without a grade the UIDs are those of earlier releases, so that their truth.csv files stay valid.
        given = () if self.grade is None else (f"grade {self.grade}",)
        return ("stenosis-trt phantom", self.seed, self.index, *given)

    @property
    def patient_id(self) -> str:
        """DICOM PatientID."""
        return f"PHANTOM-{self.seed}-{self.index:04d}"

    def slice_pixels(self, series: PlannedSeries, number: int) -> npt.NDArray[np.uint16]:
        """Acquire slice `number` of `series`, uint16 (rows, columns).

        Each slice has its own random generator, so slices may be acquired in any order.
        """
        plane = 0 if series.protocol.plane == "sagittal" else 1
        rng = np.random.default_rng([self.seed, self.index, plane, number])
        signals = series.scanner.signals
        if signals not in self._tissues:
            self._tissues[signals] = self.tissues(signals)
        return acquire(self.anatomy, self._tissues[signals], series.poses[number], series.scanner, rng)

    @cached_property
    def _tissues(self) -> dict[Signals, TissueSource]:
        """Cache: the slices of a series share their tissue model."""
        return {}

    def slice_compressions(self) -> tuple[SliceCompression | None, ...]:
        """The compression that axial slices show at best, for each level; None for a level without a slice.

        A slice belongs to the nearest level if it is within `LEVEL_WINDOW_MM` of it along the canal.
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
        """Tissue model of the patient with one acquisition's contrast."""
        return with_findings(Tissues(self.anatomy, signals), self.anatomy, signals)


def plan_series(rng: np.random.Generator, anatomy: Anatomy) -> tuple[PlannedSeries, PlannedSeries]:
    """Draw a sagittal and an axial series of a patient, each with its own scanner."""
    sagittal, axial = sample_sagittal_protocol(rng), sample_axial_protocol(rng)
    scanner = sample_scanner(rng)
    along = PlannedSeries(sagittal, tuple(plan_sagittal(anatomy, sagittal, rng)), scanner)
    scanner = sample_scanner(rng)
    return along, PlannedSeries(axial, tuple(plan_axial(anatomy, axial, rng)), scanner)


def sample_study(
    seed: int, index: int, grade: int | None = None, conditions: Conditions = ORDINARY
) -> PhantomStudy:
    """Sample study `index` of set `seed`; it depends on `seed`, `index`, `grade` and `conditions` alone."""
    rng = np.random.default_rng([seed, index])
    findings = draw_findings(conditions, condition_rng(seed, index, "findings"))
    anatomy = sample_anatomy(rng, grade, findings)
    sagittal, axial = plan_series(rng, anatomy)
    return PhantomStudy(seed, index, grade, anatomy, sagittal, axial)


class StudySource(Protocol):
    """Interface of sources of studies; study `index` of set `seed` is always the same."""

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy: ...


@dataclass(frozen=True)
class PhantomSource:
    """Source of fully synthetic studies."""

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy:
        """See `sample_study`."""
        return sample_study(seed, index, grade)
