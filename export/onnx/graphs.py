"""Analysis and editing of ONNX graphs for quantisation: weights, scales, value ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from stenosis_trt.bench.roofline.layer_work import multiply_adds
from stenosis_trt.engine.backends.base import Float32Array

QDQ = ("QuantizeLinear", "DequantizeLinear")

_INT8_MAXIMUM = 127.0
_SMALLEST_SCALE = 2.0**-20
"""Smallest scale in FP16, which ends at 2⁻²⁴; leaves 16 steps. TensorRT refuses a scale of zero."""
_BINS = 4096
_BATCH = 4


def cpu_session(data: bytes) -> onnxruntime.InferenceSession:
    """Open a model on the CPU. Q/DQ are computed as written, like in `backends/cpu/onnxruntime.py`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_model(data: bytes, inputs: Float32Array) -> Float32Array:
    """Output of a model with one output, for all inputs (N, …)."""
    opened = cpu_session(data)
    name = opened.get_inputs()[0].name
    parts = [opened.run(None, {name: part})[0] for part in _batches(inputs)]
    return np.concatenate(parts).astype(np.float32, copy=False)


def largest_activation(model: onnx.ModelProto, inputs: Float32Array) -> float:
    """Largest absolute value of any activation on the inputs."""
    names = [name for node in model.graph.node for name in node.output if name]
    return max(
        float(np.abs(values).max(initial=0.0))
        for part in _activations(model, names, inputs)
        for values in part
        if values.dtype == np.float32
    )


def activation_percentiles(
    plain: onnx.ModelProto, quantised: onnx.ModelProto, inputs: Float32Array, percentile: float
) -> dict[str, float]:
    """Percentile of the absolute values of each quantised activation.

    Args:
        plain: model before quantisation, whose activations are measured.
        quantised: model with scales that cover all values, as the calibration method "max" gives.
        inputs: float32 (N, C, H, W).
        percentile: 0 to 100, over all values of all inputs, from a histogram of 4096 bins.

    Returns:
        The value for each activation by name.
    """
    constants = _constants(quantised)
    ends = {
        node.input[0]: float(constants[node.input[1]].max()) * _INT8_MAXIMUM
        for node in _quantisers(quantised, constants)
    }
    names = list(ends)
    counts = {name: np.zeros(_BINS, np.int64) for name in names}
    for part in _activations(plain, names, inputs):
        for name, values in zip(names, part, strict=True):
            counts[name] += np.histogram(np.minimum(np.abs(values), ends[name]), _BINS, (0.0, ends[name]))[0]
    found = {}
    for name in names:
        share = np.cumsum(counts[name]) / counts[name].sum()
        place = int(np.searchsorted(share, percentile / 100.0))
        found[name] = ends[name] * min(place + 1, _BINS) / _BINS
    return found


def set_activation_scales(model: onnx.ModelProto, largest: Mapping[str, float]) -> None:
    """Set the scale of each activation named in `largest` so that this value becomes 127."""
    constants = _constants(model)
    scales = {
        node.input[1]: largest[node.input[0]] / _INT8_MAXIMUM
        for node in _quantisers(model, constants)
        if node.input[0] in largest
    }
    _replace_constants(model, {name: np.full_like(constants[name], value) for name, value in scales.items()})


def round_scales_to_fp16(model: onnx.ModelProto) -> None:
    """Round every scale up to an FP16 number, so that Q and DQ agree once the model is FP16.

    Must be called while weights are still quantised in the graph, so that they use the new scales.
    """
    constants = _constants(model)
    names = {node.input[1] for node in model.graph.node if node.op_type.endswith("izeLinear")}
    rounded = {}
    for name in names:
        scale = np.maximum(constants[name].astype(np.float32), np.float32(_SMALLEST_SCALE))
        half = scale.astype(np.float16)
        half = np.where(half.astype(np.float32) < scale, np.nextafter(half, np.float16(np.inf)), half)
        rounded[name] = half.astype(constants[name].dtype)
    _replace_constants(model, rounded)


def before_qdq(producers: Mapping[str, onnx.NodeProto], name: str) -> str:
    """Name of the tensor before Q/DQ; `name` itself if it was not quantised.

    Args:
        producers: node that computes each tensor.
        name: a tensor.
    """
    while name in producers and producers[name].op_type in QDQ:
        name = producers[name].input[0]
    return name


def quantised_weights(model: onnx.ModelProto) -> dict[str, Float32Array]:
    """Initialisers that are quantised, float32 by name. Must be called while they are still floats."""
    stored = {item.name: item for item in model.graph.initializer}
    return {
        node.input[0]: numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in stored
    }


def quantised_share(model: onnx.ModelProto) -> float:
    """Share of the multiply-adds of convolutions and matrix products whose two factors are INT8."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    work = multiply_adds(model)
    quantised = sum(
        work[node.output[0]]
        for node in model.graph.node
        if node.output[0] in work and set(node.input[:2]) <= dequantised
    )
    whole = sum(work.values())
    return quantised / whole if whole else 0.0


def nodes_in_fp32(model: onnx.ModelProto) -> int:
    """Number of nodes that compute in FP32, without casts."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    single = {
        item.name
        for item in (*graph.value_info, *graph.output)
        if item.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    return sum(node.op_type != "Cast" and node.output[0] in single for node in graph.node)


def _activations(
    model: onnx.ModelProto, names: Sequence[str], inputs: Float32Array
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Values of the named tensors, for a few inputs at a time."""
    open_graph = onnx.ModelProto()
    open_graph.CopyFrom(model)
    there = {item.name for item in open_graph.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    # A graph input may be quantised too; it cannot be an output.
    extra = [name for name in dict.fromkeys(names) if name not in there and name in made]
    open_graph.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in extra)
    opened = cpu_session(open_graph.SerializeToString())
    source = opened.get_inputs()[0].name
    asked = [name for name in names if name in made]
    for part in _batches(inputs):
        # An empty list would request every output.
        found = opened.run(asked, {source: part}) if asked else []
        answers = dict(zip(asked, found, strict=True))
        yield [answers.get(name, part) for name in names]


def _batches(inputs: Float32Array) -> Iterator[Float32Array]:
    for first in range(0, len(inputs), _BATCH):
        yield inputs[first : first + _BATCH]


def _quantisers(model: onnx.ModelProto, constants: Mapping[str, object]) -> Iterator[onnx.NodeProto]:
    """QuantizeLinear nodes of activations."""
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            yield node


def _constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer} | {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant"
    }


def _replace_constants(model: onnx.ModelProto, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
    for item in model.graph.initializer:
        if item.name in values:
            item.CopyFrom(numpy_helper.from_array(values[item.name], item.name))
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in values:
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(values[node.output[0]], node.output[0]))
