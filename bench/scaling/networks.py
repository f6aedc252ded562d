"""Scaling of the networks: batch, input size, and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.roofline.floors import parse_runs_by
from stenosis_trt.bench.roofline.profiles import OPENVINO_HINTS
from stenosis_trt.bench.scaling.rounds import Curve, Point, measure_in_turn
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.inputs import MODELS, StudyInputs
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.hardware import usable_cores

Float32Array = npt.NDArray[np.float32]

BATCHES = (1, 2, 4, 8, 16, 32)
SIZES = (96, 128, 160, 224, 300, 456)
"""Edges of the grader's input, in pixels; 456 is that of EfficientNet_B5's published figures."""


def batch_curves(context: BenchContext, product: Product, seconds: float) -> Iterator[Curve]:
    """Time of each network by batch, as the product runs it, on noise."""
    calls: dict[Point, Callable[[], object]] = {}
    for name in MODELS:
        for batch in BATCHES:
            inputs = StudyInputs({name: noise(context.pack, name, batch)})
            calls[f"{name} {batch}"] = partial(product.models, inputs)
    times = measure_in_turn(calls, seconds)
    for name in MODELS:
        yield Curve(
            f"batch.{name}",
            f"{name} on a batch of",
            name,
            {batch: times[f"{name} {batch}"] for batch in BATCHES},
        )


def noise(pack: Pack, name: str, batch: int, size: int | None = None) -> Float32Array:
    """Noise as an input of a model, float32 (batch, C, H, W); `size` replaces height and width."""
    channels, height, width = pack.models[name].input_shape
    shape = (batch, channels, height if size is None else size, width if size is None else size)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def size_curve(context: BenchContext, product: Product, seconds: float) -> Curve:
    """Time of the grader on one input, by its size, on the runtime that the product uses.

    Raises:
        SizeIsFixed: the network cannot be run at other sizes.
    """
    runs_by = product.model_runs_by["grader"]
    calls: dict[Point, Callable[[], object]] = {
        size: grader_at_size(context.pack, size, context.threads, runs_by, product.precision)
        for size in SIZES
    }
    times = measure_in_turn(calls, seconds)
    return Curve("size.grader", "grader on one input, edge in pixels", "grader", times, f"by {runs_by}")


def grader_at_size(
    pack: Pack, size: int, threads: int | None, runs_by: str, precision: str
) -> Callable[[], object]:
    """Return a call that runs the grader on one input of noise. It has run once.

    Args:
        pack: with the grader.
        size: height and width of the input.
        threads: None for all cores.
        runs_by, precision: see `roofline.floors.parse_runs_by`.

    Raises:
        SizeIsFixed: the network cannot be run at this size.
    """
    runtime, runs_in = parse_runs_by(runs_by, precision, None)
    stored = runs_in.name in pack.models["grader"].variants
    data = with_free_size(pack.read_variant("grader", runs_in.name) if stored else pack.read_model("grader"))
    batch, count = noise(pack, "grader", 1, size), threads or usable_cores()
    try:
        if runtime == "onnxruntime":
            run = _onnxruntime(data, count)
        elif runtime == "openvino":
            run = _openvino(data, batch.shape, count, runs_in.name)
        else:
            raise SizeIsFixed(f"A plan of {runtime} has one input size.")
        run(batch)
    except SizeIsFixed:
        raise
    except Exception as error:
        raise SizeIsFixed(f"The grader cannot be run on {size} × {size} pixels ({_line(error)}).") from error
    return partial(run, batch)


class SizeIsFixed(Exception):
    """A network that runs at one input size only; the message says why."""


def with_free_size(data: bytes) -> bytes:
    """Return an ONNX model whose input's batch, height and width are free.

    Raises:
        SizeIsFixed: the package onnx is not installed, or the input has no height and width.
    """
    try:
        import onnx
    except ImportError as error:
        raise SizeIsFixed("The package onnx, which frees the input size, is not installed.") from error
    model = onnx.load_model_from_string(data)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise SizeIsFixed(f"The input of the grader has {len(dims)} dimensions.")
    for index, name in ((0, "batch"), (2, "height"), (3, "width")):
        dims[index].dim_param = name
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _onnxruntime(data: bytes, threads: int) -> Callable[[Float32Array], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})


def _openvino(
    data: bytes, shape: tuple[int, ...], threads: int, precision: str
) -> Callable[[Float32Array], object]:
    import openvino

    core = openvino.Core()
    model = core.read_model(data)
    model.reshape(list(shape))
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision],
    }
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    return lambda batch: request.infer([batch])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def thread_curve(context: BenchContext, seconds: float) -> Curve:
    """Time of a study, from pixels in memory to ratios, by threads of the CPU backend."""
    cores = usable_cores()
    counts = [1]
    while counts[-1] < cores:
        counts.append(min(2 * counts[-1], cores))
    with ExitStack() as stack:
        calls: dict[Point, Callable[[], object]] = {}
        for threads in counts:
            product = stack.enter_context(Product(replace(context, threads=threads)))
            calls[threads] = partial(product.device, product.load(context.studies[0]))
        times = measure_in_turn(calls, seconds)
    return Curve("threads", "a study, pixels in memory to ratios, threads:", "a study", times)
