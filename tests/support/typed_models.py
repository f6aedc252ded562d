"""Small networks in FP32, FP16 and INT8 (Q/DQ), as ONNX files of the size that the tiny pack's grader has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.hardware import NvidiaDriver
from stenosis_trt.engine.trt.api import installed_flavours

SHAPE = (3, 64, 64)
NO_GPU = NvidiaDriver(None, (), "no NVIDIA driver was found")

needs_rtx = pytest.mark.skipif(
    "tensorrt-rtx" not in installed_flavours(),
    reason="TensorRT-RTX is not installed (pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings)",
)


def grader(precision: str, batch: int | str = "batch") -> bytes:
    """A convolution, its mean and a softmax over four classes; (N, 3, 64, 64) to (N, 4), both FP32."""
    node, half = helper.make_node, precision == "fp16"
    weights = (
        np.random.default_rng(5).standard_normal((4, 3, 3, 3)).astype(np.float16 if half else np.float32)
    )
    constants: dict[str, np.ndarray] = {"weights": weights, "axes": np.array([2, 3])}
    source, kernel, nodes = "image", "weights", []
    if half:
        nodes.append(node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16))
        source = "half"
    if precision == "int8":
        constants |= {"scale": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
        for name in ("image", "weights"):
            nodes.append(node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]))
            nodes.append(node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"]))
        source, kernel = "image_dq", "weights_dq"
    nodes.append(node("Conv", [source, kernel], ["maps"], name="conv", pads=[1, 1, 1, 1]))
    nodes.append(node("ReduceMean", ["maps", "axes"], ["means"], keepdims=0))
    if half:
        nodes.append(node("Cast", ["means"], ["single"], to=TensorProto.FLOAT))
    nodes.append(node("Softmax", ["single" if half else "means"], ["out"], axis=1))
    return _model(nodes, constants, [batch, *SHAPE], [batch, 4])


def unknown_operator() -> bytes:
    """A network with a node, `determinant`, that TensorRT does not know."""
    nodes = [helper.make_node("Det", ["image"], ["out"], name="determinant")]
    return _model(nodes, {}, ["batch", *SHAPE], ["batch", 3])


def pack_with_variants(out: Path) -> Pack:
    """The tiny pack with a convolution for a grader, in three precisions."""
    pack = write_tiny_pack(out)
    manifest = json.loads((pack.path / MANIFEST).read_text(encoding="utf-8"))
    entry = manifest["models"]["grader"]
    entry["variants"] = {}
    for precision in ("fp32", "fp16", "int8"):
        data = grader(precision)
        file = "grader.onnx" if precision == "fp32" else f"grader.{precision}.onnx"
        (pack.path / file).write_bytes(data)
        found: dict[str, Any] = {"file": file, "sha256": hashlib.sha256(data).hexdigest()}
        if precision == "fp32":
            entry |= found
        else:
            entry["variants"][precision] = {**found, "gate": {"passed": True}}
    (pack.path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return Pack.load(out)


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    source: list[int | str],
    result: list[int | str],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "typed",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, source)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())
