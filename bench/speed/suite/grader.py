"""Scenario: the grader alone, by TensorRT, in the pipe, and by PyTorch where that is installed.

PyTorch runs EfficientNet_B5, the grader of the reference pack, with random weights and at the pack's input
size: the same work, other answers. A pack's ONNX file it cannot run, and of another grader it is no peer.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from typing import Any

from stenosis_trt.bench.speed.suite.device_time import DeviceTimer, requested_regions
from stenosis_trt.bench.speed.suite.figures import EVENTS, Limit, Measurement, median_measurement
from stenosis_trt.bench.speed.suite.pace import Repetition
from stenosis_trt.bench.speed.suite.sheet import ScenarioReport
from stenosis_trt.bench.speed.suite.system import SystemUnderTest, computing_stream
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

_SIDE = 456
"""Pixels of the grader's input that the limits are for."""
_ONE, _MANY = 1, 32
_IN_A_ROW = 5
"""Runs without a pause, for images a second: the host then launches ahead."""
_IN_THE_PIPE = Limit(at_most=1.05)
_AGAINST_PEER = Limit(at_least=2.0)
_INT8 = Limit(at_least=1.2)
_COMPILING_SECONDS = 90.0
"""What compiling the network may take."""


def grader(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    """Each precision at the smallest and the largest batch up to 32, then PyTorch at the same."""
    model = system.pack.models["grader"]
    at_full_size = model.input.size == (_SIDE, _SIDE)
    sheet.details["input"] = list(model.input_shape)
    if not at_full_size:
        sheet.note(
            f"The pack's grader sees {model.input.width}² pixels; the limits are for {_SIDE}², so nothing is "
            "held against them."
        )
    pace = system.options.repetition(200)
    rates: dict[str, float] = {}
    batches: list[int] = []
    for precision in system.precisions:
        batches = _batches(system.plans(precision).plans["grader"].sidecar.batches)
        for batch in batches:
            alone, rates[precision] = _plan_alone(system, sheet, precision, batch, pace)
            in_pipe = _in_the_pipe(system, sheet, precision, batch, pace)
            limit = _IN_THE_PIPE if at_full_size and (precision, batch) == ("fp16", _ONE) else None
            name = f"{precision}, batch {batch}: in the pipe, of the plan alone"
            sheet.add(Measurement(name, in_pipe / alone, "", limit=limit))
    if {"int8", "fp16"} <= set(rates):
        limit = _INT8 if at_full_size else None
        sheet.add(
            Measurement(f"int8 of fp16, batch {batches[-1]}", rates["int8"] / rates["fp16"], "", limit=limit)
        )
    _peers(system, sheet, batches, rates, at_full_size)


def _batches(built: Sequence[int]) -> list[int]:
    """The smallest that was built, and the largest up to 32."""
    return sorted({built[0], max([batch for batch in built if batch <= _MANY] or [built[0]])})


def _plan_alone(
    system: SystemUnderTest, sheet: ScenarioReport, precision: str, batch: int, pace: Repetition
) -> tuple[float, float]:
    """The plan enqueued on a stream, and nothing else: milliseconds, and images a second back to back."""
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

        ways = {"enqueued": enqueue}
        try:
            graph = stack.enter_context(Graph(stream, enqueue))
            ways["in a graph"] = lambda: graph.launch(stream)
        except (CudaError, TensorRTError) as error:
            sheet.note(f"The plan of the grader in {precision} cannot be captured: {error.reason}")
        with closing(DeviceTimer(device, stream)) as clock:
            times = {way: clock.times(call, pace) for way, call in ways.items()}
            fastest = min(times, key=lambda way: statistics.median(times[way]))

            def row() -> None:
                for _ in range(_IN_A_ROW):
                    ways[fastest]()

            rows = clock.times(row, pace)
    name = f"{precision}, batch {batch}: plan alone"
    for way, taken in times.items():
        sheet.add(median_measurement(f"{name}, {way}", taken, EVENTS))
    rate = 1e3 * batch * _IN_A_ROW / statistics.median(rows)
    sheet.add(Measurement(f"{name}, back to back", rate, "images/s", EVENTS, len(rows)))
    return statistics.median(times[fastest]), rate


def _in_the_pipe(
    system: SystemUnderTest, sheet: ScenarioReport, precision: str, batch: int, pace: Repetition
) -> float:
    """Milliseconds of the same on the way of a study: regions cut, inferred, contrast found, all copied."""
    study = system.loaded_study
    with system.backend(precision) as backend, closing(DeviceTimer(*computing_stream(backend))) as clock:
        rois = list(requested_regions(study, backend).rois["grader"])
        wanted: list[Roi] = [rois[number % len(rois)] for number in range(batch)]
        with closing(backend.load(study)) as loaded:
            times = clock.times(lambda: [loaded.grade(wanted)], pace)
    sheet.add(
        median_measurement(
            f"{precision}, batch {batch}: in the pipe, preprocess to probabilities", times, EVENTS
        )
    )
    return statistics.median(times)


def _peers(
    system: SystemUnderTest,
    sheet: ScenarioReport,
    batches: Sequence[int],
    rates: dict[str, float],
    at_full_size: bool,
) -> None:
    if importlib.util.find_spec("torch") is None or system.options.peer is None:
        sheet.note("No peer: PyTorch is not installed.")
        return
    import torch

    if not torch.cuda.is_available():
        sheet.note(f"No peer: PyTorch {torch.__version__} has no GPU here.")
        return
    sheet.details["torch"] = torch.__version__
    pace = system.options.repetition(200)
    model = system.pack.models["grader"]
    network = system.options.peer(model.output_shape[0]).eval().cuda()
    # The largest has a limit: where there is time for one, it is for that.
    for batch in reversed(batches):
        images = torch.zeros((batch, *model.input_shape), device="cuda")
        for name, rate in _torch_rates(torch, network, images, pace, system, sheet):
            sheet.add(Measurement(f"PyTorch {name}, batch {batch}", rate, "images/s", EVENTS, pace.runs))
            if name == _COMPILED and batch == batches[-1]:
                of = system.main_precision
                ours = rates[of]
                limit = _AGAINST_PEER if at_full_size and of == "fp16" and batch == _MANY else None
                sheet.add(
                    Measurement(
                        f"TensorRT {of} of PyTorch {name}, batch {batch}", ours / rate, "", limit=limit
                    )
                )


_COMPILED = "compiled, channels last, AMP FP16"


def _torch_rates(
    torch: Any, network: Any, images: Any, pace: Repetition, system: SystemUnderTest, sheet: ScenarioReport
) -> Iterator[tuple[str, float]]:
    """Images a second of each way to run the network."""
    half = torch.autocast("cuda", dtype=torch.float16)
    flat = images.contiguous(memory_format=torch.channels_last)
    # Both change the network itself.
    plain = network.to(memory_format=torch.contiguous_format)
    yield "eager, FP32 as it comes", _torch_rate(torch, plain, images, pace, nullcontext())
    last = network.to(memory_format=torch.channels_last)
    yield "eager, channels last, AMP FP16", _torch_rate(torch, last, flat, pace, half)
    if system.seconds_left < _COMPILING_SECONDS:
        sheet.note("PyTorch compiled: left out, compiling may take longer than there is time for.")
        return
    try:
        yield _COMPILED, _torch_rate(torch, torch.compile(last, dynamic=False), flat, pace, half)
    except Exception as error:  # noqa: BLE001 - a peer's fault is to be told, and ends nothing of ours
        sheet.note(f"PyTorch compiled: failed ({type(error).__name__}: {str(error)[:300]}).")


def _torch_rate(torch: Any, network: Any, images: Any, pace: Repetition, precision: Any) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once() -> float:
        begin.record()
        for _ in range(_IN_A_ROW):
            network(images)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    with torch.inference_mode(), precision:
        return 1e3 * len(images) * _IN_A_ROW / statistics.median(pace.repeat(once))
