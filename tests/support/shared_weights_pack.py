"""A tiny pack whose models share weights with their variants, for tests of the file that holds them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import SHARED_WEIGHTS_SCHEMA, Pack
from stenosis_trt.export.packs.shared_weights import share_weights

PRECISIONS = ("fp32", "fp16", "int8")


def with_weights(model: bytes, marker: str) -> bytes:
    """The model, to whose answer it adds the minimum of 1,024 positive FP16 weights, which is 0.

    Args:
        model: one of a tiny pack.
        marker: name of a node, by which two such models differ.
    """
    changed = onnx.load_model_from_string(model)
    graph = changed.graph
    for node in graph.node:
        node.output[:] = ["plain" if name == "out" else name for name in node.output]
    weights = np.arange(1024, dtype=np.float16)
    graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    graph.node.extend(
        [
            helper.make_node("Cast", ["weights"], ["single"], to=TensorProto.FLOAT, name=marker),
            helper.make_node("ReduceMin", ["single"], ["zero"], keepdims=0),
            helper.make_node("Add", ["plain", "zero"], ["out"]),
        ]
    )
    onnx.checker.check_model(changed)
    return bytes(changed.SerializeToString())


def write_shared_pack(folder: Path) -> Pack:
    """Write the pack; each model has variants that passed the gate: "fp16", which is FP32, and "int8"."""
    tiny = write_tiny_pack(folder)
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    content["schema"] = SHARED_WEIGHTS_SCHEMA
    for name, entry in content["models"].items():
        whole = {precision: with_weights(tiny.read_model(name), precision) for precision in PRECISIONS}
        whole["int8"] = in_int8(whole["int8"], tiny.models[name].input.channels)
        files, weights = share_weights(whole, f"{name}.weights")
        hashes = {precision: hashlib.sha256(data).hexdigest() for precision, data in whole.items()}
        (folder / f"{name}.onnx").write_bytes(files["fp32"])
        (folder / f"{name}.weights").write_bytes(weights)
        entry["sha256"] = hashes["fp32"]
        entry["weights"] = {"file": f"{name}.weights", "sha256": hashlib.sha256(weights).hexdigest()}
        entry["variants"] = {}
        for precision in PRECISIONS[1:]:
            file = f"{name}.{precision}.onnx"
            (folder / file).write_bytes(files[precision])
            entry["variants"][precision] = {
                "file": file,
                "sha256": hashes[precision],
                "metrics": {"quantised_share": 1.0} if precision == "int8" else {},
                "gate": {"passed": True},
            }
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    return Pack.load(folder)


def in_int8(model: bytes, channels: int) -> bytes:
    """The model behind a convolution in INT8 that leaves 256 steps of its input."""
    changed = onnx.load_model_from_string(model)
    graph = changed.graph
    for node in graph.node:
        node.input[:] = ["steps" if name == "image" else name for name in node.input]
    constants = {
        "image_scale": np.array(1 / 64, np.float32),
        "image_zero": np.array(0, np.int8),
        "filter": np.full((channels, 1, 1, 1), 64, np.int8),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "image_scale", "image_zero"], ["image_q"]),
        helper.make_node("DequantizeLinear", ["image_q", "image_scale", "image_zero"], ["image_dq"]),
        helper.make_node("DequantizeLinear", ["filter", "image_scale", "image_zero"], ["filter_dq"]),
        helper.make_node("Conv", ["image_dq", "filter_dq"], ["steps"], group=channels),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(changed)
    return bytes(changed.SerializeToString())
