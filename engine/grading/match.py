"""Matches levels with axial slices along the canal: which slice gives the compression ratio of a level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.grading.cord import CanalLine, CordSlice
from stenosis_trt.engine.records import CordMeasurement

_SEARCH_RADIUS_MM = 6.0
"""Distance along the canal within which slices belong to a level; at most half of the distance to the next
one."""

_MAX_DISTANCE_MM = 4.0
"""If the nearest slice is farther from a level, the narrowest place may lie between slices."""

OBLIQUE_DEGREES = 25.0
"""A level whose slice is more oblique to the cord gets a warning; see docs/decisions/cord-angle.md."""

_ANGLE_STEP_DEGREES = 5.0
"""Differences in the angle to the cord below this are ignored when series are compared."""


@dataclass(frozen=True)
class LevelMatch:
    """The cord measurement of a level, or None; `warnings` say why it is missing or doubtful.

    `arc_length_mm` is where its slice crosses the line of the canal; None without a measurement.
    """

    cord: CordMeasurement | None
    warnings: tuple[str, ...]
    arc_length_mm: float | None = None


def search_radius_mm(line: CanalLine, level: str) -> float:
    """Return the distance along the canal within which slices belong to a level of the line."""
    arc = line.level_arc_length_mm[level]
    others = [other for name, other in line.level_arc_length_mm.items() if name != level]
    return min([_SEARCH_RADIUS_MM, *(abs(arc - other) / 2 for other in others)])


def match_levels(
    line: CanalLine, across: Sequence[CordSlice], measured: Sequence[CordMeasurement]
) -> dict[str, LevelMatch]:
    """Return for each level the measurement of maximal compression (smallest ratio) near it.

    If there are several axial series, such as packs planned disc by disc, only slices of the series that
    crosses the level best are compared: neighbouring packs overlap and differ in tilt.

    Args:
        line: line of the canal, with the arc lengths of the levels.
        across: slices that cross it.
        measured: measurement of the cord on each of those slices, in the same order.

    Returns:
        One match for each level on the line.
    """
    arcs = np.array([item.arc_length_mm for item in across])
    matches = {}
    for level, arc in line.level_arc_length_mm.items():
        near = np.flatnonzero(np.abs(arcs - arc) <= search_radius_mm(line, level))
        near = near[_in_best_series(arc, [across[int(k)] for k in near], across)]
        if len(near) == 0:
            matches[level] = LevelMatch(None, ("no_axial_slice",))
            continue
        warnings = () if float(np.abs(arcs[near] - arc).min()) <= _MAX_DISTANCE_MM else ("axial_slice_gap",)
        candidates = [(measured[int(k)], float(arcs[k])) for k in near]
        valid = [(item, at) for item, at in candidates if not item.warnings]
        if not valid:
            reasons = dict.fromkeys(warning for item, _ in candidates for warning in item.warnings)
            matches[level] = LevelMatch(None, ("cord_not_measured", *reasons, *warnings))
            continue
        cord, at = min(valid, key=lambda pair: pair[0].compression_ratio)
        oblique = ("oblique_slice",) if cord.slice_angle_degrees > OBLIQUE_DEGREES else ()
        matches[level] = LevelMatch(cord, (*oblique, *warnings), at)
    return matches


def _in_best_series(arc: float, near: Sequence[CordSlice], across: Sequence[CordSlice]) -> list[int]:
    """Return the indices in `near` of the slices of the series that crosses the level best.

    Series with slices on both sides of the level come first, then those whose nearest slice is least oblique
    to the cord, in steps of a few degrees, then those with the nearest slice.
    """

    def rank(series: int) -> tuple[bool, int, float]:
        arcs = [item.arc_length_mm for item in across if item.series == series]
        nearest = min(
            (item for item in near if item.series == series), key=lambda item: abs(item.arc_length_mm - arc)
        )
        beyond = not min(arcs) <= arc <= max(arcs)
        return beyond, int(nearest.angle_degrees / _ANGLE_STEP_DEGREES), abs(nearest.arc_length_mm - arc)

    best = min({item.series for item in near}, key=rank, default=None)
    return [k for k, item in enumerate(near) if item.series == best]
