"""Rewrites of an INT8 graph that let TensorRT fuse more of it. Tried behind the gate, like all of INT8.

There is one: squeeze-excite branches (Hu et al., CVPR 2018) are taken out of INT8. ModelOpt quantises what is
pooled, the weights of both small layers and the factors themselves. All that is less than a hundredth of the
multiply-adds, but each Q/DQ keeps layers apart that would else be one, and a factor rounded to eight bits is
an error on every pixel of its channel. Without them the SiLU before the pooling is one layer with it, and the
SiLU within the branch one with the convolution before.

What was looked at and is not done, since TensorRT-RTX's builder ends with as many layers: the branch's 1×1
convolutions as matrix products, and depthwise convolutions out of INT8 as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from stenosis_trt.export.onnx.graphs import Float32Array, quantised_share
from stenosis_trt.export.precision.convert import ConvertedModel, with_error_metrics
from stenosis_trt.export.precision.unquantise import unquantise_nodes

REWRITE_MODES = ("auto", "on", "off")
"""Of INT8: with the rewrites, and without where the gate refuses those; with them; without."""

_POOLINGS = ("ReduceMean", "GlobalAveragePool")
_WITHIN = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Sigmoid", "HardSigmoid", "Relu", "HardSwish", "Clip")
_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Identity")
_QDQ = ("QuantizeLinear", "DequantizeLinear")
_LONGEST = 16
"""Nodes of a branch, Q/DQ not counted. B5's have seven; what is longer is no squeeze-excite."""


@dataclass(frozen=True)
class RewrittenModel(ConvertedModel):
    """An INT8 model with its squeeze-excite branches out of INT8. `without_rewrite` is the model with
    them in it."""

    without_rewrite: ConvertedModel = field(kw_only=True, repr=False)


def rewrite_squeeze_excite(data: bytes, converted: ConvertedModel, inputs: Float32Array) -> ConvertedModel:
    """An INT8 model with the rewrites, as `RewrittenModel`; the model itself where there is nothing to
    rewrite.

    Args:
        data: the model in FP32.
        converted: as `to_int8` made it.
        inputs: calibration inputs, float32 (N, C, H, W), to measure the error on.

    Raises:
        PrecisionError: the rewritten model answers with values that are not finite.
    """
    model = onnx.load_model_from_string(converted.data)
    branches = squeeze_excite_branches(model)
    if not branches:
        return converted
    lighter = unquantise_nodes(converted, {name for branch in branches for name in branch})
    figures = {
        **converted.metrics,
        "quantised_share": quantised_share(lighter),
        "squeeze_excite_left_out": float(len(branches)),
    }
    measured = with_error_metrics(data, lighter, inputs, {})
    return RewrittenModel(
        measured.data, {**figures, **measured.metrics}, converted.original_weights, without_rewrite=converted
    )


def squeeze_excite_branches(model: onnx.ModelProto) -> list[tuple[str, ...]]:
    """The squeeze-excite branches of a graph, from the pooling to the product with what was pooled.

    Returns:
        For each branch the first outputs of its nodes, Q/DQ left out.
    """
    graph = _Graph.of(model)
    branches = (_branch(graph, node) for node in model.graph.node if node.op_type in _POOLINGS)
    return [branch for branch in branches if branch]


@dataclass(frozen=True)
class _Graph:
    """`makers` has the node that gives a tensor, `takers` those that take it; neither stops at Q/DQ."""

    makers: Mapping[str, onnx.NodeProto]
    takers: Mapping[str, Sequence[onnx.NodeProto]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Graph:
        makers = {name: node for node in model.graph.node for name in node.output}
        takers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                takers.setdefault(name, []).append(node)
        return cls(makers, takers)

    def origin(self, name: str) -> str:
        """The tensor that was quantised and dequantised to this one; itself where it was not."""
        while name in self.makers and self.makers[name].op_type in _QDQ:
            name = self.makers[name].input[0]
        return name

    def users(self, name: str) -> Iterator[onnx.NodeProto]:
        """The nodes that take a tensor, or what Q/DQ make of it."""
        for node in self.takers.get(name, ()):
            if node.op_type in _QDQ:
                yield from self.users(node.output[0])
            else:
                yield node


def _branch(graph: _Graph, pooling: onnx.NodeProto) -> tuple[str, ...]:
    """The branch that begins with a pooling; () where it is none, such as the one before a classifier."""
    pooled = graph.origin(pooling.input[0])
    found = {pooling.output[0]: pooling}
    waiting, joined = [pooling], False
    while waiting:
        for node in graph.users(waiting.pop(0).output[0]):
            if node.output[0] in found:
                continue
            found[node.output[0]] = node
            if node.op_type == "Mul" and pooled in map(graph.origin, node.input):
                joined = True
            elif node.op_type in (*_WITHIN, *_RESHAPING) and len(found) <= _LONGEST:
                waiting.append(node)
            else:
                return ()
    layers = sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in found.values())
    return tuple(found) if joined and layers else ()
