"""Interleaved pairs: order, limits, and the statistics of their ratios."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from stenosis_trt.bench.peers import pairing
from stenosis_trt.bench.peers.pairing import PairedTimes, Timer, measure_pairs, timed
from stenosis_trt.bench.statistics.medians import median_interval


class Gone(Exception):
    pass


def _from(times: Iterator[float], log: list[str], name: str) -> Timer:
    def run() -> float:
        log.append(name)
        return next(times)

    return run


def _constant(value: float) -> Iterator[float]:
    while True:
        yield value


def test_the_order_of_a_pair_alternates_and_every_peer_has_pairs_in_every_round() -> None:
    log: list[str] = []
    ours = _from(_constant(1.0), log, "A")
    peers = {"b": _from(_constant(2.0), log, "B"), "c": _from(_constant(3.0), log, "C")}
    found, failed = measure_pairs(ours, peers, 60.0, largest=4, pause=0.0)
    assert "".join(log) == "ABAC" + "BACA" + "ABAC" + "BACA"
    assert found["b"].ratio().value == 2.0
    assert found["c"] == PairedTimes((1.0,) * 4, (3.0,) * 4)
    assert failed == {}


def test_three_rounds_are_measured_even_if_the_time_is_over() -> None:
    found, _ = measure_pairs(lambda: 1.0, {"b": lambda: 2.0}, 0.0, pause=0.0)
    assert found["b"].ratio().pairs == 3


def test_no_round_starts_after_the_time() -> None:
    found, _ = measure_pairs(timed(lambda: None), {"b": timed(lambda: None)}, 0.3, largest=10_000, pause=0.01)
    assert 3 <= found["b"].ratio().pairs <= 15


def test_a_slow_peer_does_not_take_the_time_of_the_others() -> None:
    peers = {"slow": timed(lambda: time.sleep(0.06)), "fast": timed(lambda: None)}
    found, _ = measure_pairs(timed(lambda: None), peers, 0.5, largest=1000, pause=0.001)
    assert found["slow"].ratio().pairs <= 6
    assert found["fast"].ratio().pairs > 2 * found["slow"].ratio().pairs


def test_rounds_that_take_much_too_long_end_before_the_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "_GRACE", 0.05)
    slow = timed(lambda: time.sleep(0.1))
    found, _ = measure_pairs(timed(lambda: None), {"slow": slow}, 0.01, pause=0.0)
    assert found["slow"].ratio().pairs == 1
    assert found["slow"].ratio().low is None


def test_the_ratio_withstands_a_machine_that_slows_down_for_a_while() -> None:
    rng = np.random.default_rng(1)
    slowed = np.repeat([1.0, 3.0, 1.0], 10)
    ours = slowed * rng.normal(1.0, 0.03, 30)
    theirs = 2.0 * slowed * rng.normal(1.0, 0.03, 30)
    theirs[5] *= 20.0
    ratio = PairedTimes(tuple(ours), tuple(theirs)).ratio()
    assert ratio.low is not None
    assert ratio.high is not None
    assert 1.95 < ratio.low < ratio.value < ratio.high < 2.05


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        ours, theirs = rng.lognormal(0.0, 0.1, 25), 1.5 * rng.lognormal(0.0, 0.1, 25)
        ratio = PairedTimes(tuple(ours), tuple(theirs)).ratio()
        covered += ratio.low is not None and ratio.high is not None and ratio.low <= 1.5 <= ratio.high
    assert 85 <= covered <= 100


def test_fewer_than_three_pairs_have_no_interval() -> None:
    assert PairedTimes((1.0, 1.0), (2.0, 3.0)).ratio().low is None
    assert median_interval((1.0, 2.0)) == (1.5, None, None)
    value, low, high = median_interval((1.0, 2.0, 3.0))
    assert (value, low, high) == (2.0, 1.0, 3.0)


def test_pairs_that_something_disturbed_are_counted() -> None:
    times = PairedTimes((1.0, 1.0, 1.0, 9.0, 1.0), (2.0, 2.1, 5.0, 18.0, 2.0))
    assert times.disturbed == 2


def test_a_peer_that_cannot_be_run_any_more_is_left_out() -> None:
    def dies() -> Iterator[float]:
        yield 1.0
        raise Gone("killed")

    peers = {"dying": _from(dies(), [], ""), "b": lambda: 2.0}
    found, failed = measure_pairs(lambda: 1.0, peers, 0.0, Gone, pause=0.0)
    assert set(found) == {"b"}
    assert str(failed["dying"]) == "killed"


def test_other_errors_are_not_hidden() -> None:
    def fails() -> float:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        measure_pairs(lambda: 1.0, {"b": fails}, 0.0, Gone, pause=0.0)


def test_times_that_are_not_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PairedTimes((), ())
    with pytest.raises(ValueError, match="as many times"):
        PairedTimes((1.0,), (1.0, 2.0))
