"""Disc levels: heatmaps of every sagittal slice → one point a level in the patient.

A level's point is where the mid-plane of its disc meets the front wall of the canal, in the mid-line. The
network's peak fades as a slice leaves the mid-line, so the slices' peaks together say where along the
left–right axis the point lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stenosis_trt.engine.backends.base import Keypoints
from stenosis_trt.engine.geometry import FloatArray, Vector
from stenosis_trt.engine.pack import ModelSpec
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

MINIMUM_LEVELS = 3
"""Fewer levels than this are not taken for a cervical spine."""


@dataclass(frozen=True)
class LevelPoint:
    """A level that was looked for. `point` is None where it was not found; `flags` say why."""

    level: str
    point: Vector | None
    confidence: float
    flags: tuple[str, ...] = ()


def locate_levels(slices: Sequence[LoadedSlice], seen: Keypoints, model: ModelSpec) -> tuple[LevelPoint, ...]:
    """Combine the slices' peaks to one point a level, and drop what cannot be a cervical spine.

    Args:
        slices: the sagittal series, N slices.
        seen: in each of them, a peak for each of LEVELS.
        model: its output's minimum confidence.

    Returns:
        One entry for each of LEVELS, in that order.
    """
    points = seen.points
    found: list[LevelPoint] = []
    for index, level in enumerate(LEVELS):
        confidence = seen.confidence[:, index]
        best = int(np.argmax(confidence))
        peak = float(confidence[best])
        if peak < model.output.minimum_confidence:
            found.append(LevelPoint(level, None, peak, ("level_not_found",)))
            continue
        offset = points[:, index] - points[best, index]
        normal = slices[best].pose.normal
        in_plane = np.linalg.norm(offset - (offset @ normal)[:, None] * normal, axis=1)
        say = np.maximum(confidence - _SILENT_SHARE * peak, 0.0) ** 2
        weight = np.where(in_plane <= _AGREEMENT_MM, say, 0.0)
        x, y, z = (weight[:, None] * points[:, index]).sum(axis=0) / weight.sum()
        point = (float(x), float(y), float(z))
        if 0 < best < len(slices) - 1 and _in_image(slices[best], np.asarray(point), _MARGIN_MM):
            found.append(LevelPoint(level, point, peak))
        else:
            # Beyond the edge of the images, or of the stack: its mid-plane may lie where there is no slice.
            found.append(LevelPoint(level, None, peak, ("level_out_of_view",)))
    return _mark_out_of_view(_keep_plausible(found), slices)


def _keep_plausible(found: Sequence[LevelPoint]) -> list[LevelPoint]:
    """Keep the most confident run of levels in which every gap and bend could be a cervical spine's."""
    candidates = [k for k, item in enumerate(found) if item.point is not None]
    best: tuple[float, tuple[int, ...]] = (0.0, ())
    # At most six candidates: all subsets can be tried.
    for mask in range(1, 1 << len(candidates)):
        chosen = tuple(candidates[bit] for bit in range(len(candidates)) if mask >> bit & 1)
        score = sum(found[k].confidence for k in chosen)
        if score > best[0] and _is_chain(found, chosen):
            best = (score, chosen)
    return [
        item
        if item.point is None or index in best[1]
        else LevelPoint(item.level, None, item.confidence, ("level_implausible",))
        for index, item in enumerate(found)
    ]


def _is_chain(found: Sequence[LevelPoint], chosen: Sequence[int]) -> bool:
    points = [np.asarray(found[k].point) for k in chosen]
    steps, lengths = [], []
    for before, after, first, second in zip(points, points[1:], chosen, chosen[1:], strict=False):
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
