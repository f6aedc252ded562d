"""Which studies are made: every condition at every strength, on the same patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stenosis_trt.bench.accuracy.study_requests import StudyRequest
from stenosis_trt.bench.phantom.conditions import CONDITION_RANGES, ORDINARY, Conditions

ORDINARY_NAME = "ordinary"
"""Name of the studies without a condition."""

_PLACES = (-1.0, 0.0, 1.0)
"""Places of the neck in tall fields, in turn: at the head's end, in the middle, at the other end."""
_TALL_FROM_MM = 260.0
_ORDINARY_FIELD_MM = 240.0


@dataclass(frozen=True)
class Plan:
    """What is evaluated.

    Attributes:
        seed: of all studies.
        phantoms: number of phantoms at each strength.
        semisynthetic: number of semi-synthetic studies at each strength.
        subjects, volumes: of the semi-synthetic studies; subject k has the studies k, k + N, … of N subjects.
        conditions: names of `CONDITION_RANGES`.
        strengths: largest number of strengths of a condition; None for all.
    """

    seed: int
    phantoms: int
    semisynthetic: int = 0
    subjects: tuple[str, ...] = ()
    volumes: Path | None = None
    conditions: tuple[str, ...] = tuple(CONDITION_RANGES)
    strengths: int | None = None

    def points(self) -> list[tuple[str, float]]:
        """Names and strengths that are evaluated, without the ordinary studies."""
        return [
            (name, strength)
            for name in self.conditions
            for strength in _spread(CONDITION_RANGES[name].strengths, self.strengths)
        ]

    def ordinary(self) -> list[StudyRequest]:
        """The patients as ordinary studies."""
        return [self._request(index, ORDINARY, real) for index, real in self._patients()]

    def studies(self, name: str, strength: float) -> list[StudyRequest]:
        """The same patients, in the same order, under a condition."""
        return [
            self._request(index, condition_at(name, strength, index), real)
            for index, real in self._patients()
        ]

    def requests(self) -> list[StudyRequest]:
        """All studies, the ordinary ones first."""
        return self.ordinary() + [item for point in self.points() for item in self.studies(*point)]

    def _patients(self) -> Iterator[tuple[int, bool]]:
        yield from ((index, False) for index in range(self.phantoms))
        yield from ((index, True) for index in range(self.semisynthetic))

    def _request(self, index: int, conditions: Conditions, real: bool) -> StudyRequest:
        plain = StudyRequest(self.seed, index, conditions)
        return replace(plain, subjects=self.subjects, volumes=self.volumes) if real else plain


def condition_at(name: str, strength: float, index: int) -> Conditions:
    """One condition at a strength. In tall fields, the neck's place depends on the index of the study."""
    conditions = replace(ORDINARY, **{name: strength})
    if name == "field_mm" and strength > _TALL_FROM_MM:
        conditions = replace(conditions, field_place=_PLACES[index % len(_PLACES)])
    return conditions


def ordinary_strength(name: str) -> float:
    """Strength that an ordinary study has; for the field of view, the middle of what is drawn."""
    return _ORDINARY_FIELD_MM if name == "field_mm" else float(getattr(ORDINARY, name))


def _spread(strengths: Sequence[float], largest: int | None) -> tuple[float, ...]:
    """At most `largest` strengths, the first and the last one among them."""
    if largest is None or largest >= len(strengths):
        return tuple(strengths)
    if largest == 1:
        return (strengths[-1],)
    step = (len(strengths) - 1) / (largest - 1)
    return tuple(strengths[round(k * step)] for k in range(largest))
