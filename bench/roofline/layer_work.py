"""Multiply-adds and memory traffic of each operator of an ONNX graph. Needs the package `onnx`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stenosis_trt.bench.speed.roofline import LayerWork, ModelWork
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.pack import Pack

if TYPE_CHECKING:
    import onnx

_MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOAT, _FLOAT16, _UNDEFINED = 1, 10, 0
"""Of TensorProto.DataType."""
_FLOATS = (_FLOAT, _FLOAT16)
_NO_COPY = ("Constant", "Identity", "Shape", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that neither compute nor copy: their output shares the memory of their input."""


def model_work(pack: Pack, name: str, batch: int) -> ModelWork:
    """Work of a pack's FP32 model at a batch size.

    Raises:
        PackError: shapes cannot be inferred from the graph.
    """
    import onnx

    spec = pack.models[name]
    model = fold_fp16_weights(onnx.load_model_from_string(pack.read_model(name)))
    layers = model_layers(model, (1, *spec.input_shape), name)
    output = spec.output
    pixels = 1
    if output.kind == "heatmaps":
        pixels = (spec.input.height // output.stride) * (spec.input.width // output.stride)
    variant = spec.variants.get("int8")
    return ModelWork(
        name,
        batch,
        int(np.prod(spec.input_shape)),
        len(output.names) * pixels,
        layers,
        None if variant is None else variant.metrics.get("quantised_share"),
    )


def model_layers(model: onnx.ModelProto, shape: tuple[int, ...], name: str) -> tuple[LayerWork, ...]:
    """Every operator that computes or copies, in graph order.

    Args:
        model: FP32, with one input.
        shape: (1, C, H, W) of the input.
        name: name of the model in messages.

    Raises:
        PackError: shapes cannot be inferred from the graph.
    """
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    if len(dims) != len(shape):
        raise PackError(
            f"The input of the model {name} has {len(dims)} dimensions.",
            "Export it with batch, channels and size.",
        )
    for dim, value in zip(dims, shape, strict=True):
        dim.dim_value = value
    del fixed.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    sizes = _float_sizes(inferred)
    weights = {
        item.name: int(np.prod(item.dims)) for item in inferred.initializer if item.data_type in _FLOATS
    }
    known = sizes.keys() | _non_float_tensors(inferred)
    missing = [out for node in inferred.node for out in node.output if out and out not in known]
    if missing:
        raise PackError(
            f"The shape of {missing[0]!r} in the model {name} cannot be inferred from its graph.",
            "Export it with fixed sizes, but for the batch.",
        )
    work = multiply_adds(fixed)
    return tuple(
        LayerWork(
            node.output[0],
            node.op_type,
            work.get(node.output[0], 0),
            sum(weights.get(item, 0) for item in node.input),
            sum(sizes.get(item, 0) for item in node.input),
            sum(sizes.get(item, 0) for item in node.output),
        )
        for node in inferred.node
        if node.op_type not in _NO_COPY
    )


def fold_fp16_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace weights stored as FP16 and cast to FP32 (see `from_torch`) by FP32 weights.

    ModelOpt takes initialisers for weights, and the output of a cast for an activation.
    """
    import onnx
    from onnx import numpy_helper

    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    stored = {item.name: item for item in graph.initializer if item.data_type == _FLOAT16}
    kept = []
    for node in graph.node:
        target = next((item.i for item in node.attribute if item.name == "to"), None)
        if node.op_type != "Cast" or node.input[0] not in stored or target != _FLOAT:
            kept.append(node)
            continue
        values = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    used = {name for node in kept for name in node.input}
    weights = [item for item in graph.initializer if item.name in used]
    nodes = [*kept]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    return folded


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds of each convolution and matrix product for one input, by the node's first output."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(fixed).graph
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes.update({item.name: list(item.dims) for item in graph.initializer})
    return {
        node.output[0]: _multiply_adds(node, shapes) for node in graph.node if node.op_type in _MULTIPLYING
    }


def _multiply_adds(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    if node.op_type in ("Conv", "ConvTranspose"):
        # Each output of a convolution, or input of a transposed one, meets each weight of a filter.
        place = node.output[0] if node.op_type == "Conv" else node.input[0]
        return int(np.prod(shapes[place]) * np.prod(shapes[node.input[1]][1:]))
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return int(np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if transposed else -1])


def _float_sizes(graph: onnx.GraphProto) -> Mapping[str, int]:
    """Number of elements of each floating-point activation of known shape."""
    found = {}
    for item in (*graph.input, *graph.value_info, *graph.output):
        tensor = item.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim]
        if tensor.elem_type in _FLOATS and all(dims):
            found[item.name] = int(np.prod(dims))
    return found


def _non_float_tensors(graph: onnx.GraphProto) -> set[str]:
    """Names of tensors that are not floating point, such as shapes and indices."""
    return {
        item.name
        for item in graph.value_info
        if item.type.tensor_type.elem_type not in (*_FLOATS, _UNDEFINED)
    }
