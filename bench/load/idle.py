"""Scanner idle: one study, a gap, the next one. Clocks fall and caches go cold in the gap."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class IdlePlan:
    """Gaps to measure, and how often each.

    Attributes:
        gaps: (seconds, repetitions).
    """

    gaps: tuple[tuple[float, int], ...] = ((1.0, 8), (3.0, 4), (10.0, 2))

    def seconds(self, study_seconds: float) -> float:
        """About how long the measurement takes."""
        return sum(runs * (gap + 3 * study_seconds) for gap, runs in self.gaps)

    def order(self) -> list[float]:
        """Return the gap of each repetition: one of each in turn, until all are done."""
        rounds = max(runs for _, runs in self.gaps)
        return [gap for number in range(rounds) for gap, runs in self.gaps if number < runs]


@dataclass(frozen=True)
class IdlePair:
    """Latency of a study at once after another one, and after a gap, in seconds."""

    gap: float
    without: float
    after: float


IDLE_OFFICIAL = IdlePlan(((1.0, 30), (3.0, 20), (10.0, 10), (30.0, 5), (60.0, 5)))
"""Gaps up to a minute: about 14 minutes."""


def measure_idle(
    plan: IdlePlan, study: Callable[[], object], sleep: Sleep = time.sleep
) -> tuple[IdlePair, ...]:
    """Measure the latency of a study after each gap, and without one.

    Every repetition is: the study, to be warm; at once the study again, which is the one without a gap; the
    gap; the study. So both of a pair see the same machine.

    Args:
        plan: gaps and repetitions.
        study: grades the study.
        sleep: waits; replaced in tests.
    """
    pairs = []
    for gap in plan.order():
        study()
        without = _seconds(study)
        sleep(gap)
        pairs.append(IdlePair(gap, without, _seconds(study)))
    return tuple(pairs)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
