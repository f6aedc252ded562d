"""Disc levels: combines the heatmap peaks of all sagittal slices into one 3-D point per level.

The point of a level is where the mid-plane of its disc meets the anterior wall of the canal in the mid-line.
The peak of the network decreases with the distance from the mid-line, so the peaks of all slices together
give the left–right coordinate. A map may have peaks at several discs; each is combined with those of other
slices at the same disc, so that a point does not depend on which peak is the highest of its map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from stenosis_trt.engine.backends.base import Peaks
from stenosis_trt.engine.geometry import FloatArray, Vector
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.records import LEVELS, LoadedSlice

_MIN_RELATIVE_PEAK = 0.3
"""Weight of a slice: max(0, peak − 0.3 · highest peak)². It grows from zero, because with a step the point
would jump by most of a millimetre when a peak changes by little, as it does in INT8."""

_SAME_POINT_MM = 6.0
"""Points of two slices, or of two levels, that are closer in the image plane belong to the same disc."""

_FULL_WEIGHT_MM = 2.0
"""Distance up to which a peak has its full weight for a disc; the weight then falls to 0 at `_SAME_POINT_MM`,
without a step for the reason above."""

_MEAN_SHIFT_END_MM = 0.001
_MAX_MEAN_SHIFTS = 20
"""The mean of the peaks at a disc is repeated about its own result until that moves by less: then it does not
matter from which peak it began."""

_TINY = np.finfo(np.float64).tiny

_GAP_MM = (9.0, 28.0)
"""Distance between neighbouring cervical discs: 14–20 mm in adults, with a margin for small and large necks.
Lumbar discs lie 30–40 mm apart."""

_GAP_RATIO = 0.72
"""Minimum of the smaller gap divided by the larger one, for neighbouring gaps: above 0.85 in healthy necks.
If two levels were assigned to one disc, the ratio is 0.6 to 0.7."""

_MAX_BEND_DEGREES = 50.0
"""Largest angle between neighbouring gaps; the cervical spine bends far less even in kyphosis."""

_MARGIN_MM = 5.0
"""A disc that is closer to the edge of the image is not completely visible and cannot be graded."""

_MAX_CANDIDATES = 3
"""Largest number of candidate positions per level."""

_AMBIGUITY_RATIO = 0.6
"""The numbering is ambiguous if the heatmaps reach this share of their values at the discs of the
neighbours."""

_C2_MARGIN_MM = 20.0
"""Largest distance to a next disc. Discs are counted from C2, above which there is none; images that end
closer above C2/3 do not show whether another disc follows."""

MINIMUM_LEVELS = 3
"""With fewer levels, no cervical spine was recognised."""


@dataclass(frozen=True)
class LevelPoint:
    """A disc level. `point` (LPS, mm) is None if it was not found; `warnings` say why."""

    level: str
    point: Vector | None
    confidence: float
    warnings: tuple[str, ...] = ()


LevelChain = tuple[LevelPoint | None, ...]
"""The selected candidate of each of LEVELS, or None."""


def locate_levels(slices: Sequence[LoadedSlice], peaks: Peaks, model: ModelSpec) -> tuple[LevelPoint, ...]:
    """Locate the disc levels, and discard points that cannot belong to a cervical spine.

    Args:
        slices: the N slices of the sagittal series.
        peaks: the highest peaks of the heatmaps of each slice, one map for each of LEVELS.
        model: specification of the levels model, with the minimum confidence of its output.

    Returns:
        One entry for each of LEVELS, in that order.
    """
    candidates = [_level_candidates(index, slices, peaks, model) for index in range(len(LEVELS))]
    chain = _most_plausible(candidates)
    uncertain = _numbering_is_ambiguous(chain, candidates) or not _shows_c2(chain, slices)
    warnings = ("level_number_uncertain",) if uncertain else ()
    found = [
        replace(chosen, warnings=warnings) if chosen is not None else _without_point(each[0])
        for chosen, each in zip(chain, candidates, strict=True)
    ]
    return _mark_out_of_view(found, slices)


def _level_candidates(
    index: int, slices: Sequence[LoadedSlice], peaks: Peaks, model: ModelSpec
) -> list[LevelPoint]:
    """Return candidate points of a level, at least one.

    The first one is where its heatmaps are highest. The others are discs where another level has its highest
    peak and the heatmap of this level is high too, since neighbouring discs look alike. The only candidate
    may have no point; its warnings then say why.
    """
    level, minimum, normal = LEVELS[index], model.output.minimum_confidence, slices[0].pose.normal
    points, heights = peaks.points[:, index], peaks.heights[:, index]
    first = _combine_peaks(level, slices, points, heights, heights)
    if first.confidence < minimum:
        return [LevelPoint(level, None, first.confidence, ("level_not_found",))]
    found = [first]
    points = np.concatenate([peaks.points[:, :, 0], points[:, 1:]], axis=1)
    seeds = np.concatenate([peaks.support[:, index], np.zeros_like(heights[:, 1:])], axis=1)
    heights = np.concatenate([peaks.support[:, index], heights[:, 1:]], axis=1)
    while found[-1].point is not None and len(found) < _MAX_CANDIDATES:
        near = _in_plane_distance(points, np.asarray(found[-1].point), normal) <= _SAME_POINT_MM
        seeds, heights = np.where(near, 0.0, seeds), np.where(near, 0.0, heights)
        other = _combine_peaks(level, slices, points, heights, seeds)
        if other.confidence < minimum or other.point is None:
            break
        found.append(other)
    return found


def _in_plane_distance(points: FloatArray, point: FloatArray, normal: FloatArray) -> FloatArray:
    """Return the distances (...) in mm of points (..., 3) from one point, projected along a normal."""
    offset = points - point
    return np.asarray(np.linalg.norm(offset - (offset @ normal)[..., None] * normal, axis=-1))


def _combine_peaks(
    level: str, slices: Sequence[LoadedSlice], points: FloatArray, heights: FloatArray, seeds: FloatArray
) -> LevelPoint:
    """Combine the peaks at the disc of the highest seed into a point, the weighted mean of their positions.

    The mean is found by mean shift in the image plane: weights fall with the distance from the mean itself.
    All peaks of a slice together have the weight of that with the largest one.

    Args:
        level: name of the level.
        slices: the N slices.
        points: P peaks of each slice, (N, P, 3).
        heights: their heights (N, P); peaks of height 0 are ignored.
        seeds: heights of the peaks that the mean may begin from, and 0 for the others, (N, P).
    """
    best, order = divmod(int(np.argmax(seeds)), seeds.shape[1])
    peak, pose = float(seeds[best, order]), slices[best].pose
    if peak <= 0.0:
        return LevelPoint(level, None, 0.0)
    share = np.maximum(heights - _MIN_RELATIVE_PEAK * peak, 0.0) ** 2
    plane = points @ np.transpose([pose.row_direction, pose.column_direction])
    mean = plane[best, order]
    # A mean of peaks within a radius lies within that radius of one of them: the weights are never all 0.
    for _ in range(_MAX_MEAN_SHIFTS):
        distance = np.hypot(plane[..., 0] - mean[0], plane[..., 1] - mean[1])
        fade = (_SAME_POINT_MM - distance) / (_SAME_POINT_MM - _FULL_WEIGHT_MM)
        weight = share * np.clip(fade, 0.0, 1.0)
        weight *= (weight.max(axis=1) / np.maximum(weight.sum(axis=1), _TINY))[:, None]
        weight /= weight.sum()
        before, mean = mean, weight.ravel() @ plane.reshape(-1, 2)
        if np.hypot(*(mean - before)) < _MEAN_SHIFT_END_MM:
            break
    x, y, z = (float(value) for value in weight.ravel() @ points.reshape(-1, 3))
    if 0 < best < len(slices) - 1 and _in_image(slices[best], np.array([x, y, z]), _MARGIN_MM):
        return LevelPoint(level, (x, y, z), peak)
    # The point is outside the image or in an outermost slice, so that the mid-line may lie beyond the stack.
    return LevelPoint(level, None, peak, ("level_out_of_view",))


def _without_point(item: LevelPoint) -> LevelPoint:
    """Return a level that is not in the chain, without its point."""
    return (
        item if item.point is None else LevelPoint(item.level, None, item.confidence, ("level_implausible",))
    )


def _most_plausible(candidates: Sequence[Sequence[LevelPoint]]) -> LevelChain:
    """Return the chain with the highest sum of confidences whose gaps and bends fit a cervical spine."""
    choices = [[*(item for item in each if item.point is not None), None] for each in candidates]
    highest = [max((item.confidence for item in each if item is not None), default=0.0) for each in choices]
    best: LevelChain = (None,) * len(candidates)
    best_score = 0.0

    def extend(chain: LevelChain, score: float) -> None:
        # Every beginning of a plausible chain is plausible.
        nonlocal best, best_score
        index = len(chain)
        if score + sum(highest[index:]) <= best_score:
            return
        if index == len(choices):
            best, best_score = chain, score
            return
        for item in choices[index]:
            if item is None:
                extend((*chain, None), score)
            elif _is_plausible((*chain, item)):
                extend((*chain, item), score + item.confidence)

    extend((), 0.0)
    return best


def _numbering_is_ambiguous(chain: LevelChain, candidates: Sequence[Sequence[LevelPoint]]) -> bool:
    """Return True if numbering the discs one higher or lower fits the heatmaps nearly as well."""
    for shift in (-1, 1):
        confidence = shifted = 0.0
        compared = 0
        for index, item in enumerate(chain):
            neighbour = chain[index + shift] if 0 <= index + shift < len(chain) else None
            if item is not None and neighbour is not None:
                compared += 1
                confidence += item.confidence
                same = (x.confidence for x in candidates[index] if _same_point(x, neighbour))
                shifted += max(same, default=0.0)
        if compared >= MINIMUM_LEVELS - 1 and shifted >= _AMBIGUITY_RATIO * confidence:
            return True
    return False


def _shows_c2(chain: LevelChain, slices: Sequence[LoadedSlice]) -> bool:
    """Return True if the images reach far enough above C2/3, found or extrapolated, to show another disc."""
    known = [(index, np.asarray(item.point)) for index, item in enumerate(chain) if item is not None]
    if len(known) < 2:
        return False
    (first, top), (second, below) = known[:2]
    up = (top - below) / (second - first)
    beyond = top + up * first + up / np.linalg.norm(up) * _C2_MARGIN_MM
    return any(_in_image(part, beyond, 0.0) for part in slices)


def _same_point(one: LevelPoint, other: LevelPoint) -> bool:
    if one.point is None or other.point is None:
        return False
    return float(np.linalg.norm(np.subtract(one.point, other.point))) <= _SAME_POINT_MM


def _is_plausible(chain: Sequence[LevelPoint | None]) -> bool:
    """Return True if the levels run downwards with plausible gaps, ratios of gaps and bends."""
    chosen = [(index, np.asarray(item.point)) for index, item in enumerate(chain) if item is not None]
    steps, lengths = [], []
    for (first, before), (second, after) in pairwise(chosen):
        step = (after - before) / (second - first)
        length = float(np.linalg.norm(step))
        if step[2] >= 0 or not _GAP_MM[0] <= length <= _GAP_MM[1]:
            return False
        steps.append(step / length)
        lengths.append(length)
    return all(min(pair) >= _GAP_RATIO * max(pair) for pair in pairwise(lengths)) and all(
        float(before @ after) >= np.cos(np.deg2rad(_MAX_BEND_DEGREES)) for before, after in pairwise(steps)
    )


def _mark_out_of_view(found: Sequence[LevelPoint], slices: Sequence[LoadedSlice]) -> tuple[LevelPoint, ...]:
    """Mark missing levels at the ends of the chain that lie outside the images, by extrapolation."""
    known = [k for k, item in enumerate(found) if item.point is not None]
    if len(known) < 2:
        return tuple(found)
    result = list(found)
    for index, item in enumerate(found):
        if item.point is not None or known[0] < index < known[-1]:
            continue
        near, far = (known[0], known[1]) if index < known[0] else (known[-1], known[-2])
        step = (np.asarray(found[near].point) - np.asarray(found[far].point)) / (near - far)
        expected = np.asarray(found[near].point) + step * (index - near)
        if not any(_in_image(part, expected, 0.0) for part in slices):
            result[index] = LevelPoint(item.level, None, item.confidence, ("level_out_of_view",))
    return tuple(result)


def _in_image(item: LoadedSlice, point: FloatArray, margin_mm: float) -> bool:
    pose = item.pose
    column, row, _ = pose.to_pixels(point)
    across, down = margin_mm / pose.column_spacing, margin_mm / pose.row_spacing
    return bool(across <= column <= pose.columns - 1 - across and down <= row <= pose.rows - 1 - down)
