"""Intervals of figures of a run whose repetitions are not independent: the moving block bootstrap.

Times that follow each other share clocks, caches and what else the machine does. Blocks of neighbours are
drawn with replacement, so that what they share stays together (Künsch, Annals of Statistics 17, 1989).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.bootstrap import FloatArray, percentile_interval

_ROUNDS = 1000


def block_interval(
    values: npt.ArrayLike, statistic: Callable[[FloatArray], FloatArray], rounds: int = _ROUNDS, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval of a figure of consecutive values.

    Blocks have the length n^(1/3), rounded.

    Args:
        values: in the order in which they were measured, (n,).
        statistic: the figure of each row of float64 (rounds, n), (rounds,).
        rounds: number of draws.
        seed: of the draws.

    Returns:
        Low and high; None for fewer than two values.
    """
    series = np.asarray(values, dtype=np.float64)
    count = len(series)
    if count < 2:
        return None
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    starts = np.random.default_rng(seed).integers(count - length + 1, size=(rounds, blocks))
    indices = (starts[:, :, None] + np.arange(length)).reshape(rounds, -1)[:, :count]
    return percentile_interval(statistic(series[indices]))


def percentile_of(percent: float) -> Callable[[FloatArray], FloatArray]:
    """Return a statistic for `block_interval`: a percentile of each row."""
    return lambda rows: np.percentile(rows, percent, axis=1)


def mean_rate(rows: FloatArray) -> FloatArray:
    """Return the events per second of each row of seconds between events; see `block_interval`."""
    rates: FloatArray = rows.shape[1] / rows.sum(axis=1)
    return rates
