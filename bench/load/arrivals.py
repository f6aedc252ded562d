"""The rate of arrivals to try in Server: the highest at which a queue is likely to keep the bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.bench.statistics.bootstrap import FloatArray

_UTILISATIONS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Shares of the rate at which studies are computed one after the other."""
_RUNS = 200
_LIKELY = 0.9
"""Share of the simulated runs that must keep the bound."""


def likely_rate(service: Sequence[float], bound: float, queries: int, seed: int = 0) -> float | None:
    """Return the highest arrival rate at which a run of LoadGen probably keeps the bound.

    One server takes Poisson arrivals in their order. Its times are drawn from the measured ones. With as few
    queries as LoadGen accepts, every one must be within the bound.

    Args:
        service: measured seconds of single studies.
        bound: seconds from arrival to result.
        queries: number of queries of the run.
        seed: of the simulation.

    Returns:
        Arrivals per second; None if a study alone exceeds the bound too often.
    """
    times = np.asarray(service, dtype=np.float64)
    for utilisation in _UTILISATIONS:
        rate = utilisation / float(times.mean())
        random = np.random.default_rng(seed)
        gaps = random.exponential(1.0 / rate, (_RUNS, queries))
        served = random.choice(times, (_RUNS, queries))
        if np.mean(_longest(gaps, served) <= bound) >= _LIKELY:
            return rate
    return None


def _longest(gaps: FloatArray, served: FloatArray) -> FloatArray:
    """Return the longest latency of each run, by Lindley's recursion for the waiting time."""
    wait = np.zeros(len(gaps))
    longest: FloatArray = served[:, 0].copy()
    for number in range(1, gaps.shape[1]):
        wait = np.maximum(0.0, wait + served[:, number - 1] - gaps[:, number])
        longest = np.maximum(longest, wait + served[:, number])
    return longest
