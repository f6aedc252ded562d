"""Time limits that grow with a machine that is slow or busy."""

from __future__ import annotations

import time

_LOOP = 400_000
_QUIET_SECONDS = 0.012
"""What the loop takes on a quiet core of 3 GHz."""


def time_limit(seconds: float) -> float:
    """Return a limit for what takes less than `seconds` on a quiet machine of 3 GHz.

    The wall time of a short computation, now, tells how many times slower this machine is; load may double
    until the limit is reached.
    """
    return seconds * max(1.0, 2.0 * _measured() / _QUIET_SECONDS)


def _measured() -> float:
    """Wall time of the loop, of which the scheduler takes its share: the longest of three."""
    return max(_once() for _ in range(3))


def _once() -> float:
    began, total = time.perf_counter(), 0
    for number in range(_LOOP):
        total += number
    return time.perf_counter() - began
