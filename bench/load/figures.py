"""Figures and charts of the load scenarios, from their runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from stenosis_trt.bench.load.idle import IdlePair
from stenosis_trt.bench.load.running import ScenarioRun
from stenosis_trt.bench.record.record import Chart, Figure, Series
from stenosis_trt.bench.statistics.blocks import block_interval, mean_rate, percentile_of

CUT_TEXTS = {
    "image": "one region, its network alone",
    "models": "one study, its networks alone",
    "device": "one study, pixels in memory to ratios",
    "whole": "one study, files to results and DICOM SR",
}
_NANOSECONDS_PER_MS = 1e6
_CDF_POINTS = 200


def single_stream_figures(cut: str, run: ScenarioRun) -> tuple[Figure, ...]:
    """Return the 90th percentile, which is MLPerf's figure, and the median."""
    early = run.summary.early_stopping_ns
    note = ""
    if early is not None:
        estimate = f"{early / _NANOSECONDS_PER_MS:.4g} ms"
        note = f"SingleStream, {CUT_TEXTS[cut]}: LoadGen's early stopping estimates {estimate} for p90."
    name = f"load.single_stream.{cut}"
    ninety = run.summary.figure("90.0th percentile latency")
    return (
        _latency(f"{name}.p90", f"SingleStream p90: {CUT_TEXTS[cut]}", ninety, run, 90.0, note),
        _latency(
            f"{name}.p50",
            f"SingleStream median: {CUT_TEXTS[cut]}",
            run.summary.figure("50.00 percentile latency"),
            run,
            50.0,
            "",
        ),
    )


def multi_stream_figures(cut: str, run: ScenarioRun) -> tuple[Figure, ...]:
    """Return the 99th percentile of the latency of a query."""
    samples = "network inputs" if cut == "models" else "slices"
    note = f"MultiStream: a query is the {run.settings.samples_per_query} {samples} of one study."
    value = run.summary.figure("99.0th percentile latency")
    text = f"MultiStream p99: {CUT_TEXTS[cut]}"
    return (_latency(f"load.multi_stream.{cut}.p99", text, value, run, 99.0, note),)


def offline_figures(cut: str, run: ScenarioRun) -> tuple[Figure, ...]:
    """Return the throughput."""
    between = np.diff(np.sort(np.array([0.0, *run.latencies])))
    low, high = block_interval(between, mean_rate) or (None, None)
    note = "Offline: the next study is read while one is computed." if cut == "whole" else ""
    return (
        Figure(
            f"load.offline.{cut}.throughput",
            f"Offline throughput: {CUT_TEXTS[cut].removeprefix('one study, ')}",
            run.summary.figure("Samples per second"),
            "studies/s",
            "higher",
            low=low,
            high=high,
            runs=len(run.latencies),
            note=note,
        ),
    )


def server_figures(run: ScenarioRun) -> tuple[Figure, ...]:
    """Return the rate of arrivals that the bound was kept at, and the 99th percentile of the latency."""
    bound = f"{run.settings.bound_seconds:g} s"
    rate = run.settings.target_qps
    # Without an interval and a direction: the rate is another one in every run, and the latency with it.
    figures = [
        Figure(
            "load.server.whole.p99",
            f"Server p99: {CUT_TEXTS['whole']}",
            run.summary.figure("99.00 percentile latency") / _NANOSECONDS_PER_MS,
            "ms",
            runs=len(run.latencies),
            note=f"Server: studies arrive at random, {rate:.3g} a second on average.",
        )
    ]
    if run.summary.valid:
        figures.insert(
            0,
            Figure(
                "load.server.whole.rate",
                f"Server: arrivals with p99 within {bound}",
                rate,
                "studies/s",
                "higher",
                runs=len(run.latencies),
                note=f"Server: {3600 * rate:.0f} studies an hour.",
            ),
        )
    return tuple(figures)


def idle_figures(pairs: Sequence[IdlePair]) -> tuple[Figure, ...]:
    """Return the median latency without a gap and after each, and the ratio of the two."""
    without = [pair.without for pair in pairs]
    figures = [_median("load.idle.gap_0s", "Scanner idle: without a gap", without)]
    for gap, chosen in _by_gap(pairs).items():
        name = f"load.idle.gap_{gap:g}s"
        figures.append(
            _median(name, f"Scanner idle: after a gap of {gap:g} s", [pair.after for pair in chosen])
        )
        ratios = [pair.after / pair.without for pair in chosen]
        low, high = block_interval(ratios, percentile_of(50.0)) or (None, None)
        text = f"Scanner idle: after {gap:g} s, of without a gap"
        value = statistics.median(ratios)
        figures.append(Figure(f"{name}.ratio", text, value, "", "lower", "measured", low, high, len(ratios)))
    return tuple(figures)


def latency_chart(runs: Mapping[str, ScenarioRun]) -> Chart:
    """Return the distributions of the SingleStream latencies, by cut."""
    series = []
    for cut, run in runs.items():
        milliseconds = np.sort(1e3 * np.asarray(run.latencies))
        kept = np.unique(np.linspace(0, len(milliseconds) - 1, _CDF_POINTS).round().astype(int))
        series.append(
            Series(
                CUT_TEXTS[cut],
                tuple(float(milliseconds[k]) for k in kept),
                tuple(float((k + 1) / len(milliseconds)) for k in kept),
            )
        )
    return Chart(
        "cdf",
        "Latency of single queries",
        "latency (ms)",
        "share of the queries",
        tuple(series),
        log_x=True,
        note="MLPerf's SingleStream: the next query comes when the one before is complete.",
    )


def idle_chart(pairs: Sequence[IdlePair]) -> Chart:
    """Return the latency after each gap."""
    figures = [figure for figure in idle_figures(pairs) if not figure.name.endswith(".ratio")]
    gaps = [0.0, *_by_gap(pairs)]
    bounded = all(figure.low is not None for figure in figures)
    return Chart(
        "bars",
        "Latency of a study after an idle time",
        "idle time before the study (s)",
        "latency (ms)",
        (
            Series(
                CUT_TEXTS["whole"],
                tuple(f"{gap:g}" for gap in gaps),
                tuple(figure.value for figure in figures),
                tuple(figure.low or math.nan for figure in figures) if bounded else (),
                tuple(figure.high or math.nan for figure in figures) if bounded else (),
            ),
        ),
        note="Medians with 95 % intervals.",
    )


def _by_gap(pairs: Sequence[IdlePair]) -> dict[float, list[IdlePair]]:
    found: dict[float, list[IdlePair]] = {}
    for pair in sorted(pairs, key=lambda pair: pair.gap):
        found.setdefault(pair.gap, []).append(pair)
    return found


def _latency(name: str, text: str, nanoseconds: float, run: ScenarioRun, percent: float, note: str) -> Figure:
    low, high = block_interval(1e3 * np.asarray(run.latencies), percentile_of(percent)) or (None, None)
    value, runs = nanoseconds / _NANOSECONDS_PER_MS, len(run.latencies)
    # LoadGen's own clock starts earlier than the one of the repetitions.
    low, high = (None if low is None else min(low, value)), (None if high is None else max(high, value))
    return Figure(name, text, value, "ms", "lower", "measured", low, high, runs, note=note)


def _median(name: str, text: str, seconds: Sequence[float]) -> Figure:
    values = [1e3 * value for value in seconds]
    low, high = block_interval(values, percentile_of(50.0)) or (None, None)
    return Figure(name, text, statistics.median(values), "ms", "lower", "measured", low, high, len(values))
