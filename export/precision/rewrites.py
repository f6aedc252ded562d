"""Rewrites of an INT8 graph that let TensorRT fuse more layers. Their accuracy is checked by the gate.

The one rewrite removes squeeze-excite branches (Hu et al., CVPR 2018) from INT8. ModelOpt quantises the
pooled values, the weights of both small layers and the factors. The branches are less than 1 % of the
multiply-adds, but their Q/DQ prevent fusions, and an 8-bit factor adds an error to each pixel of its channel.
Without them, the SiLU before the pooling fuses with it, and the SiLU in the branch with the convolution
before.

Tried without effect on TensorRT-RTX's number of layers: the 1×1 convolutions of the branch as matrix
products, and depthwise convolutions outside of INT8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.export.onnx.graphs import QDQ, before_qdq, quantised_share
from stenosis_trt.export.precision.convert import ConvertedModel, with_error_metrics
from stenosis_trt.export.precision.unquantise import unquantise_nodes

REWRITE_MODES = ("auto", "on", "off")
""""auto": rewrite, and fall back to no rewrite if the gate fails; "on": rewrite; "off": do not."""

_POOLINGS = ("ReduceMean", "GlobalAveragePool")
_BRANCH_OPS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Sigmoid", "HardSigmoid", "Relu", "HardSwish", "Clip")
_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Identity")
_MAX_NODES = 16
"""Nodes of a branch without Q/DQ; EfficientNet-B5's have 7. Longer branches are not squeeze-excite."""


@dataclass(frozen=True)
class RewrittenModel(ConvertedModel):
    """INT8 model whose squeeze-excite branches are not INT8; `without_rewrite` is the original INT8 model."""

    without_rewrite: ConvertedModel = field(kw_only=True, repr=False)


def rewrite_squeeze_excite(data: bytes, converted: ConvertedModel, inputs: Float32Array) -> ConvertedModel:
    """Remove the squeeze-excite branches from INT8; returns `converted` unchanged if there are none.

    Args:
        data: the FP32 model.
        converted: result of `to_int8`.
        inputs: calibration inputs, float32 (N, C, H, W), on which the error is measured.

    Raises:
        PrecisionError: the rewritten model returns values that are not finite.
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
    """Find the squeeze-excite branches, from the pooling to the product with the pooled tensor.

    Returns:
        For each branch the first outputs of its nodes, without Q/DQ.
    """
    graph = _Graph.of(model)
    branches = (_branch(graph, node) for node in model.graph.node if node.op_type in _POOLINGS)
    return [branch for branch in branches if branch]


@dataclass(frozen=True)
class _Graph:
    """Producer of each tensor (`producers`) and its consumers (`consumers`), with Q/DQ as nodes."""

    producers: Mapping[str, onnx.NodeProto]
    consumers: Mapping[str, Sequence[onnx.NodeProto]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Graph:
        producers = {name: node for node in model.graph.node for name in node.output}
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        return cls(producers, consumers)

    def origin(self, name: str) -> str:
        """The tensor before Q/DQ."""
        return before_qdq(self.producers, name)

    def users(self, name: str) -> Iterator[onnx.NodeProto]:
        """Consumers of a tensor, looking through Q/DQ."""
        for node in self.consumers.get(name, ()):
            if node.op_type in QDQ:
                yield from self.users(node.output[0])
            else:
                yield node


def _branch(graph: _Graph, pooling: onnx.NodeProto) -> tuple[str, ...]:
    """First outputs of the branch that starts with a pooling; () if it is not a squeeze-excite branch."""
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
            elif node.op_type in (*_BRANCH_OPS, *_RESHAPING) and len(found) <= _MAX_NODES:
                waiting.append(node)
            else:
                return ()
    layers = sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in found.values())
    return tuple(found) if joined and layers else ()
