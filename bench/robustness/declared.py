"""The range of each condition within which grades do not change silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stenosis_trt.bench.phantom.conditions import CONDITION_RANGES
from stenosis_trt.bench.robustness.figures import Figures
from stenosis_trt.bench.robustness.plan import ordinary_strength

MOST_SILENT_CHANGES = 0.05
"""Largest share of levels whose grade may change without a flag."""


@dataclass(frozen=True)
class DeclaredRange:
    """Range of a condition that a pack can declare.

    Attributes:
        condition, unit: as in `CONDITION_RANGES`.
        low, high: weakest and strongest strength of the range; the strength of an ordinary study where the
            next one tested is beyond the range.
        tested_low, tested_high: of the strengths that were tested, with that of an ordinary study.
        most_silent_changes: largest share of silent changes within the range; None if nothing was compared.
        least_graded: smallest share of the levels that were graded at a strength within the range; None if
            the range has no strength.
        beyond: strengths outside the range with their share of silent changes.
        refused: levels concerned must not be graded; the range then is where they were not, but for 5 %.
    """

    condition: str
    unit: str
    low: float
    high: float
    tested_low: float
    tested_high: float
    most_silent_changes: float | None
    least_graded: float | None
    beyond: tuple[tuple[float, float | None], ...]
    refused: bool


def declared_range(condition: str, figures: Sequence[Figures]) -> DeclaredRange:
    """Return the strengths around the ordinary one up to which silent changes are at most 5 %.

    A strength at which nothing was graded is within: nothing changed silently there.

    Args:
        condition: name of `CONDITION_RANGES`.
        figures: of this condition, each strength once.
    """
    plain = ordinary_strength(condition)
    by_strength = {item.strength: item for item in figures}
    above = _held([by_strength[x] for x in sorted(by_strength) if x > plain])
    below = _held([by_strength[x] for x in sorted(by_strength, reverse=True) if x < plain])
    inside = {item.strength for item in (*above, *below)}
    graded = [item.graded / item.levels for item in (*above, *below) if item.levels]
    shares = [item.silent_changes for item in (*above, *below) if item.silent_changes is not None]
    return DeclaredRange(
        condition=condition,
        unit=CONDITION_RANGES[condition].unit,
        low=below[-1].strength if below else plain,
        high=above[-1].strength if above else plain,
        tested_low=min((*by_strength, plain)),
        tested_high=max((*by_strength, plain)),
        most_silent_changes=max(shares, default=None),
        least_graded=min(graded, default=None),
        beyond=tuple((x, by_strength[x].silent_changes) for x in sorted(by_strength) if x not in inside),
        refused=CONDITION_RANGES[condition].refused,
    )


def _held(outward: Sequence[Figures]) -> list[Figures]:
    """The first of some strengths, up to one that is not within the limit."""
    held = []
    for item in outward:
        if not _is_within(item):
            break
        held.append(item)
    return held


def _is_within(item: Figures) -> bool:
    graded_all_the_same = item.operated_unflagged / item.operated if item.operated else 0.0
    return max(item.silent_changes or 0.0, graded_all_the_same) <= MOST_SILENT_CHANGES
