"""One phantom study: a patient imaged by a sagittal and an axial T2 series, each with its own contrast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.conditions import ORDINARY, Conditions, condition_rng, conditions_of
from stenosis_trt.bench.phantom.painting.finding_tissue import with_findings
from stenosis_trt.bench.phantom.painting.tall_tissue import painted
from stenosis_trt.bench.phantom.painting.tissue import TissueSource
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals
from stenosis_trt.bench.phantom.patient.anatomy import LEVEL_WINDOW_MM, Anatomy, sample_anatomy
from stenosis_trt.bench.phantom.patient.findings import draw_findings
from stenosis_trt.bench.phantom.patient.landmarks import painted_landmarks
from stenosis_trt.bench.phantom.patient.tall_spine import extended
from stenosis_trt.bench.phantom.scan.acquisition import (
    Scanner,
    SeriesProtocol,
    acquire,
    plan_axial,
    plan_sagittal,
    sample_axial_protocol,
    sample_sagittal_protocol,
    sample_scanner,
)
from stenosis_trt.bench.phantom.scan.position import is_turned, place_axial, place_sagittal, turned
from stenosis_trt.bench.phantom.scan.scan_conditions import interpolated, scanned, scanned_protocol
from stenosis_trt.bench.phantom.scan.tall_field import field_protocol, field_scanner, needs_long_spine, placed
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.kernels.reference import cord_geometry

Generators = Callable[[str], np.random.Generator]
"""Gives the generator of a topic of one study; see `condition_rng`."""


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
    """Diameters across the cord on the axial slice of maximal compression near a level. Lengths in mm.

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

    `grade` is the grade of every stenosis, or None where grades were drawn. `conditions` says what differs
    from an ordinary study.
    """

    seed: int
    index: int
    grade: int | None
    anatomy: Anatomy
    sagittal: PlannedSeries
    axial: PlannedSeries
    conditions: Conditions

    @property
    def uid_source(self) -> tuple[object, ...]:
        """Values that the study's UIDs are derived from."""
        # Without a grade the UIDs are those of earlier releases, so that their truth.csv files stay valid.
        given = () if self.grade is None else (f"grade {self.grade}",)
        # Likewise for an ordinary study.
        differing = (f"{name} {value!r}" for name, value in self.conditions.differences().items())
        return ("stenosis-trt phantom", self.seed, self.index, *given, *differing)

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
        own = condition_rng(self.seed, self.index, f"{series.protocol.plane} {number}")
        signals = series.scanner.signals
        if signals not in self._tissues:
            self._tissues[signals] = self.tissues(signals)
        return acquire(self.anatomy, self._tissues[signals], series.poses[number], series.scanner, rng, own)

    @cached_property
    def _tissues(self) -> dict[Signals, TissueSource]:
        """Cache: the slices of a series share their tissue model."""
        return {}

    def slice_compressions(self) -> tuple[SliceCompression | None, ...]:
        """The compression that axial slices show at best, for each level; None for a level without a slice.

        A slice belongs to the nearest level if it is within `LEVEL_WINDOW_MM` of it along the canal.
        Diameters are projected on the plane across the canal where the slice crosses it.
        """
        curve, levels = self.anatomy.curve, self.anatomy.levels
        places = np.array([level.s for level in levels])
        best: list[SliceCompression | None] = [None] * len(levels)
        for number, pose in enumerate(self.axial.poses):
            points = self.anatomy.cord_points(pose)
            if points is None:
                continue
            s = curve.to_canal(points.mean(axis=0))[2]
            away = np.abs(s - places)
            level = int(np.argmin(away))
            across = cord_geometry(points[None], curve.tangent[curve.index(s)][None])
            seen = SliceCompression(number, float(across.ap_mm[0]), float(across.transverse_mm[0]))
            before = best[level]
            if away[level] <= LEVEL_WINDOW_MM and (
                before is None or seen.compression_ratio < before.compression_ratio
            ):
                best[level] = seen
        return tuple(best)

    def tissues(self, signals: Signals) -> TissueSource:
        """Tissue model of the patient with one acquisition's contrast."""
        return with_findings(painted(self.anatomy, signals), self.anatomy, signals)


def plan_series(
    rng: np.random.Generator, anatomy: Anatomy, conditions: Conditions, own: Generators
) -> tuple[PlannedSeries, PlannedSeries]:
    """Draw a sagittal and an axial series of a patient, each with its own scanner.

    Args:
        rng: draws what an ordinary study draws.
        anatomy: the patient before it is turned; see `turned`, which the caller applies.
        conditions: position and scan.
        own: gives the generator of a topic that conditions draw from.
    """
    along, across = sample_sagittal_protocol(rng), sample_axial_protocol(rng)
    moved = turned(anatomy, conditions)
    along = scanned_protocol(field_protocol(along, conditions, own("field")), conditions)
    scanner = field_scanner(sample_scanner(rng), conditions)
    poses = plan_sagittal(anatomy, along, rng)
    if is_turned(conditions) or conditions.spacing != 1.0:
        poses = place_sagittal(poses, moved, along.slice_distance)
    poses = placed(poses, moved, conditions, own("field place"))
    sagittal = _as_scanned(along, poses, scanner, conditions, own("sagittal scan"))
    across = scanned_protocol(across, conditions)
    scanner = sample_scanner(rng)
    poses = plan_axial(anatomy, across, rng)
    if is_turned(conditions) or conditions.axial_tilt:
        poses = place_axial(poses, moved, conditions, across.slice_distance)
    return sagittal, _as_scanned(across, poses, scanner, conditions, own("axial scan"))


def _as_scanned(
    protocol: SeriesProtocol,
    poses: list[SlicePose],
    scanner: Scanner,
    conditions: Conditions,
    own: np.random.Generator,
) -> PlannedSeries:
    """A series with the contrast, the artefacts and the matrix of `conditions`."""
    scanner = scanned(scanner, poses[len(poses) // 2], conditions, own)
    protocol, poses = interpolated(protocol, poses, conditions)
    if protocol.plane == "sagittal":
        protocol = replace(protocol, slices=len(poses))
    return PlannedSeries(protocol, tuple(poses), scanner)


def sample_study(
    seed: int, index: int, grade: int | None = None, conditions: Conditions = ORDINARY
) -> PhantomStudy:
    """Sample study `index` of set `seed`; it depends on `seed`, `index`, `grade` and `conditions` alone."""
    rng, own = np.random.default_rng([seed, index]), partial(condition_rng, seed, index)
    anatomy = sample_anatomy(rng, grade, draw_findings(conditions, own("findings")))
    if needs_long_spine(conditions):
        anatomy = extended(anatomy, own("long spine"))
    sagittal, axial = plan_series(rng, anatomy, conditions, own)
    anatomy = turned(anatomy, conditions)
    anatomy = replace(anatomy, landmarks=painted_landmarks(anatomy))
    return PhantomStudy(seed, index, grade, anatomy, sagittal, axial, conditions)


class StudySource(Protocol):
    """Interface of sources of studies; study `index` of set `seed` is always the same."""

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy: ...


@dataclass(frozen=True)
class PhantomSource:
    """Source of fully synthetic studies.

    Attributes:
        conditions: of every study.
        varied: draw the conditions of each study that `conditions` does not name; see `draw_conditions`.
    """

    conditions: Conditions = ORDINARY
    varied: bool = False

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy:
        """See `sample_study`."""
        return sample_study(seed, index, grade, conditions_of(self.conditions, self.varied, seed, index))
