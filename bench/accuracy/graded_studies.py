"""Make a study with known truth, grade it, and keep both as one record; its image files are deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stenosis_trt.bench.phantom.dicom_files import WritableStudy, sop_instance_uid, write_study
from stenosis_trt.bench.phantom.study import PhantomStudy, SeriesPlan
from stenosis_trt.engine.api import Grader
from stenosis_trt.engine.errors import CannotGrade
from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.records import LEVELS, CordMeasurement, LevelResult, StudyResult

RATIO_WARNINGS = frozenset(
    {
        "axial_slice_gap",
        "axial_slices_mixed",
        "axial_unmatched",
        "cord_axes_not_crossing",
        "cord_axes_not_orthogonal",
        "cord_low_confidence",
        "cord_not_measured",
        "cord_size_implausible",
        "no_axial_series",
        "no_axial_slice",
        "oblique_slice",
        "slice_too_oblique",
    }
)
"""Warnings that speak of the compression ratio. All others speak of the level, its grade or the study."""

NUMBERED_WITHIN_MM = 6.0
"""A point within this distance of a disc is a point of that disc; discs are at least 10 mm apart."""


@dataclass(frozen=True)
class GradedLevel:
    """One level of a study: what is true and what was found; None where it is not known or was not found.

    Attributes:
        level: one of LEVELS.
        true_grade: None if the level must not be graded.
        true_ratio: the smallest ratio that axial slices near the level show.
        true_point: LPS, mm.
        shown: the true point lies in the sagittal images.
        grade, ratio, point, warnings: found; the study's warnings are among those of each level.
        slice_angle_degrees: true angle between the slice on which the ratio was measured and the plane across
            the cord.
    """

    level: str
    true_grade: int | None
    true_ratio: float | None
    true_point: Vector
    shown: bool
    grade: int | None = None
    ratio: float | None = None
    point: Vector | None = None
    warnings: tuple[str, ...] = ()
    slice_angle_degrees: float | None = None

    @property
    def grade_warnings(self) -> tuple[str, ...]:
        """Warnings that do not speak of the ratio alone."""
        return tuple(name for name in self.warnings if name not in RATIO_WARNINGS)

    @property
    def ratio_warnings(self) -> tuple[str, ...]:
        """Warnings that speak of the ratio."""
        return tuple(name for name in self.warnings if name in RATIO_WARNINGS)


@dataclass(frozen=True)
class GradedStudy:
    """Truth and results of a study.

    Attributes:
        source: "phantom", or the name of the subject.
        index: of the study in its set.
        levels: one entry for each of LEVELS.
        landmarks: true points of discs and bones beside the levels, LPS, mm, by name.
        c2_shown: the sagittal images show the landmark "C2".
        refused: why the study was not graded; "" if it was.
        refused_stage: value of the `Stage` that refused it; "choose" if its series were not fit for grading.
        seconds: duration of making and of grading.
    """

    source: str
    index: int
    levels: tuple[GradedLevel, ...]
    landmarks: Mapping[str, Vector] = field(default_factory=dict)
    c2_shown: bool = True
    refused: str = ""
    refused_stage: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)

    def misnumbered(self) -> list[GradedLevel]:
        """Levels that were found at another disc: far from their own, and near that of another name."""
        discs = {item.level: item.true_point for item in self.levels}
        discs |= {name: point for name, point in self.landmarks.items() if "/" in name}
        return [item for item in self.levels if is_misnumbered(item.level, item.point, discs)]


def is_misnumbered(level: str, point: Vector | None, discs: Mapping[str, Vector]) -> bool:
    """Return True if the point of a level lies at the disc of another name.

    Args:
        level: name of the level.
        point: as found, LPS, mm; None if it was not found.
        discs: true points of all discs, by name.
    """
    if point is None or _distance(point, discs[level]) <= NUMBERED_WITHIN_MM:
        return False
    return any(
        _distance(point, there) <= NUMBERED_WITHIN_MM for name, there in discs.items() if name != level
    )


def _distance(one: Vector, other: Vector) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))


@dataclass(frozen=True)
class Graded:
    """Result of a study, or None; the other values as in `GradedStudy`."""

    result: StudyResult | None
    refused: str = ""
    refused_stage: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)


def grade_writable(study: WritableStudy, grader: Grader) -> Graded:
    """Write a study as DICOM files, grade it, and delete the files.

    Raises:
        OSError: the disk is full.
        StenosisError: nothing can be graded.
    """
    start = time.perf_counter()
    with TemporaryDirectory(prefix="stenosis-trt-") as folder:
        write_study(study, Path(folder) / "study", "explicit")
        made = time.perf_counter()
        try:
            graded = Graded(grader(Path(folder) / "study"))
        except CannotGrade as error:
            graded = Graded(None, error.reason, error.stage.value)
        return replace(graded, seconds=(made - start, time.perf_counter() - made))


def record_study(source: str, study: PhantomStudy, graded: Graded) -> GradedStudy:
    """Join the truth of a phantom or semi-synthetic study with its result.

    Args:
        source: "phantom", or the name of the subject.
        study: the study.
        graded: its result.
    """
    anatomy, result = study.anatomy, graded.result
    found: Sequence[LevelResult | None] = result.levels if result else [None] * len(LEVELS)
    study_warnings = result.warnings if result else ()
    levels = []
    for truth, operated, seen, level in zip(
        anatomy.levels, anatomy.operated, study.slice_compressions(), found, strict=True
    ):
        cord = level.cord if level else None
        levels.append(
            GradedLevel(
                level=truth.level,
                true_grade=None if operated else truth.grade,
                true_ratio=seen.compression_ratio if seen else None,
                true_point=truth.point,
                shown=is_shown(study.sagittal, truth.point),
                grade=level.grade if level else None,
                ratio=cord.compression_ratio if cord else None,
                point=level.point if level else None,
                warnings=tuple(dict.fromkeys((*level.warnings, *study_warnings))) if level else (),
                slice_angle_degrees=slice_angle(study, cord) if cord else None,
            )
        )
    c2 = anatomy.landmarks.get("C2")
    return GradedStudy(
        source=source,
        index=study.index,
        levels=tuple(levels),
        landmarks=dict(anatomy.landmarks),
        c2_shown=c2 is not None and is_shown(study.sagittal, c2),
        refused=graded.refused,
        refused_stage=graded.refused_stage,
        seconds=graded.seconds,
    )


def is_shown(series: SeriesPlan, point: Vector) -> bool:
    """Return True if a point (LPS, mm) lies in the images of a series.

    Along the normal it may lie one distance of slices beyond the first or the last one.
    """
    placed = np.array([pose.to_pixels(np.asarray(point)) for pose in series.poses])
    nearest = int(np.argmin(np.abs(placed[:, 2])))
    column, row, depth = placed[nearest]
    pose = series.poses[nearest]
    inside = -0.5 <= column <= pose.columns - 0.5 and -0.5 <= row <= pose.rows - 0.5
    return bool(inside and abs(depth) <= series.protocol.slice_distance)


def slice_angle(study: PhantomStudy, cord: CordMeasurement) -> float | None:
    """True angle in degrees between the slice of a measurement and the plane across the canal."""
    poses = {sop_instance_uid(study, study.axial, k): pose for k, pose in enumerate(study.axial.poses)}
    pose = poses.get(cord.sop_instance_uid)
    return None if pose is None else _angle_to_canal(study, pose, np.mean(cord.points, axis=0))


def _angle_to_canal(study: PhantomStudy, pose: SlicePose, near: np.ndarray) -> float:
    curve = study.anatomy.curve
    along = curve.tangent[curve.index(float(curve.to_canal(near)[2]))]
    return float(np.degrees(np.arccos(min(1.0, abs(float(along @ pose.normal))))))
