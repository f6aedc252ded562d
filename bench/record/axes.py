"""Axes of charts: from values to positions in pixels, and where ticks stand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LOG_STEPS = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis.

    Attributes:
        low, high: values at the ends, low < high; above 0 if `log`.
        start, end: positions of the ends in pixels; `end` is less than `start` for an axis that points up.
        log: logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def position(self, value: float) -> float:
        """Return the position of a value; values beyond the ends are placed at the ends."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """Return about `count` round values between the ends."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        step = _step((self.high - self.low) / max(count, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def axis_over(
    values: Iterable[float], start: float, end: float, log: bool = False, from_zero: bool = False
) -> Axis:
    """Return an axis that holds all values, with some room beyond them.

    Args:
        values: at least one; those that are not above 0 are ignored on a logarithmic axis.
        start, end, log: see `Axis`.
        from_zero: begin, or end, at 0; no effect on a logarithmic axis.
    """
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    if log:
        room = (high / low) ** 0.05 if high > low else 2.0
        return Axis(low / room, high * room, start, end, True)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return Axis(low if from_zero and low == 0 else low - room, high + room, start, end)


def apart(values: Sequence[float], axis: Axis, pixels: float) -> list[float]:
    """Return the values whose positions are at least `pixels` from that of the one before."""
    kept: list[float] = []
    for value in values:
        if not kept or abs(axis.position(value) - axis.position(kept[-1])) >= pixels:
            kept.append(value)
    return kept


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = last - first
    steps = _LOG_STEPS if decades * len(_LOG_STEPS) <= count * 2 else (1.0,)
    every = max(1, math.ceil(decades / max(count, 1))) if steps == (1.0,) else 1
    ticks = [step * 10.0**power for power in range(first, last + 1) if power % every == 0 for step in steps]
    return [tick for tick in ticks if low <= tick <= high]
