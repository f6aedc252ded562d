"""Scenarios: latency of one study from its files, and throughput over a folder."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from stenosis_trt.bench.speed.suite.measurements import (
    WALL,
    Limit,
    Measurement,
    ScenarioReport,
    ScenarioSkipped,
    median_measurement,
)
from stenosis_trt.bench.speed.suite.system import SystemUnderTest
from stenosis_trt.bench.speed.suite.utilisation import GpuUtilisation
from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.gpu.options import GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory, PixelSlot
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.grading.read_ahead import read_study
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedStudy, StudyResult
from stenosis_trt.engine.runs.batch import grade_paths
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.support.hardware import usable_cores

_LATENCY_LIMIT = Limit(at_most=60.0)
_READING_LIMIT = Limit(at_most=80.0)
_THROUGHPUT_LIMIT = Limit(at_least=60.0)
_LIMIT_WORKERS = 8


def end_to_end(system: SystemUnderTest, report: ScenarioReport) -> None:
    """Time one study from its files in the page cache to its ratios, with running reader processes."""
    workers = min(max(system.options.workers), usable_cores())
    precision = system.main_precision
    repeats = system.options.repetition(60)
    folder = system.one_study
    with (
        system.backend(precision) as backend,
        PixelMemory(backend.reading_bytes) as memory,
        DicomReader(workers=workers, memory=memory) as reader,
    ):
        backend.set_reading_memory(memory)
        slots = itertools.cycle(memory.slots)
        runs = repeats.repeat(lambda: _time_study(reader, next(slots), backend, folder))
    report.details |= {"precision": precision, "workers": workers}
    report.add(
        median_measurement(
            "one study, files to ratios", [run["all"] for run in runs], WALL, limit=_LATENCY_LIMIT
        )
    )
    for name in ("headers", "pixels", "computing"):
        report.add(median_measurement(f"of which {name}", [run[name] for run in runs], WALL))
    shares = [100 * (run["headers"] + run["pixels"]) / run["all"] for run in runs]
    reading = statistics.median(shares)
    report.add(Measurement("share of reading", reading, "%", WALL, len(runs), limit=_READING_LIMIT))


def _time_study(
    reader: DicomReader, slot: PixelSlot, backend: TensorRtBackend, folder: Path
) -> dict[str, float]:
    """Milliseconds of each part. The copy to the device starts after reading and counts as computing."""
    start = time.perf_counter()
    (header,) = reader.scan([folder]).studies
    scanned = time.perf_counter()
    read = read_study(reader, header, slot)
    if read.study is None or read.upload_error is not None or read.outside_slot:
        raise RuntimeError(f"The study was not read completely: {read.problems or read.upload_error}")
    loaded = time.perf_counter()
    grade_study(read.study, backend.pack, backend)
    end = time.perf_counter()
    parts = {"headers": scanned - start, "pixels": loaded - scanned, "computing": end - loaded}
    return {name: 1e3 * seconds for name, seconds in {**parts, "all": end - start}.items()}


def sustained(system: SystemUnderTest, report: ScenarioReport) -> None:
    """Grade a folder with each number of reader processes."""
    cores = usable_cores()
    there = len([path for path in system.phantoms.iterdir() if path.is_dir()])
    count = there * (3 if system.options.quick else 5)
    precision = system.main_precision
    fitting = [workers for workers in system.options.workers if workers <= cores]
    left_out = sorted(set(system.options.workers) - set(fitting))
    if left_out:
        report.note(
            f"Skipped {', '.join(map(str, left_out))} reader processes: this machine has {cores} cores."
        )
    if not fitting:
        raise ScenarioSkipped("Every number of reader processes exceeds the cores of this machine.")
    report.details |= {"precision": precision, "studies": count, "phantoms": there}
    system.plans(precision)
    with system.many_studies(count) as folder:
        for workers in fitting:
            for figure in _run(system, report, folder, count, workers):
                report.add(figure)


class _TimedPipeline:
    """Pipeline that records when each study starts and ends."""

    def __init__(self) -> None:
        self.started, self.ended = list[float](), list[float]()

    def __call__(self, study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
        self.started.append(time.perf_counter())
        result = grade_study(study, pack, backend)
        self.ended.append(time.perf_counter())
        return result


def _run(
    system: SystemUnderTest, report: ScenarioReport, folder: Path, count: int, workers: int
) -> Iterator[Measurement]:
    options = GradeOptions(
        pack=system.pack.path,
        device="gpu",
        precision=system.main_precision,
        workers=workers,
        gpu=GpuOptions(flavour=system.options.flavour),
    )
    out, pipeline, stderr = system.work / f"sustained-{workers}", _TimedPipeline(), io.StringIO()
    shutil.rmtree(out, ignore_errors=True)
    with GpuUtilisation() as utilisation, contextlib.redirect_stderr(stderr):
        outcome = grade_paths([folder], out, options, pipeline)
    if outcome.graded != count:
        raise RuntimeError(f"{outcome.graded} of {count} studies were graded.\n{stderr.getvalue()[-2000:]}")
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    shutil.rmtree(out)
    name = f"{workers} reading {'process' if workers == 1 else 'processes'}"
    judged = _THROUGHPUT_LIMIT if workers == _LIMIT_WORKERS else None
    seconds = pipeline.ended[-1] - pipeline.started[0]
    yield Measurement(f"{name}, sustained", count / seconds, "studies/s", WALL, count, limit=judged)
    whole = record["seconds"]["total"]
    yield Measurement(f"{name}, with headers and tables", count / whole, "studies/s", WALL, count)
    stages = {stage: spent["median"] for stage, spent in record["seconds"]["stages"].items()}
    report.details[name] = {"median_seconds": stages, "backend": record["backend"]}
    busy = utilisation.median(pipeline.started[0], pipeline.ended[-1])
    if busy is None:
        why = utilisation.reason or "the run was too short to be sampled"
        report.details[name]["gpu_utilisation"] = None
        report.note(f"{name}: no utilisation of the GPU ({why}).")
    else:
        yield Measurement(f"{name}, GPU utilisation", busy, "%", runs=len(utilisation.samples))
