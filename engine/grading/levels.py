"""Disc levels: heatmaps of every sagittal slice → one point a level in the patient.

A level's point is where the mid-plane of its disc meets the front wall of the canal, in the mid-line. The
network's peak fades as a slice leaves the mid-line, so the slices' peaks together say where along the
left–right axis the point lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np

from stenosis_trt.engine.backends.base import Keypoints
from stenosis_trt.engine.geometry import FloatArray, Vector
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.records import LEVELS, LoadedSlice

_SILENT_SHARE = 0.3
"""Slices whose peak is below this share of the best one's have no say in where the point lies; above, their
say grows with the square of what is beyond it. Where a slice came in with all its weight at once, the point
would jump by most of a millimetre when a peak changes by next to nothing, as it does in INT8."""

_AGREEMENT_MM = 6.0
"""…if their point lies this near to the best slice's, measured in the image plane."""

_GAP_MM = (9.0, 28.0)
"""Distance between neighbouring cervical discs: 14–20 mm in adults, with room for small and large ones.
Lumbar discs lie 30–40 mm apart."""

_GAP_RATIO = 0.72
"""Smaller of two neighbouring gaps over the larger: above 0.85 in healthy necks. Where two levels were taken
for one disc, the next gap is shared by both and comes out at 0.6 to 0.7."""

_KINK_DEGREES = 50.0
"""Largest angle between one gap and the next; the cervical spine bends far less even in kyphosis."""

_MARGIN_MM = 5.0
"""A disc nearer than this to the image's edge is not shown whole: nobody could grade it."""

_OPINIONS = 3
"""Places that a level is looked for at, at most."""

_NEARLY_AS_WELL = 0.6
"""Where the maps are this high, as a share, at the places of the neighbours, the numbers are in doubt."""

_COUNTED_FROM_MM = 20.0
"""Discs are counted from C2, above which there is none. A neck's next disc is at most this far: images that
end nearer above C2/3 do not show whether another one follows."""

MINIMUM_LEVELS = 3
"""Fewer levels than this are not taken for a cervical spine."""


@dataclass(frozen=True)
class LevelPoint:
    """A level that was looked for. `point` is None where it was not found; `warnings` say why."""

    level: str
    point: Vector | None
    confidence: float
    warnings: tuple[str, ...] = ()


LevelChain = tuple[LevelPoint | None, ...]
"""For each of LEVELS the place that was chosen, or None."""


def locate_levels(
    slices: Sequence[LoadedSlice], keypoints: Keypoints, model: ModelSpec
) -> tuple[LevelPoint, ...]:
    """Combine the slices' peaks to one point a level, and drop what cannot be a cervical spine.

    Args:
        slices: the sagittal series, N slices.
        keypoints: in each of them, a peak for each of LEVELS.
        model: its output's minimum confidence.

    Returns:
        One entry for each of LEVELS, in that order.
    """
    opinions = [_opinions(index, slices, keypoints, model) for index in range(len(LEVELS))]
    chain = _most_plausible(opinions)
    doubtful = _as_well_one_off(chain, opinions) or not _counted_from_c2(chain, slices)
    doubt = ("level_number_uncertain",) if doubtful else ()
    found = [
        replace(kept, warnings=doubt) if kept is not None else _without_point(each[0])
        for kept, each in zip(chain, opinions, strict=True)
    ]
    return _mark_out_of_view(found, slices)


def _opinions(
    index: int, slices: Sequence[LoadedSlice], seen: Keypoints, model: ModelSpec
) -> list[LevelPoint]:
    """Where a level may be. The first opinion is that of its own peaks; the others are discs where another
    level has its peak and this one's map is high as well, for one level looks much like the next.

    There is one entry at least, which says why it has no point where it has none.
    """
    level, least = LEVELS[index], model.output.minimum_confidence
    points, heights = seen.points[:, index], seen.confidence[:, index]
    first = _opinion(level, slices, points, heights)
    if first.confidence < least:
        return [LevelPoint(level, None, first.confidence, ("level_not_found",))]
    found = [first]
    if seen.support is None or first.point is None:
        return found
    away = np.ones(seen.support[:, index].shape, dtype=bool)
    while len(found) < _OPINIONS:
        away &= _in_plane(seen.points, np.asarray(found[-1].point), slices[0].pose.normal) > _AGREEMENT_MM
        heights = np.where(away, seen.support[:, index], 0.0)
        chosen = heights.argmax(axis=1)
        rows = np.arange(len(chosen))
        other = _opinion(level, slices, seen.points[rows, chosen], heights[rows, chosen])
        if other.confidence < least or other.point is None:
            break
        found.append(other)
    return found


def _in_plane(points: FloatArray, place: FloatArray, normal: FloatArray) -> FloatArray:
    """Distance of points (..., 3) from a place, seen along a normal, (...)."""
    offset = points - place
    return np.asarray(np.linalg.norm(offset - (offset @ normal)[..., None] * normal, axis=-1))


def _opinion(
    level: str, slices: Sequence[LoadedSlice], points: FloatArray, heights: FloatArray
) -> LevelPoint:
    """One place from a peak in each slice: (N, 3) and their heights (N,)."""
    best = int(np.argmax(heights))
    peak = float(heights[best])
    near = _in_plane(points, points[best], slices[best].pose.normal) <= _AGREEMENT_MM
    weight = np.where(near, np.maximum(heights - _SILENT_SHARE * peak, 0.0) ** 2, 0.0)
    if weight.sum() == 0.0:
        return LevelPoint(level, None, peak)
    x, y, z = (weight[:, None] * points).sum(axis=0) / weight.sum()
    point = (float(x), float(y), float(z))
    if 0 < best < len(slices) - 1 and _in_image(slices[best], np.asarray(point), _MARGIN_MM):
        return LevelPoint(level, point, peak)
    # Beyond the edge of the images, or of the stack: its mid-plane may lie where there is no slice.
    return LevelPoint(level, None, peak, ("level_out_of_view",))


def _without_point(item: LevelPoint) -> LevelPoint:
    """A level that no run of levels has a place for; it may have had none before."""
    return (
        item if item.point is None else LevelPoint(item.level, None, item.confidence, ("level_implausible",))
    )


def _most_plausible(opinions: Sequence[Sequence[LevelPoint]]) -> LevelChain:
    """The most confident run of levels in which every gap and bend could be a cervical spine's."""
    choices = [[*(item for item in each if item.point is not None), None] for each in opinions]
    best: LevelChain = (None,) * len(opinions)
    most = 0.0
    # Six levels of few opinions: all runs can be tried, and the surest come first.
    for run in product(*choices):
        score = sum(item.confidence for item in run if item is not None)
        if score > most and _is_chain(run):
            best, most = run, score
    return best


def _as_well_one_off(chain: LevelChain, opinions: Sequence[Sequence[LevelPoint]]) -> bool:
    """Whether the discs could nearly as well be numbered one higher or lower: opinions on each level lie
    where the chain has its neighbour."""
    for shift in (-1, 1):
        kept = taken = 0.0
        compared = 0
        for index, here in enumerate(chain):
            there = chain[index + shift] if 0 <= index + shift < len(chain) else None
            if here is not None and there is not None:
                compared += 1
                kept += here.confidence
                taken += max((x.confidence for x in opinions[index] if _same_place(x, there)), default=0.0)
        if compared >= MINIMUM_LEVELS - 1 and taken >= _NEARLY_AS_WELL * kept:
            return True
    return False


def _counted_from_c2(chain: LevelChain, slices: Sequence[LoadedSlice]) -> bool:
    """Whether images show enough above C2/3, or above where it must be, for another disc to be seen."""
    places = [(index, np.asarray(item.point)) for index, item in enumerate(chain) if item is not None]
    if len(places) < 2:
        return False
    (first, top), (second, below) = places[:2]
    up = (top - below) / (second - first)
    beyond = top + up * first + up / np.linalg.norm(up) * _COUNTED_FROM_MM
    return any(_in_image(part, beyond, 0.0) for part in slices)


def _same_place(one: LevelPoint, other: LevelPoint) -> bool:
    if one.point is None or other.point is None:
        return False
    return float(np.linalg.norm(np.subtract(one.point, other.point))) <= _AGREEMENT_MM


def _is_chain(run: Sequence[LevelPoint | None]) -> bool:
    chosen = [(index, np.asarray(item.point)) for index, item in enumerate(run) if item is not None]
    steps, lengths = [], []
    for (first, before), (second, after) in pairwise(chosen):
        step = (after - before) / (second - first)
        length = float(np.linalg.norm(step))
        if step[2] >= 0 or not _GAP_MM[0] <= length <= _GAP_MM[1]:
            return False
        steps.append(step / length)
        lengths.append(length)
    return all(min(pair) >= _GAP_RATIO * max(pair) for pair in pairwise(lengths)) and all(
        float(before @ after) >= np.cos(np.deg2rad(_KINK_DEGREES)) for before, after in pairwise(steps)
    )


def _mark_out_of_view(found: Sequence[LevelPoint], slices: Sequence[LoadedSlice]) -> tuple[LevelPoint, ...]:
    """Say of a missing level at either end of the chain whether the images reach that far."""
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
