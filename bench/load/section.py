"""The section `load` of a benchmark run: MLPerf's scenarios by LoadGen, and the idle scanner."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from stenosis_trt.bench.load.arrivals import likely_rate
from stenosis_trt.bench.load.figures import (
    idle_chart,
    idle_figures,
    latency_chart,
    multi_stream_figures,
    offline_figures,
    server_figures,
    single_stream_figures,
)
from stenosis_trt.bench.load.idle import IDLE_OFFICIAL, IdlePlan, measure_idle
from stenosis_trt.bench.load.library import Library
from stenosis_trt.bench.load.running import ScenarioRun, Serve, check_loadgen, run_scenario
from stenosis_trt.bench.load.settings import (
    OFFICIAL_OFFLINE_SAMPLES,
    OFFICIAL_SECONDS,
    P90_QUERIES,
    P99_QUERIES,
    SERVER_QUERIES,
    ScenarioSettings,
)
from stenosis_trt.bench.record.record import Absence, Chart, Figure, Section
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.errors import StenosisError

_SECONDS, _SHARE = 10.0, 0.025
"""Minimum duration of a run, and what share of the section's time it may be."""
_RETRY, _ATTEMPTS = 0.8, 3
"""Share of the rate that Server is tried at again where its bound was not kept, and how often it is tried."""


@dataclass(frozen=True)
class LoadOptions:
    """Options of the section.

    Attributes:
        min_seconds: minimum duration of a run, unless the context is official; None for `_SHARE` of the
            section's time, at most `_SECONDS`.
        server_bound_seconds: bound on the 99th percentile of the time from arrival to result.
        idle: gaps of the idle scanner, unless the context is official.
    """

    min_seconds: float | None = None
    server_bound_seconds: float = 2.0
    idle: IdlePlan = IdlePlan()  # noqa: RUF009 - frozen and without state


def measure(context: BenchContext, options: LoadOptions | None = None) -> Section:
    """Run the scenarios that fit into the time of the section, in the order of their importance.

    Raises:
        StenosisError: LoadGen is not installed or fails, or no study can be graded.
    """
    check_loadgen()
    start = time.monotonic()
    with Product(context) as product:
        load = _LoadRun(context, options or LoadOptions(), product, start)
        load.single_stream()
        load.offline()
        load.idle()
        load.server()
        load.multi_stream()
    return load.section()


@dataclass
class _Found:
    """What was measured so far."""

    figures: list[Figure] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    runs: dict[str, ScenarioRun] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)


class _LoadRun:
    """State of one run of the section."""

    def __init__(self, context: BenchContext, options: LoadOptions, product: Product, start: float) -> None:
        self._context, self._options, self._product, self._start = context, options, product, start
        if context.official:
            self._seconds = OFFICIAL_SECONDS
        elif options.min_seconds is not None:
            self._seconds = options.min_seconds
        else:
            self._seconds = min(_SECONDS, context.seconds * _SHARE)
        context.say("load: reading the studies and warming up")
        self._library = Library(product, context.studies)
        self._found = _Found(absences=list(self._library.absences))

    def single_stream(self) -> None:
        """Single studies in each cut, and single regions."""
        regions = len(self._library.middle.inputs.batches["grader"])
        studies = len(self._library.samples)
        cuts: dict[str, tuple[int, Serve]] = {
            "whole": (studies, self._library.whole),
            "device": (studies, self._library.device),
            "models": (studies, self._library.models),
            "image": (regions, self._library.regions()),
        }
        shown = {}
        for cut, (samples, serve) in cuts.items():
            settings = ScenarioSettings(
                "SingleStream", samples, _timed(serve), self._seconds, P90_QUERIES, 0.9
            )
            run = self._run(f"single_stream.{cut}", settings, serve)
            if run is not None:
                shown[cut] = run
                self._found.figures += single_stream_figures(cut, run)
        if shown:
            self._found.charts.append(latency_chart(shown))

    def offline(self) -> None:
        """All studies of an archive at once."""
        for cut, serve in (("whole", self._library.archive), ("device", self._library.device)):
            expected = self._mean(cut)
            if expected is None:
                continue
            settings = ScenarioSettings(
                "Offline",
                len(self._library.samples),
                expected,
                self._seconds,
                OFFICIAL_OFFLINE_SAMPLES if self._context.official else 1,
            )
            run = self._run(f"offline.{cut}", settings, serve)
            if run is not None:
                self._found.figures += offline_figures(cut, run)

    def server(self) -> None:
        """Studies that arrive at random, at the highest rate that keeps the bound."""
        single = self._found.runs.get("single_stream.whole")
        if single is None:
            return
        bound = self._options.server_bound_seconds
        rate = likely_rate(single.latencies, bound, SERVER_QUERIES)
        if rate is None:
            self._absent("server.whole", f"A study alone takes longer than the bound of {bound:g} s.")
            return
        tried: list[ScenarioRun] = []
        for _ in range(_ATTEMPTS):
            settings = ScenarioSettings(
                "Server",
                len(self._library.samples),
                self._mean("whole") or 0.0,
                self._seconds,
                SERVER_QUERIES,
                0.99,
                target_qps=rate,
                bound_seconds=bound,
            )
            if tried and not self._fits(settings):
                break
            run = self._run("server.whole", settings, self._library.whole, final=False)
            if run is None:
                break
            tried.append(run)
            if max(run.latencies) <= bound:
                break
            rate *= _RETRY
        if tried:
            self._keep("server.whole", tried[-1])
            self._found.details["server.tried"] = [run.record() for run in tried[:-1]]
            self._found.figures += server_figures(tried[-1])

    def multi_stream(self) -> None:
        """The inputs of one study, and its slices, as the samples of a query."""
        middle = self._library.middle
        for cut, count, serve in (
            ("models", middle.inputs.images, self._library.study_of_regions),
            ("device", middle.images, self._library.study_of_images),
        ):
            expected = self._mean(cut)
            if expected is None:
                continue
            settings = ScenarioSettings(
                "MultiStream", count, expected, self._seconds, P99_QUERIES, 0.99, count
            )
            run = self._run(f"multi_stream.{cut}", settings, serve)
            if run is not None:
                self._found.figures += multi_stream_figures(cut, run)

    def idle(self) -> None:
        """A study after gaps."""
        plan = IDLE_OFFICIAL if self._context.official else self._options.idle
        seconds = plan.seconds(self._mean("whole") or 0.0)
        if not self._context.official and seconds > self._left():
            self._absent("idle", self._no_time(seconds))
            return
        self._context.say(f"load: idle scanner, about {seconds:.0f} s")
        folder = self._library.middle.folder
        pairs = measure_idle(plan, lambda: self._product.whole(folder))
        self._found.figures += idle_figures(pairs)
        self._found.charts.append(idle_chart(pairs))
        self._found.details["idle"] = [asdict(pair) for pair in pairs]

    def section(self) -> Section:
        """Return what was measured."""
        found, runs = self._found, self._found.runs
        minimum = f"The minimum duration of a LoadGen run is {self._seconds:g} s"
        notes = [
            f"{minimum}, as MLPerf asks for."
            if self._context.official
            else f"{minimum} here; MLPerf's rules for a submission ask for {OFFICIAL_SECONDS:g} s.",
            "Latencies include the passing of a query between LoadGen's process and the product's, about "
            "0.1 ms.",
            *found.rejected,
        ]
        return Section(
            "load",
            "Load scenarios",
            tuple(found.figures),
            tuple(found.absences),
            tuple(notes),
            tuple(found.charts),
            {"loadgen": _loadgen_version(), **self._studies(), **found.details},
            all(run.summary.valid for run in runs.values()) if runs else None,
            round(time.monotonic() - self._start, 1),
        )

    def _run(
        self, name: str, settings: ScenarioSettings, serve: Serve, final: bool = True
    ) -> ScenarioRun | None:
        """Run a scenario, if there is time for it."""
        if not self._fits(settings):
            self._absent(name, self._no_time(settings.estimated_seconds))
            return None
        self._context.say(
            f"load: {settings.scenario}, {name.split('.')[-1]}, about {settings.estimated_seconds:.0f} s"
        )
        run = run_scenario(settings, serve, self._context.work / "loadgen" / name)
        if final:
            self._keep(name, run)
        return run

    def _keep(self, name: str, run: ScenarioRun) -> None:
        self._found.runs[name] = run
        self._found.details[name] = run.record()
        if not run.summary.valid:
            rules = "; ".join(run.summary.broken_rules()) or "no rule is named"
            self._found.rejected.append(f"LoadGen finds {name} INVALID (not satisfied: {rules}).")

    def _fits(self, settings: ScenarioSettings) -> bool:
        return self._context.official or settings.estimated_seconds <= self._left()

    def _left(self) -> float:
        return self._context.seconds - (time.monotonic() - self._start)

    def _no_time(self, seconds: float) -> str:
        left = max(0.0, self._left())
        return f"It takes about {seconds:.0f} s, and {left:.0f} s of the section's time are left."

    def _absent(self, name: str, reason: str) -> None:
        self._found.absences.append(Absence(f"load.{name}", reason))

    def _mean(self, cut: str) -> float | None:
        """Mean seconds of a study in SingleStream; None where it was not measured."""
        run = self._found.runs.get(f"single_stream.{cut}")
        return None if run is None else float(np.mean(run.latencies))

    def _studies(self) -> Mapping[str, Any]:
        samples = self._library.samples
        inputs = [{name: len(batch) for name, batch in sample.inputs.batches.items()} for sample in samples]
        return {
            "library": {
                "studies": len(samples),
                "slices": [sample.images for sample in samples],
                "network_inputs": inputs,
            }
        }


def _timed(serve: Serve) -> float:
    """Seconds of one query of the first sample."""
    start = time.perf_counter()
    list(serve([0]))
    return time.perf_counter() - start


def _loadgen_version() -> str:
    try:
        return version("mlcommons-loadgen")
    except PackageNotFoundError as error:
        raise StenosisError(
            "mlperf_loadgen is installed without its distribution mlcommons-loadgen.",
            "Install it: pip install 'stenosis-trt[bench]'.",
        ) from error
