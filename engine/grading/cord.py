"""The cord on axial slices: the line of the canal, the slices that cross it, diameters and their ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.backends.base import Cords
from stenosis_trt.engine.geometry import FloatArray, Vector
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.records import CordMeasurement, LoadedSlice

_WALL_TO_MIDDLE_MM = 7.0
"""Distance from the anterior wall of the canal to its middle: half of a canal of 12–14 mm."""

_EXTENSION_MM = 12.0
"""Length by which the line of the canal is extended beyond the first and the last level."""

_AP_MM = (1.5, 12.0)
_TRANSVERSE_MM = (5.0, 20.0)
"""Plausible diameters (minimum, maximum). Healthy cords measure 7.5 ± 0.5 by 13.0 ± 0.8 mm at C5
(PAM50-normalized-metrics), and a compressed cord keeps more than a fifth of its depth."""

_MIN_AXES_ANGLE_DEGREES = 60.0
"""Smallest angle between the two diameters of a cord, which are nearly orthogonal."""


@dataclass(frozen=True)
class CanalLine:
    """The middle of the canal as a polyline through the levels.

    Attributes:
        points: LPS, mm, float64 (M, 3), head to foot.
        arc_length_mm: arc length of each point, float64 (M,); zero at the first level that was found.
        level_arc_length_mm: arc length of each level that was found, by name.
    """

    points: FloatArray
    arc_length_mm: FloatArray
    level_arc_length_mm: dict[str, float]


def canal_line(levels: Sequence[LevelPoint]) -> CanalLine:
    """Return the middle of the canal, from the points of the levels on its anterior wall.

    Args:
        levels: disc levels, at least two of them with a point.
    """
    named = [(item.level, np.asarray(item.point)) for item in levels if item.point is not None]
    wall = np.stack([point for _, point in named])
    direction = np.gradient(wall, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # The middle lies posterior to the wall, orthogonal to the direction of the canal.
    back = np.array([0.0, 1.0, 0.0]) - direction * direction[:, 1:2]
    middle = wall + _WALL_TO_MIDDLE_MM * back / np.linalg.norm(back, axis=1, keepdims=True)
    ends = middle[0] - direction[0] * _EXTENSION_MM, middle[-1] + direction[-1] * _EXTENSION_MM
    points = np.concatenate([ends[0][None], middle, ends[1][None]])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    arc -= arc[1]
    return CanalLine(points, arc, {name: float(arc[k + 1]) for k, (name, _) in enumerate(named)})


@dataclass(frozen=True)
class CordSlice:
    """An axial slice that crosses the line of the canal.

    Attributes:
        index: index of the slice.
        centre: point of the crossing, LPS, mm, float64 (3,).
        arc_length_mm: arc length at the crossing.
        tilt_degrees: angle between the slice normal and the line.
        series: index of the axial series that the slice belongs to.
    """

    index: int
    centre: FloatArray
    arc_length_mm: float
    tilt_degrees: float = 0.0
    series: int = 0


def crossing_slices(
    line: CanalLine, slices: Sequence[LoadedSlice], series: Sequence[int] = ()
) -> list[CordSlice]:
    """Return the axial slices that the line crosses within the image, each with its first crossing.

    Args:
        line: line of the canal.
        slices: slices of one or several axial series.
        series: index of the series of each slice; empty if there is only one.
    """
    if not slices:
        return []
    poses = [item.pose for item in slices]
    normals = np.array([pose.normal for pose in poses])
    origins = np.array([pose.origin for pose in poses])
    heights = normals @ line.points.T - (normals * origins).sum(axis=1)[:, None]
    crossing = np.signbit(heights[:, :-1]) != np.signbit(heights[:, 1:])
    indices = np.flatnonzero(crossing.any(axis=1))
    k = crossing[indices].argmax(axis=1)
    above, below = heights[indices, k], heights[indices, k + 1]
    share = above / (above - below)
    along = line.points[k + 1] - line.points[k]
    points = line.points[k] + share[:, None] * along
    cosines = np.abs((normals[indices] * along).sum(axis=1)) / np.linalg.norm(along, axis=1)
    tilts = np.degrees(np.arccos(np.minimum(cosines, 1.0)))
    arcs = line.arc_length_mm[k] + share * (line.arc_length_mm[k + 1] - line.arc_length_mm[k])
    across = []
    for index, point, arc, tilt in zip(indices.tolist(), points, arcs, tilts, strict=True):
        pose = poses[index]
        column, row, _ = pose.to_pixels(point)
        if 0 <= column <= pose.columns - 1 and 0 <= row <= pose.rows - 1:
            of = series[index] if series else 0
            across.append(CordSlice(index, point, float(arc), float(tilt), of))
    return across


def measure_cord(slices: Sequence[LoadedSlice], cords: Cords, model: ModelSpec) -> list[CordMeasurement]:
    """Return the measurement of the cord on each slice: diameters in mm, their ratio and warnings.

    Args:
        slices: N axial slices.
        cords: anterior, posterior, left and right points on each slice, and their geometry.
        model: specification of the cord model, with the minimum confidence of its output.
    """
    points, geometry = cords.keypoints.points, cords.geometry
    confidence = cords.keypoints.confidence.min(axis=1)
    measured = []
    for k, item in enumerate(slices):
        ap, transverse = float(geometry.ap_mm[k]), float(geometry.transverse_mm[k])
        doubts = (
            (confidence[k] < model.output.minimum_confidence, "cord_low_confidence"),
            (not geometry.crossing[k], "cord_axes_not_crossing"),
            (geometry.angle_degrees[k] < _MIN_AXES_ANGLE_DEGREES, "cord_axes_not_orthogonal"),
            (not (_AP_MM[0] <= ap <= _AP_MM[1]), "cord_size_implausible"),
            (not (_TRANSVERSE_MM[0] <= transverse <= _TRANSVERSE_MM[1]), "cord_size_implausible"),
        )
        corners: list[Vector] = [(float(x), float(y), float(z)) for x, y, z in points[k]]
        measured.append(
            CordMeasurement(
                sop_instance_uid=item.frame.sop_instance_uid,
                points=(corners[0], corners[1], corners[2], corners[3]),
                ap_mm=ap,
                transverse_mm=transverse,
                compression_ratio=float(geometry.compression_ratio[k]),
                confidence=float(confidence[k]),
                warnings=tuple(dict.fromkeys(name for doubtful, name in doubts if doubtful)),
                frame_number=item.frame.frame_number,
            )
        )
    return measured
