"""A figure with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

CONFIDENCE = 0.95
"""Confidence of every interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % confidence interval; None for what is undefined or was not computed.

    Attributes:
        value: the figure.
        low, high: bounds of the interval.
        method: how the interval was computed; "" where there is none.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""

    @property
    def excludes_zero(self) -> bool:
        """True if the interval is known and does not contain 0."""
        return self.low is not None and self.high is not None and (self.low > 0.0 or self.high < 0.0)


def known(value: float) -> float | None:
    """Return the value as a Python float; None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def estimate(value: float, interval: tuple[float, float] | None = None, method: str = "") -> Estimate:
    """Return an `Estimate`; bounds that are not finite leave it without an interval."""
    low, high = (None, None) if interval is None else (known(interval[0]), known(interval[1]))
    if known(value) is None or low is None or high is None:
        return Estimate(known(value))
    return Estimate(known(value), low, high, method)
