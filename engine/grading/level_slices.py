"""Which sagittal slices the levels model is run on, where each slice costs time of its own.

A level's point is a mean over slices that are weighted by max(0, peak − 0.3 · highest peak)² (`levels`), so
slices far from the mid-line do not count. The slices in the middle of the stack are run first; the range then
grows by _STEP slices at each end until every level's peak has fallen far enough at both ends of the
range. Where a level is not seen clearly in the middle, the whole stack is run: a faint peak may have its
highest slice anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np

from stenosis_trt.engine.backends.base import Peaks, Roi
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import LEVELS

_START_MM = 13.0
"""Slices within this distance of the middle of the stack are run first: the weight of a slice is zero from
12 mm off the mid-line on most images."""

_STEP = 2
"""Slices by which the range grows at an end: two run at the same time on two cores."""

_SETTLED_PEAK = 0.4
"""Peak at an end of the range, as a share of the level's highest, below which the range need not grow there.
A slice of this peak has less than 1 % of the weight of all, and those beyond it have less still."""

_CLEAR_PEAK = 0.5
"""Highest peak of a level in the range below which the whole stack is run."""


def locate_in_range(
    locate: Callable[[Sequence[Roi]], Peaks], rois: Sequence[Roi], poses: Sequence[SlicePose]
) -> Peaks:
    """Run the levels model on as few slices as the points of the levels need.

    Args:
        locate: runs the model on regions and waits for the result.
        rois: region of each slice of the stack.
        poses: poses of the slices, in the order of their positions.

    Returns:
        Peaks of all slices. Those of slices that were not run are zero, so their weight is zero too.
    """
    first, end = _middle(poses)
    found = _placed(locate(rois[first:end]), range(first, end), len(rois))
    while (wider := _wider(found, first, end)) != (first, end):
        new = [*range(wider[0], first), *range(end, wider[1])]
        found = _added(found, _placed(locate([rois[k] for k in new]), new, len(rois)))
        first, end = wider
    return found


def _middle(poses: Sequence[SlicePose]) -> tuple[int, int]:
    """Return the range of slices (first, end) within _START_MM of the middle of the stack."""
    normal = poses[0].normal
    places = np.array([float(pose.centre @ normal) for pose in poses])
    near = np.flatnonzero(np.abs(places - (places[0] + places[-1]) / 2) <= _START_MM)
    if len(near) == 0 or len(poses) - len(near) <= _STEP:
        return 0, len(poses)
    return int(near[0]), int(near[-1]) + 1


def _wider(found: Peaks, first: int, end: int) -> tuple[int, int]:
    """Return the range that has to be run, given what was found in one; the same range if that is enough."""
    heights = found.heights[first:end, : len(LEVELS), 0]
    highest = heights.max(axis=0)
    if (highest < _CLEAR_PEAK).any():
        return 0, len(found.heights)
    settled = _SETTLED_PEAK * highest
    return (
        first if (heights[0] < settled).all() else max(first - _STEP, 0),
        end if (heights[-1] < settled).all() else min(end + _STEP, len(found.heights)),
    )


def _placed(part: Peaks, at: Sequence[int], slices: int) -> Peaks:
    """Return the peaks of a whole stack, of which `part` holds those of the slices `at`."""
    whole = {}
    for field in fields(part):
        values = getattr(part, field.name)
        whole[field.name] = np.zeros((slices, *values.shape[1:]))
        whole[field.name][list(at)] = values
    return replace(part, **whole)


def _added(one: Peaks, other: Peaks) -> Peaks:
    """Return the peaks of both, which were placed at different slices."""
    sums = {field.name: getattr(one, field.name) + getattr(other, field.name) for field in fields(one)}
    return replace(one, **sums)
