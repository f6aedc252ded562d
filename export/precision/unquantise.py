"""Removal of Q/DQ from single nodes of an INT8 model, which then run in FP16 (or FP32).

Q and DQ before the node's inputs are removed and its weights replaced by the original values. Other nodes
keep their scales, so no new calibration is needed.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.export.errors import PrecisionError
from stenosis_trt.export.precision.convert import ConvertedModel

_UNQUANTISED = "_unquantised"


def unquantise_nodes(converted: ConvertedModel, nodes: Collection[str]) -> onnx.ModelProto:
    """Return a copy of an INT8 model in which some nodes take no quantised inputs.

    Args:
        converted: result of `to_int8`, with the original weights.
        nodes: first outputs of the nodes. Their outputs are still quantised for consumers that are not named.

    Raises:
        PrecisionError: there is no such node, or its original weights are not known.
    """
    model = onnx.load_model_from_string(converted.data)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    stored = {item.name: item for item in graph.initializer}
    missing = set(nodes) - set(makers)
    if missing:
        raise PrecisionError(
            f"The model has no node that gives {', '.join(sorted(missing))}.",
            "Find its blocks again with quantised_blocks.",
        )
    restored: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        if node.output[0] not in nodes:
            continue
        for place, name in enumerate(node.input):
            dequantiser = makers.get(name)
            if dequantiser is None or dequantiser.op_type != "DequantizeLinear":
                continue
            quantiser = makers.get(dequantiser.input[0])
            if quantiser is not None and quantiser.op_type == "QuantizeLinear":
                node.input[place] = quantiser.input[0]
            else:
                node.input[place] = dequantiser.input[0] + _UNQUANTISED
                kind = stored[dequantiser.input[1]].data_type
                restored[node.input[place]] = _original_weight(converted, dequantiser.input[0], kind)
    graph.initializer.extend(restored.values())
    _remove_unused(model)
    return model


def _original_weight(converted: ConvertedModel, name: str, kind: int) -> onnx.TensorProto:
    weights: Float32Array | None = converted.original_weights.get(name)
    if weights is None:
        raise PrecisionError(
            f"The original weights of {name} are not known.", "Convert the model again with to_int8."
        )
    dtype: np.dtype = helper.tensor_dtype_to_np_dtype(kind)
    return numpy_helper.from_array(weights.astype(dtype), name + _UNQUANTISED)


def _remove_unused(model: onnx.ModelProto) -> None:
    """Remove nodes, initialisers and shapes that nothing uses any more."""
    graph = model.graph
    used = {item.name for item in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.isdisjoint(node.output):
            continue
        kept.append(node)
        used.update(node.input)
    weights = [item for item in graph.initializer if item.name in used]
    shapes = [item for item in graph.value_info if item.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)
    graph.value_info.extend(shapes)
