"""Scaling of the networks: batch, input size, and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.scaling.rounds import Curve, Point, measure_in_turn
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.inputs import MODELS, StudyInputs
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import OPENVINO, ModelChoice
from stenosis_trt.engine.backends.cpu.runtime import ModelRuntime, ModelRuntimeError
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.models import ModelSpec
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
            inputs = StudyInputs({name: noise(context.pack.models[name], batch)})
            calls[f"{name} {batch}"] = partial(product.models, inputs)
    times = measure_in_turn(calls, seconds)
    for name in MODELS:
        yield Curve(
            f"batch.{name}",
            f"{name} on a batch of",
            name,
            {batch: times[f"{name} {batch}"] for batch in BATCHES},
        )


def noise(model: ModelSpec, batch: int, size: int | None = None) -> Float32Array:
    """Noise as an input of a model, float32 (batch, C, H, W); `size` replaces height and width."""
    channels, height, width = model.input_shape
    shape = (batch, channels, height if size is None else size, width if size is None else size)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def size_curve(backend: CpuBackend, seconds: float) -> Curve:
    """Time of the grader on one input, by its size, computed as in the product.

    Raises:
        SizeIsFixed: the network cannot be run at other sizes.
    """
    choice = backend.choices["grader"]
    model, data = backend.pack.models["grader"], backend.pack.read_model("grader")
    calls: dict[Point, Callable[[], object]] = {
        size: network_at_size(model, data, choice, size) for size in SIZES
    }
    times = measure_in_turn(calls, seconds)
    note = f"by {choice.arithmetic}"
    return Curve("size.grader", "grader on one input, edge in pixels", "grader", times, note)


def network_at_size(model: ModelSpec, data: bytes, choice: ModelChoice, size: int) -> Callable[[], object]:
    """Return a call that runs a model on one input of noise. It has run once.

    Args:
        model: its specification.
        data: its ONNX file.
        choice: how it is run.
        size: height and width of the input.

    Raises:
        SizeIsFixed: the network cannot be run at this size.
    """
    free, execution = with_free_size(data), choice.execution(1)
    try:
        if choice.arithmetic.runtime == OPENVINO:
            from stenosis_trt.engine.backends.cpu.openvino import OpenVinoModel

            runtime: ModelRuntime = OpenVinoModel(model, lambda: free, execution, choice.arithmetic.floats)
        else:
            from stenosis_trt.engine.backends.cpu.onnxruntime import OnnxRuntimeModel

            runtime = OnnxRuntimeModel(model, free, execution.threads)
        batch = noise(model, 1, size)
        runtime.run(batch)
    except (PackError, ModelRuntimeError) as error:
        raise SizeIsFixed(f"The grader cannot be run on {size} × {size} pixels ({error}).") from error
    return partial(runtime.run, batch)


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
