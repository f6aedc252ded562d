"""Points of disc levels and landmarks: combines the heatmap peaks of all sagittal slices into 3-D points.

The point of a level is where the mid-plane of its disc meets the anterior wall of the canal in the mid-line.
The peak of the network decreases with the distance from the mid-line, so the peaks of all slices together
give the left–right coordinate. A map may have peaks at several discs; each is combined with those of other
slices at the same disc, so that a point does not depend on which peak is the highest of its map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stenosis_trt.engine.backends.base import Peaks
from stenosis_trt.engine.geometry import FloatArray, Vector
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.records import LANDMARKS, LEVELS, LoadedSlice

_MIN_RELATIVE_PEAK = 0.3
"""Weight of a slice: max(0, peak − 0.3 · highest peak)². It grows from zero, because with a step the point
would jump by most of a millimetre when a peak changes by little, as it does in INT8."""

SAME_POINT_MM = 6.0
"""Points of two slices, or of two levels, that are closer in the image plane belong to the same disc."""

_FULL_WEIGHT_MM = 2.0
"""Distance up to which a peak has its full weight for a disc; the weight then falls to 0 at `SAME_POINT_MM`,
without a step for the reason above."""

_MEAN_SHIFT_END_MM = 0.001
_MAX_MEAN_SHIFTS = 20
"""The mean of the peaks at a disc is repeated about its own result until that moves by less: then it does not
matter from which peak it began."""

_TINY = np.finfo(np.float64).tiny

_MARGIN_MM = 5.0
"""A disc that is closer to the edge of the image is not completely visible and cannot be graded."""

_MAX_CANDIDATES = 3
"""Largest number of candidate positions per level or landmark."""

WALL_LANDMARKS = ("C2", "T1/2")
"""Landmarks next to the outermost levels, on the anterior wall of the canal."""

DISCS = (*LEVELS, "T1/2", "T2/3")
"""Discs that a levels model with landmarks has maps of."""


@dataclass(frozen=True)
class LevelPoint:
    """A disc level. `point` (LPS, mm) is None if it was not found; `warnings` say why."""

    level: str
    point: Vector | None
    confidence: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocatedLevels:
    """Disc levels, and what was seen beside them.

    Attributes:
        levels: one entry for each of LEVELS, in that order.
        landmarks: points (LPS, mm) of those of LANDMARKS that were seen where they fit the levels; empty if
            the model has no maps of them.
        mean_confidence: of the discs that were found, further ones than LEVELS included; 0 without any.
        c2_shown: the images reach high enough above C2/3 to show the landmark "C2". Always True if the model
            has no maps of landmarks.
    """

    levels: tuple[LevelPoint, ...]
    mean_confidence: float
    landmarks: Mapping[str, Vector] = field(default_factory=dict)
    c2_shown: bool = True

    @property
    def wall_points(self) -> tuple[Vector, ...]:
        """Points of `WALL_LANDMARKS` that were seen, LPS, mm."""
        return tuple(self.landmarks[name] for name in WALL_LANDMARKS if name in self.landmarks)


def has_landmarks(model: ModelSpec) -> bool:
    """Return True if a levels model has maps of the landmarks."""
    return model.output.names[len(LEVELS) :] == LANDMARKS


@dataclass(frozen=True)
class PointFinder:
    """Finds candidate points of discs and landmarks.

    Attributes:
        slices: the N slices.
        peaks: their peaks, one map for each output of the model.
        model: specification of the levels model, with the minimum confidence of its output.
        any_slice: accept points whose highest slice is the first or the last one; otherwise they are out of
            view, since the mid-line may lie beyond the stack.
    """

    slices: Sequence[LoadedSlice]
    peaks: Peaks
    model: ModelSpec
    any_slice: bool = False

    def discs(self) -> list[list[LevelPoint]]:
        """Candidates of each of LEVELS, or of DISCS if the model has landmarks; at least one of each.

        The first one of a disc is where its heatmaps are highest. The others are discs where another one has
        its highest peak and the heatmap of this one is high too, since neighbouring discs look alike. The
        only candidate may have no point; its warnings then say why.
        """
        names = DISCS if has_landmarks(self.model) else LEVELS
        return [self._disc(name, index, len(names)) for index, name in enumerate(names)]

    def landmark(self, name: str) -> list[LevelPoint]:
        """Candidates of "C2" or "dens", from all peaks of its map; perhaps none."""
        index = self.model.output.names.index(name)
        points, heights = self.peaks.points[:, index], self.peaks.heights[:, index]
        found: list[LevelPoint] = []
        while len(found) < _MAX_CANDIDATES:
            combined = _combine_peaks(self.slices, points, heights, heights)
            if combined is None or combined.height < self.model.output.minimum_confidence:
                break
            found.append(LevelPoint(name, combined.point, combined.height))
            heights = np.where(self._near(points, combined.point), 0.0, heights)
        return found

    def _disc(self, name: str, index: int, discs: int) -> list[LevelPoint]:
        minimum = self.model.output.minimum_confidence
        points, heights = self.peaks.points[:, index], self.peaks.heights[:, index]
        first = self._level_point(name, points, heights, heights)
        if first.confidence < minimum:
            return [LevelPoint(name, None, first.confidence, ("level_not_found",))]
        found = [first]
        support = self.peaks.support[:, index, :discs]
        points = np.concatenate([self.peaks.points[:, :discs, 0], points[:, 1:]], axis=1)
        seeds = np.concatenate([support, np.zeros_like(heights[:, 1:])], axis=1)
        heights = np.concatenate([support, heights[:, 1:]], axis=1)
        while found[-1].point is not None and len(found) < _MAX_CANDIDATES:
            near = self._near(points, found[-1].point)
            seeds, heights = np.where(near, 0.0, seeds), np.where(near, 0.0, heights)
            other = self._level_point(name, points, heights, seeds)
            if other.confidence < minimum or other.point is None:
                break
            found.append(other)
        return found

    def _near(self, points: FloatArray, point: Vector) -> np.ndarray:
        """Which points (...) lie at the same disc as one point, projected along the slices' normal."""
        return _in_plane_distance(points, np.asarray(point), self.slices[0].pose.normal) <= SAME_POINT_MM

    def _level_point(
        self, name: str, points: FloatArray, heights: FloatArray, seeds: FloatArray
    ) -> LevelPoint:
        combined = _combine_peaks(self.slices, points, heights, seeds)
        if combined is None:
            return LevelPoint(name, None, 0.0)
        inside = self.any_slice or 0 < combined.slice_index < len(self.slices) - 1
        if inside and in_image(self.slices[combined.slice_index], np.array(combined.point), _MARGIN_MM):
            return LevelPoint(name, combined.point, combined.height)
        # The point is outside the image or in an outermost slice, so that the mid-line may lie beyond.
        return LevelPoint(name, None, combined.height, ("level_out_of_view",))


def _in_plane_distance(points: FloatArray, point: FloatArray, normal: FloatArray) -> FloatArray:
    """Return the distances (...) in mm of points (..., 3) from one point, projected along a normal."""
    offset = points - point
    return np.asarray(np.linalg.norm(offset - (offset @ normal)[..., None] * normal, axis=-1))


@dataclass(frozen=True)
class _CombinedPeak:
    """Peaks at one place: the weighted mean of their points (LPS, mm), the highest peak and its slice."""

    point: Vector
    height: float
    slice_index: int


def _combine_peaks(
    slices: Sequence[LoadedSlice], points: FloatArray, heights: FloatArray, seeds: FloatArray
) -> _CombinedPeak | None:
    """Combine the peaks at the disc of the highest seed into a point, the weighted mean of their positions.

    The mean is found by mean shift in the image plane: weights fall with the distance from the mean itself.
    All peaks of a slice together have the weight of that with the largest one.

    Args:
        slices: the N slices.
        points: P peaks of each slice, (N, P, 3).
        heights: their heights (N, P); peaks of height 0 are ignored.
        seeds: heights of the peaks that the mean may begin from, and 0 for the others, (N, P).

    Returns:
        None if there is no seed above 0.
    """
    best, order = divmod(int(np.argmax(seeds)), seeds.shape[1])
    peak, pose = float(seeds[best, order]), slices[best].pose
    if peak <= 0.0:
        return None
    share = np.maximum(heights - _MIN_RELATIVE_PEAK * peak, 0.0) ** 2
    plane = points @ np.transpose([pose.row_direction, pose.column_direction])
    mean = plane[best, order]
    # A mean of peaks within a radius lies within that radius of one of them: the weights are never all 0.
    for _ in range(_MAX_MEAN_SHIFTS):
        distance = np.hypot(plane[..., 0] - mean[0], plane[..., 1] - mean[1])
        fade = (SAME_POINT_MM - distance) / (SAME_POINT_MM - _FULL_WEIGHT_MM)
        weight = share * np.clip(fade, 0.0, 1.0)
        weight *= (weight.max(axis=1) / np.maximum(weight.sum(axis=1), _TINY))[:, None]
        weight /= weight.sum()
        before, mean = mean, weight.ravel() @ plane.reshape(-1, 2)
        if np.hypot(*(mean - before)) < _MEAN_SHIFT_END_MM:
            break
    x, y, z = (float(value) for value in weight.ravel() @ points.reshape(-1, 3))
    return _CombinedPeak((x, y, z), peak, best)


def in_image(item: LoadedSlice, point: FloatArray, margin_mm: float) -> bool:
    """Return True if a point (LPS, mm) lies in a slice seen from the side, `margin_mm` from its edges."""
    pose = item.pose
    column, row, _ = pose.to_pixels(point)
    across, down = margin_mm / pose.column_spacing, margin_mm / pose.row_spacing
    return bool(across <= column <= pose.columns - 1 - across and down <= row <= pose.rows - 1 - down)
