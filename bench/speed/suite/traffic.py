"""Scenarios: what a study waits for where there was nothing before it: a start, or a rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stenosis_trt.bench.speed.suite.figures import WALL, Limit, Measurement, median_measurement
from stenosis_trt.bench.speed.suite.sheet import ScenarioReport
from stenosis_trt.bench.speed.suite.system import SystemUnderTest
from stenosis_trt.engine.backends.gpu.options import GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.records import LoadedStudy

_COMMAND = (sys.executable, "-c", "from stenosis_trt.engine.cli.app import main; main()")
_FIRST_RESULT = Limit(at_most=3.0)
_SECONDS_BETWEEN_LOOKS = 0.002
_GIVEN_UP_SECONDS = 300.0
KEEP_WARM_SECONDS = 0.05

_RUNS_BY_GAP = ((0.05, 100), (0.5, 40), (5.0, 10), (60.0, 3), (float("inf"), 1))
"""Rests shorter than so many seconds are measured so often."""


def cold_start(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    """A process of its own, with plans that are there: from its start until a result is kept, and to its end.

    Once for the page cache before that, which is not counted.
    """
    precision = system.main_precision
    system.plans(precision)
    pace = system.options.repetition(18, warm_up=1)
    pace = replace(pace, seconds=10 * pace.seconds)
    starts = pace.repeat(lambda: _start(system, precision, system.one_study, system.work / "cold_start"))
    sheet.details |= {"precision": precision}
    sheet.add(
        median_measurement(
            "process start to first result", [start[0] for start in starts], WALL, "s", _FIRST_RESULT
        )
    )
    sheet.add(median_measurement("process start to its end", [start[1] for start in starts], WALL, "s"))


def _start(system: SystemUnderTest, precision: str, study: Path, out: Path) -> tuple[float, float]:
    """Seconds until there is a result, and until the process has ended."""
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
                if time.perf_counter() > start + _GIVEN_UP_SECONDS:
                    raise RuntimeError(f"`grade` did not end within {_GIVEN_UP_SECONDS:.0f} s. See {log}.")
                if seen is None and _has_result(out):
                    seen = time.perf_counter()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
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


def idle(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    """Latency of a study after rests, with and without keep-warm, and of the first one after opening."""
    study, precision = system.loaded_study, system.main_precision
    sheet.details |= {"precision": precision, "keep_warm_seconds": KEEP_WARM_SECONDS}
    for kept_warm in (False, True):
        options = GpuOptions(keep_warm_seconds=KEEP_WARM_SECONDS if kept_warm else None)
        name = "kept warm" if kept_warm else "left to rest"
        with system.backend(precision, options) as backend:
            if not kept_warm:
                sheet.add(
                    Measurement(
                        "opening: plans loaded, warmed up, captured", backend.warm_up_seconds, "s", WALL
                    )
                )
            first = _milliseconds(backend, study)
            sheet.add(Measurement(f"{name}: first study after opening", first, "ms", WALL))
            for figure in _after_rests(system, sheet, backend, study, name):
                sheet.add(figure)
            sheet.details[f"{name}, times kept warm"] = backend.record()["kept_warm"]


def _after_rests(
    system: SystemUnderTest, sheet: ScenarioReport, backend: TensorRtBackend, study: LoadedStudy, name: str
) -> Iterator[Measurement]:
    for gap in system.options.gaps_seconds:
        runs = next(runs for below, runs in _RUNS_BY_GAP if gap < below)
        pace = system.options.repetition(runs, warm_up=0)
        if gap * pace.runs > system.seconds_left:
            sheet.note(f"{name}: no rest of {gap:g} s, there is no time left for it.")
            continue
        pace = replace(pace, seconds=pace.seconds + gap * pace.runs)
        times = pace.repeat(lambda gap=gap: _rested(gap, backend, study))  # type: ignore[misc]
        yield median_measurement(f"{name}: study after {gap:g} s", times, WALL)


def _rested(gap: float, backend: TensorRtBackend, study: LoadedStudy) -> float:
    time.sleep(gap)
    return _milliseconds(backend, study)


def _milliseconds(backend: TensorRtBackend, study: LoadedStudy) -> float:
    start = time.perf_counter()
    grade_study(study, backend.pack, backend)
    return (time.perf_counter() - start) * 1e3
