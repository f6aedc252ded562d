"""Numbers of the discs: which chain of candidates is taken, and whether it could be another one.

Neighbouring discs look alike, so they are numbered together. A levels model with maps of the landmarks also
shows what discs are counted from, the base and the apex of the dens: they decide between chains, and say when
the number is in doubt. Without those maps, the number is in doubt where the maps of the discs are almost as
high one disc up or down, or the images end close above C2/3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stenosis_trt.engine.backends.base import Peaks
from stenosis_trt.engine.geometry import Vector
from stenosis_trt.engine.grading.chains import LevelChain, chain_top, most_plausible
from stenosis_trt.engine.grading.landmarks import (
    COUNTED_FROM,
    LandmarkCandidates,
    agreement,
    expected_height_mm,
    fitting_points,
)
from stenosis_trt.engine.grading.levels import (
    SAME_POINT_MM,
    LevelPoint,
    LocatedLevels,
    PointFinder,
    has_landmarks,
    in_image,
)
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.records import LEVELS, LoadedSlice

MINIMUM_LEVELS = 3
"""With fewer levels, no cervical spine was recognised."""

_AMBIGUITY_RATIO = 0.6
"""The numbering is ambiguous if the heatmaps reach this share of their values at the discs of the
neighbours."""

_LANDMARK_RATIO = 1.5
"""The numbering is in doubt if the landmarks alone fit one that is higher or lower this much better. Where
images end between the body of C2 and the apex of the dens, the apex may be seen at their end, and fits a
numbering one higher 1.0 to 1.4 times as well (studies made from errsm_20, a network trained without it)."""

_SHIFTED_RATIO = 0.9
"""The numbering is in doubt if discs and landmarks together fit one that is higher or lower by this share of
their confidence and fit, or more."""

_DISC_RATIO = 0.9
"""The numbering is in doubt if the discs of the chain have less than this share of the confidence that they
have in the best chain without regard to landmarks: these were fitted at the cost of discs. Chains of eight
discs can take up a shift by one if they leave out two or three of them."""

_LOWEST_TOP = 1
"""Index of the lowest disc that a chain with landmarks may begin with: from C4/5 on, the place of C2/3 is
extrapolated over so far that it is off by half a gap."""

_C2_MARGIN_MM = 20.0
"""Largest distance to a next disc. Discs are counted from C2, above which there is none; images that end
closer above C2/3 do not show whether another disc follows."""


@dataclass(frozen=True)
class NumberedChain:
    """The best chain of candidates.

    Attributes:
        discs: candidates of each disc.
        landmarks: candidates of the landmarks; empty if the model has no maps of them.
        chain: the chosen candidate of each disc, or None.
        score: sum of the confidences, and agreement with the landmarks.
        disc_share: sum of the confidences, as a share of that of the best chain without regard to landmarks.
    """

    discs: Sequence[Sequence[LevelPoint]]
    landmarks: LandmarkCandidates
    chain: LevelChain
    score: float
    disc_share: float

    @property
    def mean_confidence(self) -> float:
        """Mean confidence of the discs in the chain; 0 without any."""
        return _confidence(self.chain) / max(sum(item is not None for item in self.chain), 1)

    @property
    def level_points(self) -> list[Vector]:
        """Points of those of LEVELS that are in the chain."""
        chosen = self.chain[: len(LEVELS)]
        return [item.point for item in chosen if item is not None and item.point is not None]


def number_discs(finder: PointFinder) -> NumberedChain:
    """Choose the most plausible chain of the discs and landmarks that were seen."""
    discs = finder.discs()
    landmarks = {name: finder.landmark(name) for name in COUNTED_FROM} if has_landmarks(finder.model) else {}
    highest = sum(max((item.confidence for item in each), default=0.0) for each in landmarks.values())

    def bonus(chain: LevelChain) -> float:
        top = chain_top(chain)
        return 0.0 if top is None else agreement(top, landmarks)

    chain = by_discs = most_plausible(discs, lambda _: 0.0, 0.0)
    if highest > 0.0:
        chain = most_plausible(discs, bonus, highest)
    confidence, possible = _confidence(chain), _confidence(by_discs)
    share = confidence / possible if possible > 0.0 else 1.0
    return NumberedChain(discs, landmarks, chain, confidence + bonus(chain), share)


def _confidence(chain: LevelChain) -> float:
    return sum(item.confidence for item in chain if item is not None)


def locate_levels(slices: Sequence[LoadedSlice], peaks: Peaks, model: ModelSpec) -> LocatedLevels:
    """Locate the disc levels, and discard points that cannot belong to a cervical spine.

    Args:
        slices: the N slices of the sagittal series.
        peaks: the highest peaks of the heatmaps of each slice, one map for each output of the model.
        model: specification of the levels model, with the minimum confidence of its output.
    """
    numbered = number_discs(PointFinder(slices, peaks, model))
    chain = numbered.chain
    if has_landmarks(model):
        top = chain_top(chain)
        shown = top is not None and _reaches(chain, slices, expected_height_mm("C2", top))
        uncertain = _landmarks_leave_doubt(numbered, model)
    else:
        ambiguous = _discs_leave_doubt(chain, numbered.discs)
        uncertain, shown = ambiguous or not _reaches(chain, slices, _C2_MARGIN_MM), True
    warnings = ("level_number_uncertain",) if uncertain else ()
    found = [
        replace(chosen, warnings=warnings) if chosen is not None else _without_point(each[0])
        for chosen, each in zip(chain, numbered.discs, strict=True)
    ]
    levels = _mark_out_of_view(found, slices)[: len(LEVELS)]
    return LocatedLevels(levels, numbered.mean_confidence, _landmark_points(numbered), shown)


def _without_point(item: LevelPoint) -> LevelPoint:
    """Return a level that is not in the chain, without its point."""
    return (
        item if item.point is None else LevelPoint(item.level, None, item.confidence, ("level_implausible",))
    )


def _landmarks_leave_doubt(numbered: NumberedChain, model: ModelSpec) -> bool:
    """Return True if no landmark is seen where the chain has it, landmarks fit at the cost of discs, or a
    chain that is numbered one higher or lower fits what was seen nearly as well."""
    top = chain_top(numbered.chain)
    if top is None or all(item is None for item in numbered.chain[: _LOWEST_TOP + 1]):
        return True
    fit = agreement(top, numbered.landmarks)
    if fit < model.output.minimum_confidence or numbered.disc_share < _DISC_RATIO:
        return True
    for shift in (-1, 1):
        discs = _compare_shifted(numbered.chain, numbered.discs, shift)
        # Where a chain lacks a disc at its upper end, each name belongs to the disc above.
        shifted = agreement(top, numbered.landmarks, -shift)
        if shifted >= _LANDMARK_RATIO * fit:
            return True
        if discs.shifted + shifted >= _SHIFTED_RATIO * (discs.confidence + fit):
            return True
    return False


def _landmark_points(numbered: NumberedChain) -> dict[str, Vector]:
    """Points of the landmarks that were seen where they fit the chain."""
    top = chain_top(numbered.chain)
    if top is None or not numbered.landmarks:
        return {}
    further = [item for item in numbered.chain[len(LEVELS) :] if item is not None]
    return {
        **{item.level: item.point for item in further if item.point is not None},
        **fitting_points(top, numbered.landmarks),
    }


def _discs_leave_doubt(chain: LevelChain, candidates: Sequence[Sequence[LevelPoint]]) -> bool:
    """Return True if numbering the discs one higher or lower fits their heatmaps nearly as well."""
    return any(
        discs.compared >= MINIMUM_LEVELS - 1 and discs.shifted >= _AMBIGUITY_RATIO * discs.confidence
        for discs in (_compare_shifted(chain, candidates, shift) for shift in (-1, 1))
    )


@dataclass(frozen=True)
class _ShiftedDiscs:
    """The discs of a chain that have a neighbour, and the candidates of their names at that neighbour.

    Attributes:
        compared: number of these discs.
        confidence: sum of their confidences.
        shifted: sum of the confidences of those candidates.
    """

    compared: int
    confidence: float
    shifted: float


def _compare_shifted(
    chain: LevelChain, candidates: Sequence[Sequence[LevelPoint]], shift: int
) -> _ShiftedDiscs:
    """Compare each disc with the candidates of its name that lie at the disc `shift` places further down."""
    compared, confidence, shifted = 0, 0.0, 0.0
    for index, item in enumerate(chain):
        neighbour = chain[index + shift] if 0 <= index + shift < len(chain) else None
        if item is not None and neighbour is not None:
            compared += 1
            confidence += item.confidence
            same = (x.confidence for x in candidates[index] if _same_point(x, neighbour))
            shifted += max(same, default=0.0)
    return _ShiftedDiscs(compared, confidence, shifted)


def _reaches(chain: LevelChain, slices: Sequence[LoadedSlice], height_mm: float) -> bool:
    """Return True if the images reach this far above C2/3, found or extrapolated."""
    top = chain_top(chain)
    if top is None:
        return False
    beyond = top.place + top.up * height_mm
    return any(in_image(part, beyond, 0.0) for part in slices)


def _same_point(one: LevelPoint, other: LevelPoint) -> bool:
    if one.point is None or other.point is None:
        return False
    return float(np.linalg.norm(np.subtract(one.point, other.point))) <= SAME_POINT_MM


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
        if not any(in_image(part, expected, 0.0) for part in slices):
            result[index] = LevelPoint(item.level, None, item.confidence, ("level_out_of_view",))
    return tuple(result)
