"""Levels and axial slices matched along the canal: which slice a level's compression ratio is taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.cord import CanalLine, CordSlice
from stenosis_trt.engine.records import CordMeasurement
from stenosis_trt.kernels.reference import maximal_compression

_REACH_MM = 6.0
"""A stenosis at a disc is looked for this far along the canal on either side, never past half the way to the
next level."""

_GAP_MM = 4.0
"""If no slice comes this near to a level, its compression may have been missed between slices."""


@dataclass(frozen=True)
class Match:
    """The measurement that stands for a level, or None; `flags` say what is doubtful or missing."""

    cord: CordMeasurement | None
    flags: tuple[str, ...]


def match_levels(
    line: CanalLine, across: Sequence[CordSlice], measured: Sequence[CordMeasurement]
) -> dict[str, Match]:
    """For each level on the line, the slice of maximal compression near it.

    Args:
        line: the canal with the levels' arc lengths.
        across: slices that cross it.
        measured: the cord on each of those slices, in the same order.

    Returns:
        One match for each level on the line.
    """
    arcs = np.array([item.arc for item in across])
    places = sorted(line.level_arc.values())
    reaches = {
        level: min([_REACH_MM, *(abs(arc - place) / 2 for place in places if place != arc)])
        for level, arc in line.level_arc.items()
    }
    choices = maximal_compression(
        [item.compression_ratio for item in measured],
        [not item.flags for item in measured],
        arcs,
        list(line.level_arc.values()),
        list(reaches.values()),
    )
    matches = {}
    for number, (level, arc) in enumerate(line.level_arc.items()):
        near = np.flatnonzero(np.abs(arcs - arc) <= reaches[level])
        if len(near) == 0:
            matches[level] = Match(None, ("no_axial_slice",))
            continue
        flags = () if float(choices.distance_mm[number]) <= _GAP_MM else ("axial_slice_gap",)
        chosen = int(choices.slices[number])
        if chosen < 0:
            doubts = dict.fromkeys(flag for k in near for flag in measured[int(k)].flags)
            matches[level] = Match(None, ("cord_not_measured", *doubts, *flags))
            continue
        matches[level] = Match(measured[chosen], flags)
    return matches
