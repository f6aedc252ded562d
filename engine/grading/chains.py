"""Chains of discs: which candidates of neighbouring levels can belong to one cervical spine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.grading.levels import LevelPoint

_GAP_MM = (9.0, 28.0)
"""Distance between neighbouring cervical discs: 14–20 mm in adults, with a margin for small and large necks.
Lumbar discs lie 30–40 mm apart."""

_GAP_RATIO = 0.72
"""Minimum of the smaller gap divided by the larger one, for neighbouring gaps: above 0.85 in healthy necks.
If two levels were assigned to one disc, the ratio is 0.6 to 0.7."""

_MAX_BEND_DEGREES = 50.0
"""Largest angle between neighbouring gaps; the cervical spine bends far less even in kyphosis."""

LevelChain = tuple[LevelPoint | None, ...]
"""The selected candidate of each disc, or None, from C2/3 downwards."""


@dataclass(frozen=True)
class ChainTop:
    """The upper end of a chain.

    Attributes:
        place: point of C2/3, found or extrapolated, LPS, mm, float64 (3,).
        up: unit vector along the chain towards the head, float64 (3,).
        gap_mm: mean distance between neighbouring discs of the chain.
    """

    place: FloatArray
    up: FloatArray
    gap_mm: float


def chain_top(chain: LevelChain) -> ChainTop | None:
    """Return the upper end of a chain; None if it has fewer than two discs."""
    known = [(index, np.asarray(item.point)) for index, item in enumerate(chain) if item is not None]
    if len(known) < 2:
        return None
    (first, top), (second, below) = known[:2]
    up = (top - below) / (second - first)
    length = sum(float(np.linalg.norm(after - before)) for (_, before), (_, after) in pairwise(known))
    gap = length / (known[-1][0] - first)
    return ChainTop(top + up * first, up / np.linalg.norm(up), gap)


def most_plausible(
    candidates: Sequence[Sequence[LevelPoint]], bonus: Callable[[LevelChain], float], highest_bonus: float
) -> LevelChain:
    """Return the chain with the highest score whose gaps and bends fit a cervical spine.

    Args:
        candidates: of each disc, from C2/3 downwards.
        bonus: score of a whole chain beside the sum of its confidences, 0 to `highest_bonus`.
        highest_bonus: see `bonus`.
    """
    choices = [[*(item for item in each if item.point is not None), None] for each in candidates]
    highest = [max((item.confidence for item in each if item is not None), default=0.0) for each in choices]
    best: LevelChain = (None,) * len(candidates)
    best_score = 0.0

    def extend(chain: LevelChain, score: float) -> None:
        # Every beginning of a plausible chain is plausible.
        nonlocal best, best_score
        index = len(chain)
        if score + sum(highest[index:]) + highest_bonus <= best_score:
            return
        if index == len(choices):
            total = score + bonus(chain)
            if total > best_score:
                best, best_score = chain, total
            return
        for item in choices[index]:
            if item is None:
                extend((*chain, None), score)
            elif is_plausible((*chain, item)):
                extend((*chain, item), score + item.confidence)

    extend((), 0.0)
    return best


def is_plausible(chain: Sequence[LevelPoint | None]) -> bool:
    """Return True if the levels run downwards with plausible gaps, ratios of gaps and bends."""
    chosen = [(index, np.asarray(item.point)) for index, item in enumerate(chain) if item is not None]
    steps, lengths = [], []
    for (first, before), (second, after) in pairwise(chosen):
        step = (after - before) / (second - first)
        length = float(np.linalg.norm(step))
        if step[2] >= 0 or not _GAP_MM[0] <= length <= _GAP_MM[1]:
            return False
        steps.append(step / length)
        lengths.append(length)
    return all(min(pair) >= _GAP_RATIO * max(pair) for pair in pairwise(lengths)) and all(
        float(before @ after) >= np.cos(np.deg2rad(_MAX_BEND_DEGREES)) for before, after in pairwise(steps)
    )
