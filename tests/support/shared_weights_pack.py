"""A tiny pack whose models share weights with their FP16 variants, for tests of the file that holds them."""

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

PRECISIONS = ("fp32", "fp16")


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
    """Write the pack; each model has a variant "fp16" that passed the gate."""
    tiny = write_tiny_pack(folder)
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    content["schema"] = SHARED_WEIGHTS_SCHEMA
    for name, entry in content["models"].items():
        whole = {precision: with_weights(tiny.read_model(name), precision) for precision in PRECISIONS}
        files, weights = share_weights(whole, f"{name}.weights")
        hashes = {precision: hashlib.sha256(data).hexdigest() for precision, data in whole.items()}
        (folder / f"{name}.onnx").write_bytes(files["fp32"])
        (folder / f"{name}.fp16.onnx").write_bytes(files["fp16"])
        (folder / f"{name}.weights").write_bytes(weights)
        entry["sha256"] = hashes["fp32"]
        entry["variants"] = {
            "fp16": {"file": f"{name}.fp16.onnx", "sha256": hashes["fp16"], "gate": {"passed": True}}
        }
        entry["weights"] = {"file": f"{name}.weights", "sha256": hashlib.sha256(weights).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    return Pack.load(folder)
