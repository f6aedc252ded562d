"""Measurements of a scenario: repeated calls, values with percentiles and limits, and a report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")

EVENTS = "CUDA events"
"""Time on the device, between two events of the computing stream."""
WALL = "wall"
"""Time on the host, from the call until its result is on the host."""
_MIN_RUNS = 2
"""Minimum number of runs, however long one takes."""


@dataclass(frozen=True)
class Repetition:
    """Number of runs, time limit, and warm-up runs.

    Attributes:
        runs: maximum number of runs; at least two are made.
        seconds: time after which no further run starts.
        warm_up: preceding runs that are discarded; fewer if they are slow, but at least one.
    """

    runs: int
    seconds: float
    warm_up: int = 5

    def repeat(self, once: Callable[[], _T]) -> list[_T]:
        """Call `once` repeatedly; return the results of all but the warm-up runs."""
        start = time.monotonic()
        for _ in range(self.warm_up):
            once()
            if time.monotonic() - start > self.seconds / 4:
                break
        found: list[_T] = []
        start = time.monotonic()
        while len(found) < self.runs and (
            len(found) < min(_MIN_RUNS, self.runs) or time.monotonic() - start < self.seconds
        ):
            found.append(once())
        return found


@dataclass(frozen=True)
class Limit:
    """Upper or lower bound of a value."""

    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """Return True if `value` is within the bounds, which are inclusive."""
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
        value: median over the runs.
        unit: of the value and its percentiles; "" for a ratio.
        clock: `EVENTS`, `WALL`, or "" if the value is not a time.
        runs: number of runs.
        p90, p99: percentiles over the runs, linearly interpolated; None for a single value.
        limit: bound of the value, or None.
        about_results: the value describes results, not speed. The speed of a simulated GPU is not held
            against limits, its results are.
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

    def passed(self, simulated: bool) -> bool | None:
        """Return whether the limit holds; None without a limit, and for the speed of a simulated GPU."""
        if self.limit is None or (simulated and not self.about_results):
            return None
        return self.limit.holds(self.value)

    def record(self, simulated: bool) -> dict[str, Any]:
        """Return the JSON object of the measurement."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "clock": self.clock or None,
            "runs": self.runs,
            "p90": _rounded(self.p90),
            "p99": _rounded(self.p99),
            "limit": None if self.limit is None else str(self.limit),
            "passed": self.passed(simulated),
        }


def median_measurement(
    name: str, times: Sequence[float], clock: str, unit: str = "ms", limit: Limit | None = None
) -> Measurement:
    """Median of times, with percentiles."""
    p90, p99 = (float(value) for value in np.percentile(times, [90, 99]))
    median = statistics.median(times)
    return Measurement(name, median, unit, clock, len(times), p90=p90, p99=p99, limit=limit)


def _rounded(value: float | None) -> float | None:
    """Round to five significant digits."""
    return None if value is None else float(f"{value:.5g}")


class ScenarioSkipped(Exception):
    """A scenario cannot be measured on this machine; the message says why."""


class ScenarioReport:
    """Measurements, details and notes of a scenario.

    Attributes:
        figures: measurements, in order.
        details: further JSON values of the record.
        notes: sentences for the reader.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` prints a line of progress."""
        self._say = say
        self.figures: list[Measurement] = []
        self.details: dict[str, Any] = {}
        self.notes: list[str] = []

    def add(self, figure: Measurement) -> None:
        """Append a measurement and print it."""
        self.figures.append(figure)
        self.say(f"{figure.name}: {figure.value:.4g} {figure.unit}".rstrip())

    def note(self, text: str) -> None:
        """Append a note and print it."""
        self.notes.append(text)
        self.say(text)

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self._say(f"  {text}")
