"""Scenario: the grader's network alone in TensorRT, within the pipeline, and in PyTorch if installed.

PyTorch cannot run a pack's ONNX file. It runs EfficientNet_B5, the grader of the reference pack, with random
weights at the pack's input size: the same work with other results. The comparison is meaningless for a pack
with another grader.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from typing import Any

from stenosis_trt.bench.speed.suite.device_time import DeviceTimer, requested_regions
from stenosis_trt.bench.speed.suite.measurements import (
    EVENTS,
    Limit,
    Measurement,
    Repetition,
    ScenarioReport,
    median_measurement,
)
from stenosis_trt.bench.speed.suite.system import SystemUnderTest
from stenosis_trt.engine.backends.base import Roi
from stenosis_trt.engine.cuda.device import Device, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.graph import Graph
from stenosis_trt.engine.cuda.memory import DeviceBuffer
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.plans.store import read_plan
from stenosis_trt.engine.trt.api import TensorRT
from stenosis_trt.engine.trt.engine import LoadedPlan
from stenosis_trt.engine.trt.flavours import FLAVOURS

_INPUT_SIZE = 456
"""Width and height of the grader's input to which the limits apply."""
_SMALL_BATCH, _LARGE_BATCH = 1, 32
_BACK_TO_BACK = 5
"""Runs per measurement of throughput, so that the host launches ahead."""
_PIPELINE_LIMIT = Limit(at_most=1.05)
_PEER_LIMIT = Limit(at_least=2.0)
_INT8_LIMIT = Limit(at_least=1.2)
_COMPILING_SECONDS = 90.0
"""Upper estimate of the time to compile the network."""


def grader(system: SystemUnderTest, report: ScenarioReport) -> None:
    """Time each precision at the smallest batch and the largest up to 32, then PyTorch at the same."""
    model = system.pack.models["grader"]
    at_full_size = model.input.size == (_INPUT_SIZE, _INPUT_SIZE)
    report.details["input"] = list(model.input_shape)
    if not at_full_size:
        size = f"{model.input.width}² pixels instead of {_INPUT_SIZE}²"
        report.note(f"The pack's grader has inputs of {size}: its limits do not apply.")
    repeats = system.options.repetition(200)
    rates: dict[str, float] = {}
    batches: list[int] = []
    for precision in system.precisions:
        batches = _batches(system.plans(precision).plans["grader"].sidecar.batches)
        for batch in batches:
            alone, rates[precision] = _plan_alone(system, report, precision, batch, repeats)
            in_pipeline = _in_pipeline(system, report, precision, batch, repeats)
            limit = _PIPELINE_LIMIT if at_full_size and (precision, batch) == ("fp16", _SMALL_BATCH) else None
            name = f"{precision}, batch {batch}: in the pipe, of the plan alone"
            report.add(Measurement(name, in_pipeline / alone, "", limit=limit))
    if {"int8", "fp16"} <= set(rates):
        limit = _INT8_LIMIT if at_full_size else None
        report.add(
            Measurement(f"int8 of fp16, batch {batches[-1]}", rates["int8"] / rates["fp16"], "", limit=limit)
        )
    _peers(system, report, batches, rates, at_full_size)


def _batches(built: Sequence[int]) -> list[int]:
    """The smallest batch of the plan, and its largest up to 32."""
    return sorted({built[0], max([batch for batch in built if batch <= _LARGE_BATCH] or [built[0]])})


def _plan_alone(
    system: SystemUnderTest, report: ScenarioReport, precision: str, batch: int, repeats: Repetition
) -> tuple[float, float]:
    """Time the plan alone on a stream; return milliseconds, and images per second back to back."""
    chosen = system.plans(precision)
    plan = chosen.plans["grader"]
    with ExitStack() as stack:
        device = stack.enter_context(Device())
        stream = stack.enter_context(Stream(device))
        stack.enter_context(device.current())
        tensorrt = TensorRT(FLAVOURS[chosen.target.flavour])
        data = read_plan(system.pack, plan)
        loaded = stack.enter_context(
            LoadedPlan(tensorrt, data, plan.sidecar.batches, plan.sidecar.version_compatible)
        )

        def buffer(shape: tuple[int, ...], itemsize: int) -> DeviceBuffer:
            return stack.enter_context(DeviceBuffer(device, batch * math.prod(shape) * itemsize))

        given = buffer(loaded.input_shape, loaded.input_dtype.itemsize)
        answers = buffer(loaded.output_shape, loaded.output_dtype.itemsize)
        scratch = stack.enter_context(DeviceBuffer(device, max(1, loaded.scratch_bytes)))
        given.fill(0, stream)
        loaded.prepare(batch, given.address, answers.address, scratch.address, stream)
        loaded.enqueue(batch, stream)

        def enqueue() -> None:
            loaded.enqueue(batch, stream)

        calls = {"enqueued": enqueue}
        try:
            graph = stack.enter_context(Graph(stream, enqueue))
            calls["in a graph"] = lambda: graph.launch(stream)
        except (CudaError, TensorRTError) as error:
            report.note(f"The plan of the grader in {precision} cannot be captured: {error.reason}")
        with closing(DeviceTimer(device, stream)) as clock:
            times = {kind: clock.times(call, repeats) for kind, call in calls.items()}
            fastest = min(times, key=lambda kind: statistics.median(times[kind]))

            def row() -> None:
                for _ in range(_BACK_TO_BACK):
                    calls[fastest]()

            rows = clock.times(row, repeats)
    name = f"{precision}, batch {batch}: plan alone"
    for kind, taken in times.items():
        report.add(median_measurement(f"{name}, {kind}", taken, EVENTS))
    rate = 1e3 * batch * _BACK_TO_BACK / statistics.median(rows)
    report.add(Measurement(f"{name}, back to back", rate, "images/s", EVENTS, len(rows)))
    return statistics.median(times[fastest]), rate


def _in_pipeline(
    system: SystemUnderTest, report: ScenarioReport, precision: str, batch: int, repeats: Repetition
) -> float:
    """Milliseconds of the grader's stage in the pipeline: crop, infer, compute contrast, copy to the host."""
    study = system.loaded_study
    with system.backend(precision) as backend, closing(DeviceTimer(backend.device, backend.stream)) as clock:
        rois = list(requested_regions(study, backend).rois["grader"])
        wanted: list[Roi] = [rois[number % len(rois)] for number in range(batch)]
        with closing(backend.load(study)) as loaded:
            times = clock.times(lambda: [loaded.grade(wanted)], repeats)
    report.add(
        median_measurement(
            f"{precision}, batch {batch}: in the pipe, preprocess to probabilities", times, EVENTS
        )
    )
    return statistics.median(times)


def _peers(
    system: SystemUnderTest,
    report: ScenarioReport,
    batches: Sequence[int],
    rates: dict[str, float],
    at_full_size: bool,
) -> None:
    if importlib.util.find_spec("torch") is None or system.options.peer is None:
        report.note("No peer: PyTorch is not installed.")
        return
    import torch

    if not torch.cuda.is_available():
        report.note(f"No peer: PyTorch {torch.__version__} has no GPU here.")
        return
    report.details["torch"] = torch.__version__
    repeats = system.options.repetition(200)
    model = system.pack.models["grader"]
    network = system.options.peer(model.output_shape[0]).eval().cuda()
    # The largest batch has a limit, so it comes first if time is short.
    for batch in reversed(batches):
        images = torch.zeros((batch, *model.input_shape), device="cuda")
        for name, rate in _torch_rates(torch, network, images, repeats, system, report):
            report.add(Measurement(f"PyTorch {name}, batch {batch}", rate, "images/s", EVENTS, repeats.runs))
            if name == _COMPILED and batch == batches[-1]:
                of = system.main_precision
                ours = rates[of]
                limit = _PEER_LIMIT if at_full_size and of == "fp16" and batch == _LARGE_BATCH else None
                report.add(
                    Measurement(
                        f"TensorRT {of} of PyTorch {name}, batch {batch}", ours / rate, "", limit=limit
                    )
                )


_COMPILED = "compiled, channels last, AMP FP16"


def _torch_rates(
    torch: Any,
    network: Any,
    images: Any,
    repeats: Repetition,
    system: SystemUnderTest,
    report: ScenarioReport,
) -> Iterator[tuple[str, float]]:
    """Yield images per second of each way to run the network."""
    half = torch.autocast("cuda", dtype=torch.float16)
    flat = images.contiguous(memory_format=torch.channels_last)
    # `to` changes the network in place.
    plain = network.to(memory_format=torch.contiguous_format)
    yield "eager, FP32 as it comes", _torch_rate(torch, plain, images, repeats, nullcontext())
    last = network.to(memory_format=torch.channels_last)
    yield "eager, channels last, AMP FP16", _torch_rate(torch, last, flat, repeats, half)
    if system.seconds_left < _COMPILING_SECONDS:
        report.note("PyTorch compiled: skipped, since compilation may exceed the remaining time.")
        return
    try:
        yield _COMPILED, _torch_rate(torch, torch.compile(last, dynamic=False), flat, repeats, half)
    except Exception as error:  # noqa: BLE001 - a failing peer is noted and must not end the suite
        report.note(f"PyTorch compiled: failed ({type(error).__name__}: {str(error)[:300]}).")


def _torch_rate(torch: Any, network: Any, images: Any, repeats: Repetition, precision: Any) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once() -> float:
        begin.record()
        for _ in range(_BACK_TO_BACK):
            network(images)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    with torch.inference_mode(), precision:
        return 1e3 * len(images) * _BACK_TO_BACK / statistics.median(repeats.repeat(once))
