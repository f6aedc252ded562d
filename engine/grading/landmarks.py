"""Landmarks above the discs: how well the base and the apex of the dens fit a numbering.

Discs are counted from C2. The base of the dens lies 14 to 18 mm above C2/3 and its apex 30 to 45 mm, and
discs are 14 to 20 mm apart: a chain that is numbered one off has its landmarks a whole gap from where they
belong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.geometry import Vector
from stenosis_trt.engine.grading.chains import ChainTop
from stenosis_trt.engine.grading.levels import LevelPoint

_USUAL_GAP_MM = 18.0
"""Mean distance between neighbouring discs, C2/3 to T2/3, that the heights of the landmarks are given for. A
neck with other gaps has them higher or lower by half of that share: worn discs are low, their vertebrae are
not."""

_FULL_FIT = 0.35
_NO_FIT = 0.65
"""A landmark fits fully up to the first distance from its expected height, in gaps, and not at all from the
second one on: in the middle between two numberings it fits both half."""

_FADE = 0.3
"""Range in gaps over which a landmark that lies too far beside the chain loses its fit."""

_HALF_FIT = 0.5


@dataclass(frozen=True)
class _Place:
    """Expected height above C2/3 in mm, and largest distance beside the chain's line with a full fit, in
    gaps."""

    height_mm: float
    aside_gaps: float


_PLACES: Mapping[str, _Place] = {"C2": _Place(15.5, 0.6), "dens": _Place(36.0, 1.3)}
"""Measured on the five volumes of `bench.semisynthetic.subjects`: 14.3 to 16.4 mm and 29.8 to 38.3 mm, with
mean gaps of 18.0 to 19.1 mm. The line beyond the upper end of a chain is known to 20°, and the dens lies in
front of the canal."""

COUNTED_FROM = tuple(_PLACES)
"""Landmarks that discs are counted from: "C2" and "dens"."""

LandmarkCandidates = Mapping[str, Sequence[LevelPoint]]
"""Candidate points of each of `COUNTED_FROM`; empty if the model has no maps of landmarks."""


def expected_height_mm(name: str, top: ChainTop) -> float:
    """Height in mm above C2/3 at which a landmark is expected."""
    return _PLACES[name].height_mm * (1.0 + top.gap_mm / _USUAL_GAP_MM) / 2.0


def agreement(top: ChainTop, candidates: LandmarkCandidates, shift: int = 0) -> float:
    """Return how well the landmarks fit a chain: the sum of each one's confidence × fit, 0 to 2.

    Args:
        top: upper end of the chain.
        candidates: points of the landmarks.
        shift: number of discs that the chain lacks at its upper end: 1 if its C2/3 is C3/4.
    """
    return sum(
        max((item.confidence * _fit(item, top, shift) for item in each), default=0.0)
        for each in candidates.values()
    )


def fitting_points(top: ChainTop, candidates: LandmarkCandidates) -> dict[str, Vector]:
    """Return the points of the landmarks that lie where the chain has their place."""
    found = {}
    for name, each in candidates.items():
        fitting = [item for item in each if _fit(item, top, 0) >= _HALF_FIT]
        if fitting:
            best = max(fitting, key=lambda item: item.confidence * _fit(item, top, 0))
            if best.point is not None:
                found[name] = best.point
    return found


def _fit(item: LevelPoint, top: ChainTop, shift: int) -> float:
    """How well a point fits the place of its landmark, 0 to 1."""
    if item.point is None:
        return 0.0
    offset = np.asarray(item.point) - top.place - shift * top.gap_mm * top.up
    height = float(offset @ top.up)
    aside = float(np.linalg.norm(offset - height * top.up)) / top.gap_mm
    wrong = abs(height - expected_height_mm(item.level, top)) / top.gap_mm
    along_fit = np.clip((_NO_FIT - wrong) / (_NO_FIT - _FULL_FIT), 0.0, 1.0)
    aside_fit = np.clip((_PLACES[item.level].aside_gaps + _FADE - aside) / _FADE, 0.0, 1.0)
    return float(along_fit * aside_fit)
