"""Scenarios: latency of the first study after a process start, and of a study after an idle time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stenosis_trt.bench.speed.suite.measurements import (
    WALL,
    Limit,
    Measurement,
    ScenarioReport,
    median_measurement,
)
from stenosis_trt.bench.speed.suite.system import SystemUnderTest
from stenosis_trt.engine.backends.gpu.options import GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.records import LoadedStudy

_COMMAND = (sys.executable, "-c", "from stenosis_trt.engine.cli.app import main; main()")
_FIRST_RESULT = Limit(at_most=3.0)
_POLL_SECONDS = 0.002
_TIMEOUT_SECONDS = 300.0
KEEP_WARM_SECONDS = 0.05

_RUNS_BY_GAP = ((0.05, 100), (0.5, 40), (5.0, 10), (60.0, 3), (float("inf"), 1))
"""(upper bound of the idle time in s, number of runs)."""


def cold_start(system: SystemUnderTest, report: ScenarioReport) -> None:
    """Time a new process with existing plans, from start to the first result on disk, and to its end.

    One run to fill the page cache is discarded.
    """
    precision = system.main_precision
    system.plans(precision)
    repeats = system.options.repetition(18, warm_up=1)
    repeats = replace(repeats, seconds=10 * repeats.seconds)
    starts = repeats.repeat(lambda: _start(system, precision, system.one_study, system.work / "cold_start"))
    report.details |= {"precision": precision}
    report.add(
        median_measurement(
            "process start to first result", [start[0] for start in starts], WALL, "s", _FIRST_RESULT
        )
    )
    report.add(median_measurement("process start to its end", [start[1] for start in starts], WALL, "s"))


def _start(system: SystemUnderTest, precision: str, study: Path, out: Path) -> tuple[float, float]:
    """Seconds until the first result is on disk, and until the process ends."""
    shutil.rmtree(out, ignore_errors=True)
    arguments = ["grade", study, "--out", out, "--pack", system.pack.path, "--device", "gpu"]
    arguments += ["--precision", precision]
    if system.options.flavour:
        arguments += ["--flavour", system.options.flavour]
    log = system.work / "cold_start.log"
    start = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen([*_COMMAND, *map(str, arguments)], stdout=stream, stderr=stream)
        seen = None
        try:
            while process.poll() is None:
                if time.perf_counter() > start + _TIMEOUT_SECONDS:
                    raise RuntimeError(f"`grade` did not end within {_TIMEOUT_SECONDS:.0f} s. See {log}.")
                if seen is None and _has_result(out):
                    seen = time.perf_counter()
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    end = time.perf_counter()
    if process.returncode or not _has_result(out):
        raise RuntimeError(f"`grade` failed: {log.read_text(errors='replace')[-2000:]}")
    return (seen or end) - start, end - start


def _has_result(out: Path) -> bool:
    folder = out / "studies"
    return folder.is_dir() and any(name.endswith(".json") for name in os.listdir(folder))


def idle(system: SystemUnderTest, report: ScenarioReport) -> None:
    """Time a study after idle times, with and without keep-warm, and the first study after opening."""
    study, precision = system.loaded_study, system.main_precision
    report.details |= {"precision": precision, "keep_warm_seconds": KEEP_WARM_SECONDS}
    for keep_warm in (False, True):
        options = GpuOptions(keep_warm_seconds=KEEP_WARM_SECONDS if keep_warm else None)
        name = "kept warm" if keep_warm else "left to rest"
        with system.backend(precision, options) as backend:
            if not keep_warm:
                report.add(
                    Measurement(
                        "opening: plans loaded, warmed up, captured", backend.warm_up_seconds, "s", WALL
                    )
                )
            first = _milliseconds(backend, study)
            report.add(Measurement(f"{name}: first study after opening", first, "ms", WALL))
            for figure in _after_idle_times(system, report, backend, study, name):
                report.add(figure)
            report.details[f"{name}, times kept warm"] = backend.record()["kept_warm"]


def _after_idle_times(
    system: SystemUnderTest, report: ScenarioReport, backend: TensorRtBackend, study: LoadedStudy, name: str
) -> Iterator[Measurement]:
    for gap in system.options.gaps_seconds:
        runs = next(runs for below, runs in _RUNS_BY_GAP if gap < below)
        repeats = system.options.repetition(runs, warm_up=0)
        if gap * repeats.runs > system.seconds_left:
            report.note(f"{name}: skipped the idle time of {gap:g} s, which exceeds the remaining time.")
            continue
        repeats = replace(repeats, seconds=repeats.seconds + gap * repeats.runs)
        times = repeats.repeat(lambda gap=gap: _after_idle(gap, backend, study))  # type: ignore[misc]
        yield median_measurement(f"{name}: study after {gap:g} s", times, WALL)


def _after_idle(gap: float, backend: TensorRtBackend, study: LoadedStudy) -> float:
    time.sleep(gap)
    return _milliseconds(backend, study)


def _milliseconds(backend: TensorRtBackend, study: LoadedStudy) -> float:
    start = time.perf_counter()
    grade_study(study, backend.pack, backend)
    return (time.perf_counter() - start) * 1e3
