"""Time two systems in interleaved pairs, and the ratio of their times.

Both runs of a pair follow each other, so that what disturbs the machine for longer than a run disturbs both.
The order alternates from pair to pair: A B, B A, A B, ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.medians import FEWEST, median_interval

Timer = Callable[[], float]
"""Runs once and returns the seconds that it took."""

_PAUSE = 0.01
"""Seconds between two runs: threads of ONNX Runtime and OpenMP spin for some milliseconds after a run, and
would take the cores from the next one."""

_GRACE = 5.0
"""Seconds that the first three rounds may take longer; as long again as was planned, if that is more."""

_DISTURBED = 1.5
"""A run that takes longer than this times the median of its side was disturbed."""


def timed(call: Callable[[], object]) -> Timer:
    """Return a timer of the wall time of a call."""

    def run() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return run


@dataclass(frozen=True)
class PairedTimes:
    """Wall times of pairs, in seconds: `ours[k]` and `theirs[k]` were measured one after the other."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.ours) != len(self.theirs) or not self.ours:
            raise ValueError("Pairs need as many times of one side as of the other, at least one.")

    @property
    def ratios(self) -> npt.NDArray[np.float64]:
        """Their time divided by ours, for each pair; above 1 where we are faster."""
        ratios: npt.NDArray[np.float64] = np.asarray(self.theirs) / np.asarray(self.ours)
        return ratios

    @property
    def disturbed(self) -> int:
        """Number of pairs with a run that took much longer than the median of its side."""
        sides = np.array([self.ours, self.theirs])
        return int((sides > _DISTURBED * np.median(sides, axis=1, keepdims=True)).any(axis=0).sum())

    def ratio(self) -> PairedRatio:
        """Return the median of the ratios, with a percentile interval by bootstrap over pairs."""
        ratios = self.ratios
        return PairedRatio(*median_interval(ratios), len(ratios))


@dataclass(frozen=True)
class PairedRatio:
    """Median of the ratios of pairs and its 95 % interval; without one for fewer than three pairs."""

    value: float
    low: float | None
    high: float | None
    pairs: int


def measure_pairs(
    ours: Timer,
    peers: Mapping[str, Timer],
    seconds: float,
    gone: type[Exception] | tuple[()] = (),
    largest: int = 30,
    pause: float = _PAUSE,
) -> tuple[dict[str, PairedTimes], dict[str, Exception]]:
    """Measure each peer in pairs with ours.

    A round has one pair for each peer, so that the pairs of all peers spread over the whole time. A peer that
    has used its share of the time is left out of further rounds. Nothing is warmed up here: run each side
    once before.

    Args:
        ours: runs our side once.
        peers: run the other sides once, by name.
        seconds: no round is started after this time, but there are three, unless they take much longer.
        gone: exception that a peer raises when it cannot be run any more.
        largest: largest number of rounds.
        pause: seconds between two runs.

    Returns:
        Times by name, and the exceptions of the peers that are left out for them.
    """
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in peers}
    failed: dict[str, Exception] = {}
    spent = dict.fromkeys(peers, 0.0)
    start = time.monotonic()
    for number in range(largest):
        passed = time.monotonic() - start
        if passed >= seconds and (number >= FEWEST or (number and passed >= seconds + max(seconds, _GRACE))):
            break
        for name, theirs in peers.items():
            if name in failed or (number >= FEWEST and spent[name] >= seconds / len(peers)):
                continue
            began = time.monotonic()
            try:
                for side in (0, 1) if number % 2 == 0 else (1, 0):
                    time.sleep(pause)
                    found[name][side].append((ours, theirs)[side]())
            except gone as error:
                failed[name] = error
            spent[name] += time.monotonic() - began
    pairs = {
        name: PairedTimes(tuple(mine), tuple(other))
        for name, (mine, other) in found.items()
        if name not in failed
    }
    return pairs, failed
