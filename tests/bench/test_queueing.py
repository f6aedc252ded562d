"""Latencies of a queue against what is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stenosis_trt.bench.queueing import largest_service, latency_quantile


@pytest.mark.parametrize("utilisation", [0.2, 0.5, 0.8])
def test_exponential_service_gives_the_quantiles_of_the_queue_m_m_1(utilisation: float) -> None:
    """The sojourn time of M/M/1 is exponential with the rate μ − λ."""
    service = np.random.default_rng(1).exponential(1.0, 100_000)
    for share in (0.5, 0.99):
        expected = -math.log(1.0 - share) / (1.0 - utilisation)
        assert latency_quantile(utilisation, service, share) == pytest.approx(expected, rel=0.07)


def test_constant_service_gives_the_waiting_of_the_queue_m_d_1() -> None:
    """In M/D/1 a share 1 − ρ of the arrivals finds nobody before it."""
    assert latency_quantile(0.4, 1.0, 0.599) == pytest.approx(1.0)
    above = latency_quantile(0.4, 1.0, 0.62)
    assert above is not None
    assert above > 1.0


def test_studies_that_come_faster_than_they_are_served_pile_up() -> None:
    assert latency_quantile(2.0, 0.5) is None
    assert latency_quantile(2.1, 0.5) is None
    assert latency_quantile(0.0, 0.5) == 0.5


def test_the_largest_service_time_keeps_the_limit_and_a_longer_one_does_not() -> None:
    largest = largest_service(0.5, 1.0)
    within, beyond = latency_quantile(0.5, largest), latency_quantile(0.5, 1.05 * largest)
    assert within is not None
    assert beyond is not None
    assert within <= 1.0 < beyond
