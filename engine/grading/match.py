"""Levels and axial slices matched along the canal: which slice a level's compression ratio is taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.grading.cord import CanalLine, CordSlice
from stenosis_trt.engine.records import CordMeasurement

_REACH_MM = 6.0
"""A stenosis at a disc is looked for this far along the canal on either side, never past half the way to the
next level."""

_GAP_MM = 4.0
"""If no slice comes this near to a level, its compression may have been missed between slices."""

_SAME_TILT_DEGREES = 5.0
"""Series that differ by less in how they cross the canal cross it alike."""


@dataclass(frozen=True)
class LevelMatch:
    """The measurement that stands for a level, or None; `warnings` say what is doubtful or missing."""

    cord: CordMeasurement | None
    warnings: tuple[str, ...]


def match_levels(
    line: CanalLine, across: Sequence[CordSlice], measured: Sequence[CordMeasurement]
) -> dict[str, LevelMatch]:
    """For each level on the line, the slice of maximal compression near it.

    Where there are several axial series, as packs planned disc by disc are, only slices of the one that
    crosses the level best are compared: neighbouring packs overlap, and differ in tilt.

    Args:
        line: the canal with the levels' arc lengths.
        across: slices that cross it.
        measured: the cord on each of those slices, in the same order.

    Returns:
        One match for each level on the line.
    """
    arcs = np.array([item.arc_length_mm for item in across])
    places = sorted(line.level_arc_length_mm.values())
    reaches = {
        level: min([_REACH_MM, *(abs(arc - place) / 2 for place in places if place != arc)])
        for level, arc in line.level_arc_length_mm.items()
    }
    matches = {}
    for level, arc in line.level_arc_length_mm.items():
        near = np.flatnonzero(np.abs(arcs - arc) <= reaches[level])
        near = near[_of_best_series(arc, [across[int(k)] for k in near], across)]
        if len(near) == 0:
            matches[level] = LevelMatch(None, ("no_axial_slice",))
            continue
        warnings = () if float(np.abs(arcs[near] - arc).min()) <= _GAP_MM else ("axial_slice_gap",)
        candidates = [measured[int(k)] for k in near]
        valid = [item for item in candidates if not item.warnings]
        if not valid:
            doubts = dict.fromkeys(warning for item in candidates for warning in item.warnings)
            matches[level] = LevelMatch(None, ("cord_not_measured", *doubts, *warnings))
            continue
        matches[level] = LevelMatch(min(valid, key=lambda item: item.compression_ratio), warnings)
    return matches


def _of_best_series(arc: float, near: Sequence[CordSlice], across: Sequence[CordSlice]) -> list[int]:
    """Positions in `near` of the slices that are of the series which crosses a level best.

    Of several series that is one that has slices on both sides of the level; of those the one whose nearest
    slice is the least tilted against the canal, to a few degrees; and then the nearest.
    """

    def rank(series: int) -> tuple[bool, int, float]:
        arcs = [item.arc_length_mm for item in across if item.series == series]
        nearest = min(
            (item for item in near if item.series == series), key=lambda item: abs(item.arc_length_mm - arc)
        )
        beyond = not min(arcs) <= arc <= max(arcs)
        return beyond, int(nearest.tilt_degrees / _SAME_TILT_DEGREES), abs(nearest.arc_length_mm - arc)

    best = min({item.series for item in near}, key=rank, default=None)
    return [k for k, item in enumerate(near) if item.series == best]
