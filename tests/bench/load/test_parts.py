"""Parts of the load section: idle gaps, arrival rates, figures."""

from __future__ import annotations

import numpy as np
import pytest

from stenosis_trt.bench.load.arrivals import likely_rate
from stenosis_trt.bench.load.figures import (
    idle_chart,
    idle_figures,
    latency_chart,
    offline_figures,
    server_figures,
    single_stream_figures,
)
from stenosis_trt.bench.load.idle import IdlePair, IdlePlan, measure_idle
from stenosis_trt.bench.load.running import ScenarioRun
from stenosis_trt.bench.load.settings import ScenarioSettings
from stenosis_trt.bench.load.summary import LoadGenSummary


def test_each_gap_comes_in_turn_between_two_studies() -> None:
    events: list[object] = []
    plan = IdlePlan(((1.0, 2), (60.0, 1)))
    pairs = measure_idle(plan, lambda: events.append("study"), events.append)
    assert [event for event in events if event != "study"] == [1.0, 60.0, 1.0]
    rests = [number for number, event in enumerate(events) if event != "study"]
    assert rests == [2, 6, 10]
    assert len(events) == 12
    assert [pair.gap for pair in pairs] == [1.0, 60.0, 1.0]
    assert plan.seconds(2.0) == 62.0 + 3 * 6.0


def test_the_figures_of_the_idle_scanner_are_medians_and_ratios_of_pairs() -> None:
    pairs = [IdlePair(10.0, 0.2, 0.3), IdlePair(1.0, 0.2, 0.2), IdlePair(10.0, 0.4, 0.4)]
    figures = {figure.name: figure for figure in idle_figures(pairs)}
    assert figures["load.idle.gap_0s"].value == pytest.approx(200)
    assert figures["load.idle.gap_10s"].value == pytest.approx(350)
    assert figures["load.idle.gap_10s.ratio"].value == pytest.approx(1.25)
    assert figures["load.idle.gap_10s.ratio"].runs == 2
    assert figures["load.idle.gap_1s"].low is None
    (series,) = idle_chart(pairs).series
    assert (series.x, series.y) == (("0", "1", "10"), pytest.approx((200, 200, 350)))
    assert series.low == ()


def test_the_rate_of_a_constant_service_is_that_of_a_queue_of_constant_service() -> None:
    """Against a queue that is simulated customer by customer."""
    rate = likely_rate([0.1], bound=0.5, queries=459)
    assert rate is not None

    def longest(rate: float, seed: int) -> float:
        random = np.random.default_rng(seed)
        free = arrival = found = 0.0
        for _ in range(459):
            arrival += random.exponential(1 / rate)
            free = max(free, arrival) + 0.1
            found = max(found, free - arrival)
        return found

    kept = np.mean([longest(rate, seed) <= 0.5 for seed in range(1000, 1200)])
    assert kept > 0.8
    higher = np.mean([longest(rate + 1.0, seed) <= 0.5 for seed in range(1000, 1200)])
    assert higher < kept


def test_a_bound_below_the_time_of_a_study_has_no_rate() -> None:
    assert likely_rate([0.1, 0.3], bound=0.2, queries=459) is None
    slow, fast = (likely_rate([seconds], 2.0, 459) for seconds in (0.4, 0.1))
    assert slow is not None
    assert fast is not None
    assert fast > 4 * slow


def _run(scenario: str, latencies: list[float], figures: dict[str, float], valid: bool = True) -> ScenarioRun:
    settings = ScenarioSettings(scenario, 3, 0.1, 1.0, 64, target_qps=2.0, bound_seconds=1.5)  # type: ignore[arg-type]
    return ScenarioRun(
        settings, LoadGenSummary(valid, {}, figures, 120_000_000, 0), "", tuple(latencies), 1.0
    )


def test_single_stream_gives_the_percentile_of_loadgen_with_an_interval() -> None:
    latencies = list(np.linspace(0.1, 0.2, 100))
    run = _run(
        "SingleStream",
        latencies,
        {"90.0th percentile latency (ns)": 190e6, "50.00 percentile latency (ns)": 150e6},
    )
    ninety, median = single_stream_figures("whole", run)
    assert (ninety.name, ninety.value, ninety.unit) == ("load.single_stream.whole.p90", 190.0, "ms")
    assert ninety.low is not None
    assert ninety.high is not None
    assert 100 < ninety.low < 190 < ninety.high <= 200
    assert ninety.note.endswith("early stopping estimates 120 ms for p90.")
    assert (median.value, median.runs) == (150.0, 100)
    (series,) = latency_chart({"whole": run}).series
    assert (series.x[0], series.x[-1]) == (pytest.approx(100), pytest.approx(200))
    assert (series.y[0], series.y[-1]) == (0.01, 1.0)


def test_the_interval_of_a_throughput_comes_from_the_times_between_completions() -> None:
    random = np.random.default_rng(1)
    latencies = list(np.cumsum(random.uniform(0.05, 0.15, 200)))
    (figure,) = offline_figures("whole", _run("Offline", latencies, {"Samples per second": 10.0}))
    assert (figure.unit, figure.better, figure.runs) == ("studies/s", "higher", 200)
    assert figure.low is not None
    assert figure.high is not None
    assert 9.0 < figure.low < 10.0 < figure.high < 11.0


def test_a_rate_that_broke_its_bound_is_not_a_figure() -> None:
    latencies = list(np.linspace(0.1, 3.0, 100))
    percentile = {"99.00 percentile latency (ns)": 2.9e9}
    names = [figure.name for figure in server_figures(_run("Server", latencies, percentile, valid=False))]
    assert names == ["load.server.whole.p99"]
    rate, late = server_figures(_run("Server", latencies, percentile))
    assert (rate.name, rate.value) == ("load.server.whole.rate", 2.0)
    assert "7200 studies an hour" in rate.note
    assert late.value == 2900.0
