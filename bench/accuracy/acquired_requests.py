"""Requests of acquired volumes: resliced to the clinical protocols, cut short or tilted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stenosis_trt.bench.accuracy.graded_studies import GradedLevel, GradedStudy, grade_writable, is_shown
from stenosis_trt.bench.accuracy.study_requests import height_of
from stenosis_trt.bench.phantom.patient.spine import rotation_matrix
from stenosis_trt.bench.phantom.study import SeriesPlan
from stenosis_trt.bench.semisynthetic.acquired import AcquiredStudy, acquire_volume
from stenosis_trt.bench.semisynthetic.canal import NiftiVolume
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.api import Grader
from stenosis_trt.engine.geometry import FloatArray, SlicePose, Vector
from stenosis_trt.engine.records import LEVELS

_DISCS = (*LEVELS, "T1/2", "T2/3", "T3/4")


@dataclass(frozen=True)
class AcquiredRequest:
    """One acquired volume.

    Attributes:
        subject, volumes: name of the subject, and the folder with one folder per subject.
        cut: highest and lowest place that the images show, as in `study_requests.cut_short`; None for the
            whole volume.
        pitch: degrees by which the images are turned about the left-right axis against the patient.
    """

    subject: str
    volumes: Path
    cut: tuple[float | None, float | None] | None = None
    pitch: float = 0.0

    @property
    def key(self) -> str:
        """Path of the study's record below the folder of records, without a suffix."""
        shown = "" if self.cut is None else "..".join("" if end is None else f"{end:g}" for end in self.cut)
        return f"acquired,shown={shown},pitch={self.pitch:g}/{self.subject}"

    def run(self, grader: Grader) -> GradedStudy:
        """Reslice the volume and grade it. Levels have no true grade and no true ratio.

        Raises:
            OSError: the volume is missing, or the disk is full.
            StenosisError: nothing can be graded.
        """
        subject = SUBJECTS[self.subject]
        discs = subject.disc_points
        first, last = self.cut or (None, None)
        between = (
            -np.inf if last is None else height_of(discs[: len(LEVELS)], last),
            np.inf if first is None else height_of(discs[: len(LEVELS)], first),
        )
        study = acquire_volume(subject.name, NiftiVolume(subject.path(self.volumes)), between)
        study = tilted(study, self.pitch, discs[2])
        graded = grade_writable(study, grader)
        found = graded.result.levels if graded.result else [None] * len(LEVELS)
        study_warnings = graded.result.warnings if graded.result else ()
        points: dict[str, Vector] = dict(zip(_DISCS, map(_vector, discs), strict=False))
        levels = tuple(
            GradedLevel(
                level=name,
                true_grade=None,
                true_ratio=None,
                true_point=points[name],
                shown=is_shown(study.sagittal, points[name]),
                grade=level.grade if level else None,
                point=level.point if level else None,
                warnings=tuple(dict.fromkeys((*level.warnings, *study_warnings))) if level else (),
            )
            for name, level in zip(LEVELS, found, strict=True)
        )
        return GradedStudy(
            source=self.subject,
            index=0,
            levels=levels,
            landmarks={name: points[name] for name in _DISCS[len(LEVELS) :]},
            c2_shown=is_shown(study.sagittal, subject.dens_base),
            refused=graded.refused,
            refused_stage=graded.refused_stage,
            seconds=graded.seconds,
        )


def tilted(study: AcquiredStudy, degrees: float, about: FloatArray) -> AcquiredStudy:
    """Turn the slices of both series about the left-right axis through a point (LPS, mm).

    The images show the patient as if it had been turned by −`degrees`; beyond the volume they are black.
    """
    if not degrees:
        return study
    turn = rotation_matrix(0.0, degrees, 0.0)
    plans = [
        SeriesPlan(plan.protocol, tuple(_turned(pose, turn, about) for pose in plan.poses))
        for plan in (study.sagittal, study.axial)
    ]
    return replace(study, sagittal=plans[0], axial=plans[1])


def _turned(pose: SlicePose, turn: FloatArray, about: FloatArray) -> SlicePose:
    return replace(
        pose,
        origin=_vector(about + turn @ (np.asarray(pose.origin) - about)),
        row_direction=_vector(turn @ np.asarray(pose.row_direction)),
        column_direction=_vector(turn @ np.asarray(pose.column_direction)),
    )


def _vector(values: FloatArray) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
