"""How often something is done to be timed: as often as asked for, or as time allows on a slow device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")

_LEAST = 2
"""Runs, however long one takes."""


@dataclass(frozen=True)
class Repetition:
    """At most so many runs, and at most so many seconds of them; before that a warm-up that is not counted.

    Attributes:
        runs: at most, and at least two.
        seconds: in which no further run is begun.
        warm_up: runs that are not counted; of slow ones fewer, and at least one.
    """

    runs: int
    seconds: float
    warm_up: int = 5

    def repeat(self, once: Callable[[], _T]) -> list[_T]:
        """What each counted run returned."""
        start = time.monotonic()
        for _ in range(self.warm_up):
            once()
            if time.monotonic() - start > self.seconds / 4:
                break
        found: list[_T] = []
        start = time.monotonic()
        while len(found) < self.runs and (
            len(found) < min(_LEAST, self.runs) or time.monotonic() - start < self.seconds
        ):
            found.append(once())
        return found
