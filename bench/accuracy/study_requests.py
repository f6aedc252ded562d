"""Requests of studies: which study to make under which conditions, and how much of it the images show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from stenosis_trt.bench.accuracy.graded_studies import GradedStudy, grade_writable, record_study
from stenosis_trt.bench.phantom.conditions import ORDINARY, Conditions
from stenosis_trt.bench.phantom.study import PhantomSource, PhantomStudy, PlannedSeries, StudySource
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.engine.api import Grader
from stenosis_trt.engine.geometry import SlicePose, Vector

PHANTOM = "phantom"
"""Name of the source of fully synthetic studies."""


@dataclass(frozen=True)
class StudyRequest:
    """One phantom or semi-synthetic study.

    Attributes:
        subjects: names of the subjects that a semi-synthetic study may be of; empty for a phantom.
        seed, index: of the study.
        conditions: what differs from an ordinary study.
        volumes: folder with one folder per subject; None for a phantom.
        grade: Kang grade of every stenosis; None draws grades.
        cut: highest and lowest place that the images show, as `first` and `last` of `cut_short`; None for
            images that are not cut.
    """

    seed: int
    index: int
    conditions: Conditions = ORDINARY
    subjects: tuple[str, ...] = ()
    volumes: Path | None = None
    grade: int | None = None
    cut: tuple[float | None, float | None] | None = None

    @property
    def source(self) -> str:
        """ "phantom", or the name of the subject."""
        return self.subjects[self.index % len(self.subjects)] if self.subjects else PHANTOM

    @property
    def key(self) -> str:
        """Path of the study's record below the folder of records, without a suffix."""
        differing = [f"{name}={value:g}" for name, value in self.conditions.differences().items()]
        if self.cut is not None:
            differing.append("shown=" + "..".join("" if end is None else f"{end:g}" for end in self.cut))
        if self.grade is not None:
            differing.append(f"grade={self.grade}")
        return f"{','.join(differing) or 'ordinary'}/{self.source}-{self.seed}-{self.index:04d}"

    def run(self, grader: Grader) -> GradedStudy:
        """Make the study and grade it.

        Raises:
            OSError: a volume is missing, or the disk is full.
            StenosisError: nothing can be graded.
        """
        study = _source(self.subjects, self.volumes, self.conditions).sample(
            self.seed, self.index, self.grade
        )
        if self.cut is not None:
            study = cut_short(study, *self.cut)
        return record_study(self.source, study, grade_writable(study, grader))


@lru_cache(maxsize=4)
def _source(subjects: tuple[str, ...], volumes: Path | None, conditions: Conditions) -> StudySource:
    if volumes is None:
        return PhantomSource(conditions)
    return SemisyntheticSource(subjects, volumes, conditions=conditions)


def cut_short(study: PhantomStudy, first: float | None, last: float | None) -> PhantomStudy:
    """Crop both series of a study at the head or the foot.

    Args:
        study: the study.
        first, last: highest and lowest place that is shown, in discs: 0 at C2/3, 0.5 in the middle of C3,
            −0.5 half a disc's distance above C2/3; None for an end that is not cropped.
    """
    discs = np.array([level.point for level in study.anatomy.levels])
    top = np.inf if first is None else height_of(discs, first)
    foot = -np.inf if last is None else height_of(discs, last)
    return replace(
        study, sagittal=_cropped(study.sagittal, foot, top), axial=_between(study.axial, foot, top)
    )


def height_of(discs: np.ndarray, place: float) -> float:
    """Height z of a place along the discs (N, 3), C2/3 at 0; beyond the ends as far as the last pitch."""
    heights = discs[:, 2]
    if place < 0:
        return float(heights[0] + place * (heights[1] - heights[0]))
    beyond = place - (len(heights) - 1)
    if beyond > 0:
        return float(heights[-1] + beyond * (heights[-1] - heights[-2]))
    return float(np.interp(place, np.arange(len(heights)), heights))


def _cropped(series: PlannedSeries, foot: float, top: float) -> PlannedSeries:
    """Rows of sagittal slices whose middle lies between two heights."""
    poses = []
    for pose in series.poses:
        rows = np.arange(pose.rows)
        middle = np.column_stack([np.full(pose.rows, (pose.columns - 1) / 2), rows])
        shown = rows[(pose.to_patient(middle)[:, 2] >= foot) & (pose.to_patient(middle)[:, 2] <= top)]
        poses.append(_with_rows(pose, int(shown[0]), len(shown)))
    return replace(series, poses=tuple(poses))


def _with_rows(pose: SlicePose, first: int, count: int) -> SlicePose:
    x, y, z = (float(value) for value in pose.to_patient(np.array([0.0, float(first)])))
    origin: Vector = (x, y, z)
    return replace(pose, origin=origin, rows=count)


def _between(series: PlannedSeries, foot: float, top: float) -> PlannedSeries:
    """Axial slices whose centre lies between two heights."""
    return replace(series, poses=tuple(pose for pose in series.poses if foot <= pose.centre[2] <= top))
