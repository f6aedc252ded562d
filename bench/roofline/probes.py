"""Small ONNX models whose multiply-adds measure a processor's peak: a matrix product and convolutions.

The INT8 ones have Q/DQ around every factor and behind the result, the form in which runtimes recognise them.
They need the package `onnx`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

_OPSET, _IR_VERSION = 18, 9
_SCALE = 0.02


@dataclass(frozen=True)
class Probe:
    """A model of one operator.

    Attributes:
        name: operator and shape.
        data: the ONNX file.
        shape: of its input, float32.
        multiply_adds: of one run.
    """

    name: str
    data: bytes
    shape: tuple[int, ...]
    multiply_adds: int


@dataclass(frozen=True)
class _Convolution:
    batch: int
    channels: int
    size: int
    kernel: int


_MATRIX = 1024
_CONVOLUTIONS = (_Convolution(8, 64, 56, 3), _Convolution(8, 128, 28, 3), _Convolution(8, 256, 28, 1))
"""Shapes as in residual networks."""


def probes(int8: bool) -> tuple[Probe, ...]:
    """Return the probes, in FP32 or in INT8 with Q/DQ."""
    return (_matrix_product(int8), *(_convolution(item, int8) for item in _CONVOLUTIONS))


def _matrix_product(int8: bool) -> Probe:
    from onnx import helper

    size = _MATRIX
    node = helper.make_node("MatMul", ["a", "b"], ["product"])
    shape, weights = (size, size), (size, size)
    return Probe(f"matrix product {size}³", _model(node, shape, weights, int8), shape, size**3)


def _convolution(item: _Convolution, int8: bool) -> Probe:
    from onnx import helper

    pad = item.kernel // 2
    node = helper.make_node("Conv", ["a", "b"], ["product"], pads=[pad] * 4)
    shape = (item.batch, item.channels, item.size, item.size)
    weights = (item.channels, item.channels, item.kernel, item.kernel)
    name = f"convolution {item.kernel}×{item.kernel}, {item.channels} channels, {item.batch} × {item.size}²"
    work = item.batch * item.size**2 * item.channels**2 * item.kernel**2
    return Probe(name, _model(node, shape, weights, int8), shape, work)


def _model(node: onnx.NodeProto, shape: Sequence[int], weights: Sequence[int], int8: bool) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    if int8:
        constants: dict[str, np.ndarray] = {
            "weights": rng.integers(-127, 128, weights).astype(np.int8),
            "scale": np.array(_SCALE, np.float32),
            "zero": np.array(0, np.int8),
            "unsigned_zero": np.array(128, np.uint8),
        }
        quantise = ["scale", "unsigned_zero"]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", *quantise], ["x_q"]),
            helper.make_node("DequantizeLinear", ["x_q", *quantise], ["a"]),
            helper.make_node("DequantizeLinear", ["weights", "scale", "zero"], ["b"]),
            node,
            helper.make_node("QuantizeLinear", ["product", *quantise], ["y_q"]),
            helper.make_node("DequantizeLinear", ["y_q", *quantise], ["y"]),
        ]
    else:
        constants = {"b": rng.standard_normal(weights).astype(np.float32)}
        nodes = [
            helper.make_node("Identity", ["x"], ["a"]),
            node,
            helper.make_node("Identity", ["product"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())
