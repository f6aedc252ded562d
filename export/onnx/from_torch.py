"""Export of a PyTorch network to ONNX: dynamic batch, fixed height and width, weights stored as FP16."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import onnxslim
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.export.errors import ExportError

OPSET = 18
TOLERANCE = 5e-3
"""Largest output error of an export; weights rounded to FP16 account for about 1e-3."""
INPUT_NAME = "image"
OUTPUT_NAMES = {"classes": "probabilities", "heatmaps": "heatmaps"}
_HALF_MAXIMUM = 65504.0
_MIN_FP16_VALUES = 64
"""Tensors with fewer values stay FP32: shapes, scales and biases whose size does not matter."""


@dataclass(frozen=True)
class ExportedModel:
    """An ONNX model and its error.

    Attributes:
        data: the serialised model.
        maximum_error: largest absolute difference to PyTorch's output over the example inputs.
    """

    data: bytes
    maximum_error: float


class _WithActivation(nn.Module):
    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)
        return logits.softmax(dim=1) if self.kind == "classes" else logits.sigmoid()


def torch_inference(network: nn.Module, kind: str) -> Callable[[Float32Array], Float32Array]:
    """Function that runs the network with its final activation on a batch, float32 (N, C, H, W)."""
    wrapped = _WithActivation(network, kind).eval()

    def answer(batch: Float32Array) -> Float32Array:
        with torch.inference_mode():
            return np.asarray(wrapped(torch.from_numpy(batch)).numpy(), dtype=np.float32)

    return answer


def export_network(
    network: nn.Module,
    kind: str,
    example: Float32Array,
    tolerance: float = TOLERANCE,
    half_weights: bool = True,
) -> ExportedModel:
    """Export a network with its final activation and compare it with PyTorch.

    Args:
        network: returns logits.
        kind: "classes" appends a softmax, "heatmaps" a sigmoid.
        example: inputs to compare on, float32 (N, C, H, W), N ≥ 2.
        tolerance: largest absolute error allowed.
        half_weights: store weights as FP16.

    Raises:
        ExportError: a weight exceeds the range of FP16, or the outputs differ by more than `tolerance`.
    """
    wrapped = _WithActivation(network, kind).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    inputs = torch.from_numpy(example)
    with _suppressed_exporter_messages():
        program = torch.onnx.export(
            wrapped,
            (inputs,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAMES[kind]],
            dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=1024)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("PyTorch returned no ONNX program.")
    data = finalise_model(program.model_proto, half_weights)
    with torch.inference_mode():
        expected = wrapped(inputs).numpy()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    error = float(np.abs(session.run(None, {INPUT_NAME: example})[0] - expected).max())
    # Not `error > tolerance`, so that NaN fails.
    if not error <= tolerance:
        raise ExportError(
            f"The exported model differs from PyTorch by {error:.2g}, over {tolerance:.2g}.",
            ("Store weights as FP32, and look at the checkpoint: a trained network takes rounding well."),
        )
    return ExportedModel(data, error)


@contextmanager
def _suppressed_exporter_messages() -> Iterator[None]:
    """Suppress warnings and remarks of PyTorch's exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def finalise_model(model: onnx.ModelProto, half_weights: bool) -> bytes:
    """Simplify a model, store its weights as asked, check and serialise it.

    Raises:
        ExportError: a weight exceeds the range of FP16.
    """
    slim = onnxslim.slim(model)
    if half_weights:
        slim = store_weights_as_fp16(slim)
    onnx.checker.check_model(slim, full_check=True)
    return bytes(slim.SerializeToString())


def store_weights_as_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store FP32 weights as FP16, each followed by a cast back to FP32.

    Raises:
        ExportError: a weight exceeds the range of FP16.
    """
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < _MIN_FP16_VALUES:
            continue
        if np.abs(values).max() > _HALF_MAXIMUM:
            raise ExportError(f"The weight {weight.name} is too large for FP16.", "Store weights as FP32.")
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(
            helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT, name=f"{name}_cast")
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    # Inferred shapes are those of the original graph.
    del graph.value_info[:]
    return model
