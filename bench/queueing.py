"""Latency of studies that arrive at random at a machine that takes one at a time.

Arrivals are a Poisson process. Latency is the time from the arrival of a study to its result: waiting, and
being served. With a constant service time this is the queue M/D/1, whose mean waiting time is
ρ s / (2 (1 − ρ)) for a service time s at a utilisation ρ (Kleinrock, Queueing Systems I, 1975, 5.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_STUDIES = 100_000
_STARTED = 1_000
"""Studies of the start, while the queue fills, that are left out."""
_SEED = 15
_HALVINGS = 20


def latency_quantile(
    rate: float, service: float | Sequence[float] | npt.NDArray[np.float64], share: float = 0.99
) -> float | None:
    """Return the latency that so large a share of the studies keeps, by simulation.

    Args:
        rate: arrivals per second.
        service: seconds of a study; or of several, which are drawn from at random.
        share: 0 to 1.

    Returns:
        Seconds; None if studies arrive faster than they are served.
    """
    times = np.atleast_1d(np.asarray(service, np.float64))
    if rate * times.mean() >= 1.0:
        return None
    if rate <= 0.0:
        return float(np.quantile(times, share))
    rng = np.random.default_rng(_SEED)
    gaps = rng.exponential(1.0 / rate, _STUDIES)
    served = times[rng.integers(len(times), size=_STUDIES)]
    # Lindley: w[n + 1] = max(0, w[n] + s[n] − a[n + 1]), the distance of a random walk from its minimum.
    walk = np.concatenate([[0.0], np.cumsum(served[:-1] - gaps[1:])])
    waiting = walk - np.minimum.accumulate(walk)
    return float(np.quantile((waiting + served)[_STARTED:], share))


@lru_cache(maxsize=32)
def largest_service(rate: float, limit: float, share: float = 0.99) -> float:
    """Return the largest constant service time in seconds whose latency quantile stays within `limit`."""
    low, high = 0.0, min(limit, 1.0 / rate) if rate > 0.0 else limit
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        found = latency_quantile(rate, middle, share)
        if found is not None and found <= limit:
            low = middle
        else:
            high = middle
    return low
