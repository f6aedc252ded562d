"""Combination of axial packs: cervical axial slices are often planned disc by disc, one series for each."""

from __future__ import annotations

from collections.abc import Sequence

from stenosis_trt.engine.records import SeriesHeader
from stenosis_trt.engine.selection.eligibility import slice_poses, slice_step
from stenosis_trt.engine.selection.ranking import (
    count_slices_within,
    is_same_kind,
    neck_depth,
    same_frame_of_reference,
)

_MIN_NEW_SHARE = 0.5
"""Least share of a pack's length that no other pack covers: neighbours overlap little, repetitions fully."""
_MIN_NECK_SHARE = 0.5
"""Least share of a pack's slices within the neck."""
_MAX_SPACING_RATIO = 1.5
"""Largest ratio of in-plane spacings; packs of one examination share a protocol."""

_Interval = tuple[float, float]


def select_axial_packs(
    first: SeriesHeader, others: Sequence[SeriesHeader], sagittal: SeriesHeader
) -> tuple[SeriesHeader, ...]:
    """Select series that complement the best axial series: same kind and frame of reference, new extent.

    Args:
        first: the best axial series.
        others: further candidates, the best first; of two with the same extent the first is selected.
        sagittal: the selected sagittal series.
    """
    packs: list[SeriesHeader] = []
    if not same_frame_of_reference(sagittal, first):
        return ()
    covered = [_extent(first)]
    depth = neck_depth((first, *others), sagittal)
    for other in others:
        if not (
            same_frame_of_reference(sagittal, other)
            and is_same_kind(first, other)
            and _same_spacing(first, other)
        ):
            continue
        if count_slices_within(other, sagittal, depth) < _MIN_NECK_SHARE * len(other.frames):
            continue
        extent = _extent(other)
        if _new_length(extent, covered) >= _MIN_NEW_SHARE * (extent[1] - extent[0]):
            packs.append(other)
            covered.append(extent)
    return tuple(packs)


def _extent(series: SeriesHeader) -> _Interval:
    """Return the head-foot interval in mm from the lowest to the highest slice, extended by half a step."""
    heights = [float(pose.centre[2]) for pose in slice_poses(series)]
    half = max(slice_step(series), slice_poses(series)[0].thickness or 0.0) / 2
    return min(heights) - half, max(heights) + half


def _new_length(extent: _Interval, covered: Sequence[_Interval]) -> float:
    """Return the length in mm of an interval that none of the others covers."""
    low, high = extent
    new, reached = 0.0, low
    for start, end in sorted(covered):
        if start > reached:
            new += min(start, high) - min(reached, high)
        reached = max(reached, end)
    return new + max(high - max(reached, low), 0.0)


def _same_spacing(one: SeriesHeader, other: SeriesHeader) -> bool:
    mine, theirs = slice_poses(one)[0].column_spacing, slice_poses(other)[0].column_spacing
    return max(mine, theirs) <= _MAX_SPACING_RATIO * min(mine, theirs)
