"""Figures: a value with its spread, by which clock, over how many runs, and what it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EVENTS = "CUDA events"
"""On the device, between two events of the stream that computes."""
WALL = "wall"
"""From the call until its answer is on the host, by the machine's clock."""


@dataclass(frozen=True)
class Limit:
    """What a value may be at most, or has to be at least."""

    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value keeps it."""
        too_high = self.at_most is not None and value > self.at_most
        too_low = self.at_least is not None and value < self.at_least
        return not (too_high or too_low)

    def __str__(self) -> str:
        bounds = (("≤", self.at_most), ("≥", self.at_least))
        return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Measurement:
    """One line of the results.

    Attributes:
        name: what was measured.
        value: of many runs, the median.
        unit: of the value and its percentiles; "" for a ratio.
        clock: `EVENTS`, `WALL`, or "" where it is no time.
        runs: that the value is of.
        p90, p99: percentiles of the runs, linear between them; None where there are no runs to take them of.
        limit: what it is held against; None where there is nothing.
        about_results: whether it is about what was computed. All others say how fast, of the GPU that it was
            computed on, and a stand-in's are not held against anything.
    """

    name: str
    value: float
    unit: str
    clock: str = ""
    runs: int = 1
    p90: float | None = None
    p99: float | None = None
    limit: Limit | None = None
    about_results: bool = False

    def passed(self, on_stand_in: bool) -> bool | None:
        """Whether it keeps its limit; None where it has none, or a stand-in's speed is no measure."""
        if self.limit is None or (on_stand_in and not self.about_results):
            return None
        return self.limit.holds(self.value)

    def record(self, on_stand_in: bool) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "clock": self.clock or None,
            "runs": self.runs,
            "p90": _rounded(self.p90),
            "p99": _rounded(self.p99),
            "limit": None if self.limit is None else str(self.limit),
            "passed": self.passed(on_stand_in),
        }


def median_measurement(
    name: str, times: Sequence[float], clock: str, unit: str = "ms", limit: Limit | None = None
) -> Measurement:
    """The median of some times, with their percentiles."""
    p90, p99 = (float(value) for value in np.percentile(times, [90, 99]))
    median = statistics.median(times)
    return Measurement(name, median, unit, clock, len(times), p90=p90, p99=p99, limit=limit)


def _rounded(value: float | None) -> float | None:
    """Five digits: more is noise."""
    return None if value is None else float(f"{value:.5g}")
