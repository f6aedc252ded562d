"""The moving block bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from stenosis_trt.bench.statistics.blocks import block_interval, mean_rate, percentile_of


def test_the_interval_of_independent_values_is_that_of_theory() -> None:
    """The median of n uniform values on [0, 1] has a standard deviation of about 1 / (2 √n)."""
    values = np.random.default_rng(0).uniform(size=400)
    low, high = block_interval(values, percentile_of(50.0)) or (np.nan, np.nan)
    assert high - low == pytest.approx(2 * 1.96 / (2 * np.sqrt(400)), rel=0.35)
    assert low < np.median(values) < high


def test_values_that_follow_each_other_widen_the_interval() -> None:
    """Each value ten times in a row: the mean is known as badly as from a tenth of the values."""
    single = np.random.default_rng(0).normal(size=100)
    rows = np.repeat(single, 10)

    def mean(values: np.ndarray) -> np.ndarray:
        return values.mean(axis=1)

    low, high = block_interval(rows, mean) or (np.nan, np.nan)
    alone = block_interval(np.random.default_rng(0).permutation(rows), mean) or (np.nan, np.nan)
    assert high - low > 2 * (alone[1] - alone[0])


def test_equal_arguments_give_equal_intervals_and_one_value_none() -> None:
    values = [0.1, 0.2, 0.4]
    assert block_interval(values, mean_rate) == block_interval(values, mean_rate)
    low, high = block_interval(values, mean_rate) or (np.nan, np.nan)
    assert 2.49 <= low <= 3 / 0.7 <= high <= 10.01
    assert block_interval([0.1], mean_rate) is None
