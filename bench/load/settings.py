"""Settings of a LoadGen run, and the minima of MLPerf's rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scenario = Literal["SingleStream", "MultiStream", "Offline", "Server"]

OFFICIAL_SECONDS = 600.0
"""Minimum duration of a run in MLPerf's rules for a submission."""
OFFICIAL_OFFLINE_SAMPLES = 24_576
"""Minimum number of samples of Offline in these rules."""

P90_QUERIES = 64
"""Fewest queries after which LoadGen's early stopping gives a 90th percentile of SingleStream."""
P99_QUERIES = 662
"""Likewise for the 99th percentile of MultiStream."""
SERVER_QUERIES = 459
"""Likewise for a bound on the 99th percentile of Server, which then holds for every query."""

SEED = 15
"""Seed of LoadGen's choice of samples and of its schedule, the same in every run."""

_STREAM_SHARE, _OFFLINE_SHARE = 0.2, 0.7
"""Shares of the expected latency that LoadGen prepares queries for."""
_LOADGEN_MARGIN = 1.1
"""LoadGen issues more samples in Offline than the minimum duration is expected to need, by this factor."""


@dataclass(frozen=True)
class ScenarioSettings:
    """Settings of one run of LoadGen.

    Attributes:
        scenario: LoadGen's name.
        samples: number of samples in the library; all are loaded.
        expected_seconds: estimate of the latency of a query; of the time for a sample in Offline. LoadGen
            prepares queries for the minimum duration by it: a run that is faster runs out of queries, and is
            invalid.
        min_seconds: minimum duration.
        min_queries: minimum number of queries; of samples in Offline.
        percentile: share of the queries that the figure holds for, such as 0.9.
        samples_per_query: MultiStream only.
        target_qps: Server only: mean arrivals per second.
        bound_seconds: Server only: bound on the latency at `percentile`.
    """

    scenario: Scenario
    samples: int
    expected_seconds: float
    min_seconds: float
    min_queries: int
    percentile: float = 0.9
    samples_per_query: int = 1
    target_qps: float = 0.0
    bound_seconds: float = 0.0

    @property
    def prepared_seconds(self) -> float:
        """Latency that LoadGen prepares queries for: below the expected one, so that it does not run out.

        In Offline every prepared sample is issued, so that the run is longer by this factor.
        """
        return self.expected_seconds * (_OFFLINE_SHARE if self.scenario == "Offline" else _STREAM_SHARE)

    @property
    def estimated_seconds(self) -> float:
        """About how long the run takes."""
        if self.scenario == "Server":
            return max(self.min_seconds, self.min_queries / self.target_qps)
        if self.scenario == "Offline":
            return max(
                self.min_seconds * _LOADGEN_MARGIN / _OFFLINE_SHARE, self.min_queries * self.expected_seconds
            )
        return max(self.min_seconds, self.min_queries * self.expected_seconds)
