"""An ONNX graph as a PyTorch module: the same operators and weights, run by PyTorch.

Models of packs are ONNX files, which PyTorch cannot run. This module translates the operators of this
project's networks into calls of PyTorch in a `torch.fx` graph, which runs eagerly and can be compiled. As
PyTorch users write it, x · sigmoid(x) becomes SiLU.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import fx

_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class UnsupportedGraph(Exception):
    """An ONNX graph that holds something that is not translated. The message is one sentence."""


def graph_module(model: bytes) -> fx.GraphModule:
    """Translate an ONNX model with one input and one output.

    Args:
        model: the ONNX file.

    Returns:
        A module from the input to the output; its weights are parameters.

    Raises:
        UnsupportedGraph: an operator, or an attribute of one, is not translated.
        ImportError: torch or onnx is not installed.
    """
    import onnx
    import torch
    from torch import fx, nn

    graph = onnx.load_model_from_string(model).graph
    translation = _Translation(nn.Module(), fx.Graph())
    for item in graph.initializer:
        translation.constants[item.name] = torch.from_numpy(onnx.numpy_helper.to_array(item).copy())
    translation.nodes[graph.input[0].name] = translation.graph.placeholder("image")
    for node in graph.node:
        translation.add(node, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})
    translation.graph.output(translation.nodes[graph.output[0].name])
    _fuse_silu(translation.graph)
    return fx.GraphModule(translation.root, translation.graph).eval()


class _Translation:
    """The graph as far as it is translated: values that are computed, and constants."""

    def __init__(self, root: torch.nn.Module, graph: fx.Graph) -> None:
        self.root, self.graph = root, graph
        self.nodes: dict[str, fx.Node] = {}
        self.constants: dict[str, torch.Tensor] = {}

    def add(self, node: Any, attributes: Mapping[str, Any]) -> None:
        """Translate one node. Casts of constants are done here, once."""
        import torch

        (output,) = node.output
        if node.op_type == "Cast":
            if attributes["to"] != 1:
                raise UnsupportedGraph("A Cast to another type than float32 is not translated.")
            if node.input[0] in self.constants:
                self.constants[output] = self.constants[node.input[0]].to(torch.float32)
                return
        translate = _OPERATORS.get(node.op_type)
        if translate is None:
            raise UnsupportedGraph(f"The operator {node.op_type} is not translated.")
        function, arguments = translate(self, list(node.input), attributes)
        self.nodes[output] = self.graph.call_function(function, arguments)

    def value(self, name: str) -> fx.Node | None:
        """A computed value, or a constant as a parameter of the module; None for an input left out."""
        import torch

        if not name:
            return None
        if name not in self.nodes:
            parameter = f"constant_{len(self.nodes)}"
            tensor = self.constants[name]
            self.root.register_parameter(parameter, torch.nn.Parameter(tensor, requires_grad=False))
            self.nodes[name] = self.graph.get_attr(parameter)
        return self.nodes[name]

    def numbers(self, name: str) -> Any:
        """A constant as Python numbers, for an argument that PyTorch takes as such."""
        if name not in self.constants:
            raise UnsupportedGraph("A shape, axis or scale that is computed is not translated.")
        return self.constants[name].tolist()


def _fuse_silu(graph: fx.Graph) -> None:
    """Replace x · sigmoid(x) by SiLU where the sigmoid is used nowhere else."""
    import torch
    from torch.nn import functional

    for node in list(graph.nodes):
        if node.target is not operator.mul:
            continue
        for gate, x in (node.args, node.args[::-1]):
            if getattr(gate, "target", None) is torch.sigmoid and gate.args[0] is x and len(gate.users) == 1:
                with graph.inserting_before(node):
                    node.replace_all_uses_with(graph.call_function(functional.silu, (x,)))
                graph.erase_node(node)
                graph.erase_node(gate)
                break
    graph.lint()


def _conv(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    from torch.nn import functional

    pads = attributes.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise UnsupportedGraph("A Conv with other padding at its start than at its end is not translated.")
    bias = graph.value(inputs[2]) if len(inputs) > 2 else None
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    x, weight = graph.value(inputs[0]), graph.value(inputs[1])
    shape = (tuple(strides), tuple(pads[:2]), tuple(dilations), attributes.get("group", 1))
    return functional.conv2d, (x, weight, bias, *shape)


def _gemm(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    from torch.nn import functional

    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    if not plain or attributes.get("transA", 0) or not attributes.get("transB", 0):
        raise UnsupportedGraph("A Gemm that is not a linear layer is not translated.")
    return functional.linear, tuple(graph.value(name) for name in inputs)


def _resize(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    from torch.nn import functional

    scales = graph.numbers(inputs[2])
    wanted = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    same = all(attributes.get(key) == value for key, value in wanted.items())
    if not same or scales[:2] != [1.0, 1.0]:
        raise UnsupportedGraph("A Resize that does not repeat pixels is not translated.")
    return functional.interpolate, (graph.value(inputs[0]), None, tuple(scales[2:]), "nearest")


def _pool(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    from torch.nn import functional

    if any(attributes.get("pads", [])) or attributes.get("ceil_mode", 0):
        raise UnsupportedGraph("An AveragePool with padding is not translated.")
    kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
    return functional.avg_pool2d, (graph.value(inputs[0]), tuple(kernel), tuple(strides))


def _mean(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    import torch

    axes = graph.numbers(inputs[1]) if len(inputs) > 1 else attributes["axes"]
    return torch.mean, (graph.value(inputs[0]), tuple(axes), bool(attributes.get("keepdims", 1)))


def _global_mean(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    import torch

    return torch.mean, (graph.value(inputs[0]), (2, 3), True)


def _softmax(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    import torch

    return torch.softmax, (graph.value(inputs[0]), attributes.get("axis", -1))


def _unsqueeze(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    import torch

    (axis,) = graph.numbers(inputs[1])
    return torch.unsqueeze, (graph.value(inputs[0]), axis)


def _expand(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
    return _repeat, (graph.value(inputs[0]), tuple(graph.numbers(inputs[1])))


def _repeat(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Repeat along axes of size 1, as ONNX's Expand does."""
    import torch

    return x * torch.ones(shape, dtype=x.dtype, device=x.device)


def _identity(x: torch.Tensor) -> torch.Tensor:
    return x


def _plain(name: str) -> Callable[[_Translation, list[str], Mapping[str, Any]], _Call]:
    """An operator without attributes that is a function of `operator` or of torch."""

    def translate(graph: _Translation, inputs: list[str], attributes: Mapping[str, Any]) -> _Call:
        import torch

        function = getattr(operator, name, None) or getattr(torch, name)
        return function, tuple(graph.value(item) for item in inputs)

    return translate


_OPERATORS: Mapping[str, Callable[[_Translation, list[str], Mapping[str, Any]], _Call]] = {
    "Abs": _plain("abs"),
    "Add": _plain("add"),
    "AveragePool": _pool,
    "Cast": lambda graph, inputs, _: (_identity, (graph.value(inputs[0]),)),
    "Conv": _conv,
    "Div": _plain("truediv"),
    "Expand": _expand,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_mean,
    "Mul": _plain("mul"),
    "ReduceMean": _mean,
    "Relu": _plain("relu"),
    "Resize": _resize,
    "Sigmoid": _plain("sigmoid"),
    "Softmax": _softmax,
    "Sub": _plain("sub"),
    "Unsqueeze": _unsqueeze,
}
