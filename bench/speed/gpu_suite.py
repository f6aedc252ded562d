"""GPU suite: build plans, compare results with the CPU's, measure times, and write a record, in one run.

It needs no internet access and only the dependencies of `grade --device gpu`; studies are rendered. Each
scenario measures a `SystemUnderTest` and fills a `ScenarioReport`. A failing scenario is recorded with its
reason, and the others continue.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from stenosis_trt.bench.speed.suite.answers import result_agreement
from stenosis_trt.bench.speed.suite.device_time import device_time
from stenosis_trt.bench.speed.suite.files import end_to_end, sustained
from stenosis_trt.bench.speed.suite.grader import grader
from stenosis_trt.bench.speed.suite.measurements import ScenarioReport, ScenarioSkipped
from stenosis_trt.bench.speed.suite.plans import plans
from stenosis_trt.bench.speed.suite.report import (
    FAILED,
    SKIPPED,
    Scenario,
    SuiteRun,
    markdown_summary,
    suite_record,
    summary_lines,
)
from stenosis_trt.bench.speed.suite.system import QUICK_SECONDS, SuiteOptions, SystemUnderTest
from stenosis_trt.bench.speed.suite.traffic import cold_start, idle
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.atomic_files import write_text_atomically

SCENARIOS: dict[str, tuple[Callable[[SystemUnderTest, ScenarioReport], None], str]] = {
    "plans": (plans, "Build time and size of the pack's plans for this GPU."),
    "answers": (result_agreement, "Results of GPU and CPU on the same studies."),
    "device": (device_time, "One study on the device, by stage, with and without CUDA graphs."),
    "files": (end_to_end, "Latency of one study, from its files in the page cache to its ratios."),
    "sustained": (sustained, "Throughput over a folder, by number of reader processes."),
    "cold-start": (cold_start, "Time from the start of a process to its first result, with existing plans."),
    "idle": (idle, "Latency of a study after an idle time, with and without keep-warm."),
    "grader": (grader, "The grader alone: TensorRT, the pipeline, and PyTorch."),
}
"""Function and description of each scenario, in order of execution."""
_ON_PHANTOMS = {"answers", "sustained"}
_ON_ONE_STUDY = {"device", "files", "cold-start", "idle", "grader"}


def run_suite(options: SuiteOptions) -> tuple[bool, list[str]]:
    """Run the scenarios; write gpu-suite-GPU-TIME.json and .md to `options.out` after each of them.

    Returns:
        Whether all results are within their limits and no scenario failed, and the lines of the table.

    Raises:
        CudaError: there is no GPU.
        PackError: the pack cannot be loaded, or lacks a precision.
        OSError: `out` cannot be written.
        KeyboardInterrupt: by the user; earlier measurements are kept.
    """
    system = SystemUnderTest(options)
    if not system.driver.gpus:
        raise CudaError(
            f"There is no GPU to measure: {system.driver.unavailable_reason}.",
            "Check that the GPU is given to this process.",
        )
    began = datetime.now(timezone.utc)
    run = SuiteRun(system, began.isoformat(timespec="seconds"))
    given = Pack.load(options.pack)
    for precision in options.precisions:
        given.in_precision(precision)
    slug = re.sub(r"[^a-z0-9]+", "-", system.driver.gpus[0].name.lower()).strip("-")
    place = options.out / f"gpu-suite-{slug}-{began:%Y%m%dT%H%M%SZ}"
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:7.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        wanted = options.scenarios or tuple(SCENARIOS)
        say("Rendering missing studies.")
        system.make_studies(not _ON_PHANTOMS.isdisjoint(wanted), not _ON_ONE_STUDY.isdisjoint(wanted))
        for name in wanted:
            _run_scenario(run, name, say)
            run.seconds = time.monotonic() - start
            _write(run, place)
        run.finished = True
    finally:
        run.seconds = time.monotonic() - start
        _write(run, place)
    say(f"Written: {place}.json and .md")
    return run.passed, list(summary_lines(suite_record(run)))


def make_studies(options: SuiteOptions) -> Path:
    """Render the studies of a run ahead of time, on any machine; return the folder to copy.

    Raises:
        OSError: `out` cannot be written.
    """
    system = SystemUnderTest(options)
    system.make_studies()
    return system.work


def _run_scenario(run: SuiteRun, name: str, say: Callable[[str], None]) -> None:
    """Run one scenario and record its outcome, also if it fails."""
    measure, about = SCENARIOS[name]
    scenario = Scenario(name, about, ScenarioReport(say))
    run.scenarios.append(scenario)
    say(f"{name}: {about}")
    start = time.monotonic()
    try:
        if run.system.seconds_left <= 0:
            raise ScenarioSkipped(f"The {QUICK_SECONDS:.0f} s of a quick run are over.")
        measure(run.system, scenario.report)
    except ScenarioSkipped as reason:
        scenario.status, scenario.reason = SKIPPED, str(reason)
    except KeyboardInterrupt:
        scenario.status, scenario.reason = FAILED, "interrupted"
        raise
    except Exception as error:  # noqa: BLE001 - a failing scenario must not end the others
        scenario.status, scenario.reason = FAILED, f"{type(error).__name__}: {error}"
        scenario.report.details["traceback"] = traceback.format_exc().splitlines()
    finally:
        scenario.seconds = time.monotonic() - start
    if scenario.reason:
        say(f"  {scenario.status}: {scenario.reason}")


def _write(run: SuiteRun, place: Path) -> None:
    content = suite_record(run)
    write_text_atomically(place.with_name(f"{place.name}.json"), json.dumps(content, indent=2) + "\n")
    write_text_atomically(place.with_name(f"{place.name}.md"), markdown_summary(content))
