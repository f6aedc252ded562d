"""All figures of a GPU in one run: plans built, answers compared with the CPU's, times measured, all kept.

It needs no network, and nothing but what `grade --device gpu` needs: studies are made here. Each scenario
works on a `System` and fills a `Sheet`; one that fails is recorded with its reason, and the others go on.
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
from stenosis_trt.bench.speed.suite.sheet import ScenarioReport, ScenarioSkipped
from stenosis_trt.bench.speed.suite.system import QUICK_SECONDS, SuiteOptions, SystemUnderTest
from stenosis_trt.bench.speed.suite.traffic import cold_start, idle
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.atomic_files import write_text_atomically

SCENARIOS: dict[str, tuple[Callable[[SystemUnderTest, ScenarioReport], None], str]] = {
    "plans": (plans, "Plans of the pack for this GPU."),
    "answers": (result_agreement, "The same studies graded by the GPU and by the CPU."),
    "device": (device_time, "One study on the device, by stage, with and without CUDA graphs."),
    "files": (end_to_end, "One study from its files in the page cache to its ratios."),
    "sustained": (sustained, "Studies a second over a folder, by the number of reading processes."),
    "cold-start": (cold_start, "From the start of a process to its first result, with plans that are there."),
    "idle": (idle, "A study after a rest, with and without keep-warm."),
    "grader": (grader, "The grader alone: TensorRT, the pipe around it, and PyTorch."),
}
"""In the order in which they run."""
_ON_PHANTOMS = {"answers", "sustained"}
_ON_ONE_STUDY = {"device", "files", "cold-start", "idle", "grader"}


def run_suite(options: SuiteOptions) -> tuple[bool, list[str]]:
    """Measure, and write gpu-suite-GPU-TIME.json and .md to `options.out`, again after each scenario.

    Returns:
        Whether everything that was computed is as it should be and no scenario failed, and the table's lines.

    Raises:
        CudaError: there is no GPU.
        PackError: the pack is none, or has no such precision.
        OSError: `out` cannot be written.
        KeyboardInterrupt: of the user; what was measured before is kept.
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
        say("Making studies, where there are none.")
        system.make_studies(not _ON_PHANTOMS.isdisjoint(wanted), not _ON_ONE_STUDY.isdisjoint(wanted))
        for name in wanted:
            _one(run, name, say)
            run.seconds = time.monotonic() - start
            _write(run, place)
        run.finished = True
    finally:
        run.seconds = time.monotonic() - start
        _write(run, place)
    say(f"Written: {place}.json and .md")
    return run.passed, list(summary_lines(suite_record(run)))


def make_studies(options: SuiteOptions) -> Path:
    """Make the studies of a run ahead of time, on any machine; returns the folder to take along.

    Raises:
        OSError: it cannot be written.
    """
    system = SystemUnderTest(options)
    system.make_studies()
    return system.work


def _one(run: SuiteRun, name: str, say: Callable[[str], None]) -> None:
    """Run one scenario, whatever becomes of it."""
    measure, about = SCENARIOS[name]
    scenario = Scenario(name, about, ScenarioReport(say))
    run.scenarios.append(scenario)
    say(f"{name}: {about}")
    start = time.monotonic()
    try:
        if run.system.seconds_left <= 0:
            raise ScenarioSkipped(f"The {QUICK_SECONDS:.0f} s of a quick run were over.")
        measure(run.system, scenario.sheet)
    except ScenarioSkipped as reason:
        scenario.status, scenario.reason = SKIPPED, str(reason)
    except KeyboardInterrupt:
        scenario.status, scenario.reason = FAILED, "interrupted"
        raise
    except Exception as error:  # noqa: BLE001 - one scenario's fault must not end the others
        scenario.status, scenario.reason = FAILED, f"{type(error).__name__}: {error}"
        scenario.sheet.details["traceback"] = traceback.format_exc().splitlines()
    finally:
        scenario.seconds = time.monotonic() - start
    if scenario.reason:
        say(f"  {scenario.status}: {scenario.reason}")


def _write(run: SuiteRun, place: Path) -> None:
    content = suite_record(run)
    write_text_atomically(place.with_name(f"{place.name}.json"), json.dumps(content, indent=2) + "\n")
    write_text_atomically(place.with_name(f"{place.name}.md"), markdown_summary(content))
