"""The cord on axial slices: the line of the canal, the slices that cross it, diameters and their ratio.

Diameters are measured across the cord: on the plane perpendicular to the line of the canal where the slice
crosses it. A slice that is tilted by 25° against the cord shows it 10 % too deep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.backends.base import Cords
from stenosis_trt.engine.geometry import FloatArray, Vector
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.records import CordMeasurement, LoadedSlice

_WALL_TO_MIDDLE_MM = 7.0
"""Distance from the anterior wall of the canal to its middle: half of a canal of 12–14 mm."""

_EXTENSION_MM = 12.0
"""Length by which the line of the canal is extended beyond the first and the last level."""

_DIRECTION_BANDWIDTH_MM = 28.0
"""Standard deviation of the weights with which the points of the wall give the direction of the cord. Of 16
to 34 mm, 28 gave the smallest errors on semi-synthetic necks; see docs/decisions/cord-angle.md."""

_AP_MM = (1.5, 12.0)
_TRANSVERSE_MM = (5.0, 20.0)
"""Plausible diameters (minimum, maximum). Healthy cords measure 7.5 ± 0.5 by 13.0 ± 0.8 mm at C5
(PAM50-normalized-metrics), and a compressed cord keeps more than a fifth of its depth."""

MAX_SLICE_ANGLE_DEGREES = 40.0
"""A slice that is more oblique to the cord gives no ratio; see docs/decisions/cord-angle.md."""

_MIN_AXES_ANGLE_DEGREES = 60.0
"""Smallest angle between the two diameters of a cord, which are nearly orthogonal."""


@dataclass(frozen=True)
class CanalLine:
    """The middle of the canal as a polyline through the levels.

    Attributes:
        points: LPS, mm, float64 (M, 3), head to foot.
        arc_length_mm: arc length of each point, float64 (M,); zero at the first level that was found.
        level_arc_length_mm: arc length of each level that was found, by name.
        directions: direction of the cord at each point, unit vectors towards the feet, LPS, float64 (M, 3).
    """

    points: FloatArray
    arc_length_mm: FloatArray
    level_arc_length_mm: dict[str, float]
    directions: FloatArray

    def directions_at(self, arc_length_mm: npt.ArrayLike) -> FloatArray:
        """Return the direction of the cord at N arc lengths, unit vectors (N, 3), interpolated."""
        arcs = np.asarray(arc_length_mm, dtype=np.float64)
        parts = [np.interp(arcs, self.arc_length_mm, part) for part in self.directions.T]
        return _unit(np.column_stack(parts))


def canal_line(levels: Sequence[LevelPoint], further: Sequence[Vector] = ()) -> CanalLine:
    """Return the middle of the canal, from the points of the levels on its anterior wall.

    Args:
        levels: disc levels, at least two of them with a point.
        further: further points on the anterior wall, LPS, mm, such as that of C2 or of T1/2. They improve the
            direction of the line near its ends.
    """
    named = [(item.level, item.point) for item in levels if item.point is not None]
    found = [*named, *(("", point) for point in further)]
    wall = np.array([point for _, point in found], dtype=np.float64)
    # From head to foot: further points may lie beyond either end.
    order = np.argsort(wall @ (wall[len(named) - 1] - wall[0]), kind="stable")
    wall, names = wall[order], [found[k][0] for k in order]
    directions = _wall_directions(wall)
    # The middle lies posterior to the wall, orthogonal to the direction of the canal.
    middle = wall + _WALL_TO_MIDDLE_MM * posterior_directions(directions)
    directions = directions[[0, *range(len(wall)), -1]]
    ends = middle[0] - directions[0] * _EXTENSION_MM, middle[-1] + directions[-1] * _EXTENSION_MM
    points = np.concatenate([ends[0][None], middle, ends[1][None]])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = {name: float(arc[k + 1]) for k, name in enumerate(names) if name}
    first = min(at.values())
    line = CanalLine(points, arc - first, {name: place - first for name, place in at.items()}, directions)
    return _shortened(line) if further else line


def posterior_directions(directions: FloatArray) -> FloatArray:
    """Return the direction to the back, orthogonal to each of N unit vectors along the canal, LPS, (N, 3)."""
    return _unit(np.array([0.0, 1.0, 0.0]) - directions * directions[:, 1:2])


def _shortened(line: CanalLine) -> CanalLine:
    """Return the part of a line up to `_EXTENSION_MM` beyond its outermost levels."""
    places = line.level_arc_length_mm.values()
    low, high = min(places) - _EXTENSION_MM, max(places) + _EXTENSION_MM
    known = line.arc_length_mm
    low, high = max(low, float(known[0])), min(high, float(known[-1]))
    arcs = np.array([low, *known[(known > low) & (known < high)], high])
    points = np.column_stack([np.interp(arcs, known, part) for part in line.points.T])
    return CanalLine(points, arcs, line.level_arc_length_mm, line.directions_at(arcs))


def _wall_directions(wall: FloatArray) -> FloatArray:
    """Return the direction of the wall at each of its points, unit vectors (M, 3).

    The slope of a quadratic in arc length, fitted to all points with weights that fall with the distance:
    unlike differences of neighbours it has no error of its own at the ends of a wall that is bent evenly.
    """
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(wall, axis=0), axis=1))])
    slopes = []
    for here in arc:
        away = arc - here
        weights = np.exp(-0.25 * (away / _DIRECTION_BANDWIDTH_MM) ** 2)[:, None]
        terms = np.vander(away, min(3, len(wall)), increasing=True)
        slopes.append(np.linalg.lstsq(terms * weights, wall * weights, rcond=None)[0][1])
    return _unit(np.array(slopes))


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


@dataclass(frozen=True)
class CordSlice:
    """An axial slice that crosses the line of the canal.

    Attributes:
        index: index of the slice.
        centre: point of the crossing, LPS, mm, float64 (3,).
        arc_length_mm: arc length at the crossing.
        direction: direction of the cord there, unit vector, LPS, float64 (3,).
        angle_degrees: angle between the slice and the plane across the cord.
        series: index of the axial series that the slice belongs to.
    """

    index: int
    centre: FloatArray
    arc_length_mm: float
    direction: FloatArray
    angle_degrees: float = 0.0
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
    arcs = line.arc_length_mm[k] + share * (line.arc_length_mm[k + 1] - line.arc_length_mm[k])
    directions = line.directions_at(arcs)
    cosines = np.abs((normals[indices] * directions).sum(axis=1))
    angles = np.degrees(np.arccos(np.minimum(cosines, 1.0)))
    across = []
    for number, (index, point) in enumerate(zip(indices.tolist(), points, strict=True)):
        pose = poses[index]
        column, row, _ = pose.to_pixels(point)
        if 0 <= column <= pose.columns - 1 and 0 <= row <= pose.rows - 1:
            of = series[index] if series else 0
            angle = float(angles[number])
            across.append(CordSlice(index, point, float(arcs[number]), directions[number], angle, of))
    return across


def measure_cord(
    slices: Sequence[LoadedSlice], across: Sequence[CordSlice], cords: Cords, model: ModelSpec
) -> list[CordMeasurement]:
    """Return the measurement of the cord on each slice: diameters in mm, their ratio and warnings.

    Args:
        slices: slices that the indices of `across` refer to.
        across: N slices that cross the canal.
        cords: anterior, posterior, left and right points on each of them, and their geometry.
        model: specification of the cord model, with the minimum confidence of its output.
    """
    points, geometry = cords.keypoints.points, cords.geometry
    confidence = cords.keypoints.confidence.min(axis=1)
    measured = []
    for k, one in enumerate(across):
        frame = slices[one.index].frame
        ap, transverse = float(geometry.ap_mm[k]), float(geometry.transverse_mm[k])
        doubts = (
            (confidence[k] < model.output.minimum_confidence, "cord_low_confidence"),
            (not geometry.crossing[k], "cord_axes_not_crossing"),
            (geometry.angle_degrees[k] < _MIN_AXES_ANGLE_DEGREES, "cord_axes_not_orthogonal"),
            (one.angle_degrees > MAX_SLICE_ANGLE_DEGREES, "slice_too_oblique"),
            (not (_AP_MM[0] <= ap <= _AP_MM[1]), "cord_size_implausible"),
            (not (_TRANSVERSE_MM[0] <= transverse <= _TRANSVERSE_MM[1]), "cord_size_implausible"),
        )
        corners: list[Vector] = [(float(x), float(y), float(z)) for x, y, z in points[k]]
        measured.append(
            CordMeasurement(
                sop_instance_uid=frame.sop_instance_uid,
                points=(corners[0], corners[1], corners[2], corners[3]),
                ap_mm=ap,
                transverse_mm=transverse,
                compression_ratio=float(geometry.compression_ratio[k]),
                confidence=float(confidence[k]),
                warnings=tuple(dict.fromkeys(name for doubtful, name in doubts if doubtful)),
                frame_number=frame.frame_number,
                slice_angle_degrees=one.angle_degrees,
            )
        )
    return measured
