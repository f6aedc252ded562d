"""Emulation of FP16 arithmetic on a CPU.

ONNX Runtime has few FP16 operators for CPUs: it computes in FP32 and removes the casts between operators, so
an FP16 model returns what its FP32 original returns. Here the graph is rewritten in FP32, and each tensor
that was FP16 is rounded by a pair of casts that the runtime keeps.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper


def emulate_fp16(data: bytes) -> bytes:
    """Return an ONNX model that computes in FP32 and rounds every FP16 tensor of the given model to FP16.

    Values beyond the range of FP16 become infinite, as on a GPU. A model without FP16 tensors keeps its
    outputs.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data))
    graph = model.graph
    half = {
        item.name
        for item in (*graph.value_info, *graph.output, *graph.input)
        if item.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    for item in graph.initializer:
        if item.data_type == TensorProto.FLOAT16:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype("float32"), item.name))
    nodes = [made for node in graph.node for made in _to_fp32(node, half)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _to_fp32(node: onnx.NodeProto, half: set[str]) -> list[onnx.NodeProto]:
    """The node in FP32, followed by casts that round each of its FP16 outputs."""
    single = onnx.NodeProto()
    single.CopyFrom(node)
    for attribute in single.attribute:
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(attribute.t).astype("float32")
            attribute.t.CopyFrom(numpy_helper.from_array(values))
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
    made = [single]
    if node.op_type == "Constant":
        return made
    for place, name in enumerate(node.output):
        if name in half:
            single.output[place] = f"{name}_exact"
            made += [
                helper.make_node("Cast", [f"{name}_exact"], [f"{name}_half"], to=TensorProto.FLOAT16),
                helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT),
            ]
    return made
