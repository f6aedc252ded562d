"""Axial series joined: cervical axials are often planned disc by disc, each pack a series of its own."""

from __future__ import annotations

from collections.abc import Sequence

from stenosis_trt.engine.records import SeriesHeader
from stenosis_trt.engine.selection.eligibility import slice_poses, slice_step
from stenosis_trt.engine.selection.ranking import count_slices_within, is_same_kind, same_frame_of_reference

_NEW_SHARE = 0.5
"""A pack is joined if at least this share of its length shows what no other does: neighbouring packs overlap
a little, and a repetition of one lies where that lies."""
_WITHIN_SHARE = 0.5
"""Share of its slices that must lie within the neck."""
_SPACING_RATIO = 1.5
"""Largest ratio of in-plane spacings: packs of one examination share their protocol."""

_Interval = tuple[float, float]


def select_axial_packs(
    first: SeriesHeader, others: Sequence[SeriesHeader], sagittal: SeriesHeader
) -> tuple[SeriesHeader, ...]:
    """The series that go with the best one: of its kind and frame of reference, each beside those before.

    Args:
        first: the best axial series. Where it covers the neck, nothing is joined to it.
        others: further candidates, the best first: of two at one place the first is taken.
        sagittal: the series that levels are found in.
    """
    packs: list[SeriesHeader] = []
    if not same_frame_of_reference(sagittal, first):
        return ()
    covered = [_extent(first)]
    for other in others:
        if not (
            same_frame_of_reference(sagittal, other)
            and is_same_kind(first, other)
            and _same_spacing(first, other)
        ):
            continue
        if count_slices_within(other, sagittal) < _WITHIN_SHARE * len(other.frames):
            continue
        extent = _extent(other)
        if _new_length(extent, covered) >= _NEW_SHARE * (extent[1] - extent[0]):
            packs.append(other)
            covered.append(extent)
    return tuple(packs)


def _extent(series: SeriesHeader) -> _Interval:
    """From the lowest slice to the highest, half a step beyond each, along the patient's axis in mm."""
    heights = [float(pose.centre[2]) for pose in slice_poses(series)]
    half = max(slice_step(series), slice_poses(series)[0].thickness or 0.0) / 2
    return min(heights) - half, max(heights) + half


def _new_length(extent: _Interval, covered: Sequence[_Interval]) -> float:
    """Length in mm of an interval that lies in none of the others."""
    low, high = extent
    new, reached = 0.0, low
    for start, end in sorted(covered):
        if start > reached:
            new += min(start, high) - min(reached, high)
        reached = max(reached, end)
    return new + max(high - max(reached, low), 0.0)


def _same_spacing(one: SeriesHeader, other: SeriesHeader) -> bool:
    mine, theirs = slice_poses(one)[0].column_spacing, slice_poses(other)[0].column_spacing
    return max(mine, theirs) <= _SPACING_RATIO * min(mine, theirs)
