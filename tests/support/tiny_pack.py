"""A pack of three tiny ONNX models that answer at once, for tests of everything around the models.

The level and cord models answer with the image itself, scaled down: a test that draws bright spots sees
them come back as keypoints. The grader's grade grows with the brightness of its region. The one with a
class for what is unlike its training takes a middle brightness, as noise has, for that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stenosis_trt.engine.packs.models import OTHER_CLASS, InputSpec, OutputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LANDMARKS, LEVELS
from stenosis_trt.export.packs.writer import ModelContent, PackContent, write_pack

CORD_NAMES = ("anterior", "posterior", "left", "right")
GRADES = ("0", "1", "2", "3")


def input_spec(size: int, spacing: float, channels: int, plane: str, offset: float = 0.0) -> InputSpec:
    """A square input with a plain normalisation."""
    source = "neighbours" if channels > 1 else "slice"
    return InputSpec(
        size,
        size,
        spacing,
        channels,
        source,
        plane,
        (0.0, 100.0),
        (0.0,) * channels,
        (1.0,) * channels,
        (offset, 0.0),
    )


def _model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: list[object]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", None, None, None])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _echo(points: int, stride: int) -> bytes:
    """Mean-pool the image by the stride and give the same map for every point."""
    nodes = [
        helper.make_node(
            "AveragePool", ["image"], ["small"], kernel_shape=[stride, stride], strides=[stride, stride]
        ),
        helper.make_node("Expand", ["small", "shape"], ["out"]),
    ]
    return _model(nodes, {"shape": np.array([1, points, 1, 1])}, ["batch", points, None, None])


def _brightness(centres: tuple[float, ...]) -> bytes:
    """Softmax of 20 · (−|brightness − centre|), a class for each centre."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("ReduceMean", ["means", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Sub", ["column", "centres"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Mul", ["distance", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["out"], axis=1),
    ]
    constants = {
        "axes": np.array([1, 2, 3]),
        "last": np.array([1]),
        "centres": np.array([centres], dtype=np.float32),
        "scale": np.array(-20.0, dtype=np.float32),
    }
    return _model(nodes, constants, ["batch", len(centres)])


def invalid_for_dark_images(model: bytes) -> bytes:
    """The model, whose whole answer is NaN where an input of the batch has a mean below 0.2.

    Noise as packs are tried on is brighter.
    """
    return _invalid_where(
        model,
        [
            helper.make_node("ReduceMean", ["image", "pixels"], ["brightness"], keepdims=0),
            helper.make_node("ReduceMin", ["brightness"], ["darkest"], keepdims=0),
            helper.make_node("Less", ["darkest", "dark"], ["is_invalid"]),
        ],
        {"pixels": np.array([1, 2, 3]), "dark": np.array(0.2, np.float32)},
    )


def invalid_last_of(model: bytes, batch: int) -> bytes:
    """The model, whose answer to the last input of a batch of this size is NaN."""
    dimensions = len(onnx.load_model_from_string(model).graph.output[0].type.tensor_type.shape.dim)
    return _invalid_where(
        model,
        [
            helper.make_node("Shape", ["image"], ["size"], start=0, end=1),
            helper.make_node("Squeeze", ["size"], ["count"]),
            helper.make_node("Range", ["zero", "count", "one"], ["numbers"]),
            helper.make_node("Equal", ["numbers", "last_number"], ["is_last"]),
            helper.make_node("Equal", ["count", "chosen"], ["is_chosen"]),
            helper.make_node("And", ["is_last", "is_chosen"], ["is_invalid_item"]),
            helper.make_node("Reshape", ["is_invalid_item", "as_output"], ["is_invalid"]),
        ],
        {
            "zero": np.array(0),
            "one": np.array(1),
            "last_number": np.array(batch - 1),
            "chosen": np.array(batch),
            "as_output": np.array([-1] + [1] * (dimensions - 1)),
        },
    )


def _invalid_where(model: bytes, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    """The model, whose answer is NaN where `nodes` make "is_invalid" true."""
    changed = onnx.load_model_from_string(model)
    graph = changed.graph
    for node in graph.node:
        node.output[:] = ["valid" if name == "out" else name for name in node.output]
    graph.node.extend([*nodes, helper.make_node("Where", ["is_invalid", "not_a_number", "valid"], ["out"])])
    values = {**constants, "not_a_number": np.array(np.nan, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    onnx.checker.check_model(changed)
    return bytes(changed.SerializeToString())


def write_tiny_pack(
    out: Path,
    other: bool = False,
    maximum_other: float | None = None,
    invalid: str = "",
    invalid_last: tuple[str, int] | None = None,
    landmarks: bool = False,
) -> Pack:
    """Write the pack to `out`; with `other`, its grader has the fifth class, and this limit of it.

    With `landmarks`, its levels model has ten maps.

    The model called `invalid` answers dark images with NaN, and the one named in `invalid_last` does so for
    the last input of a batch of the size given there.
    """
    centres = (0.0, 1 / 3, 2 / 3, 1.0)
    level_names = (*LEVELS, *LANDMARKS) if landmarks else LEVELS
    models = {
        "levels": ModelContent(
            _echo(len(level_names), 4),
            "fp32",
            input_spec(256, 1.0, 1, "sagittal"),
            OutputSpec("heatmaps", level_names, 4, 0.3),
        ),
        "grader": ModelContent(
            _brightness((*centres, 0.5) if other else centres),
            "fp32",
            input_spec(64, 0.75, 3, "sagittal", 6.0),
            OutputSpec("classes", (*GRADES, OTHER_CLASS) if other else GRADES, 1, 0.5, maximum_other),
        ),
        "cord": ModelContent(
            _echo(4, 2), "fp32", input_spec(128, 0.5, 1, "axial"), OutputSpec("heatmaps", CORD_NAMES, 2, 0.3)
        ),
    }
    if invalid:
        content = models[invalid]
        models[invalid] = replace(content, data=invalid_for_dark_images(content.data))
    if invalid_last:
        name, batch = invalid_last
        models[name] = replace(models[name], data=invalid_last_of(models[name].data, batch))
    return write_pack(out, PackContent("tiny", "1", "Apache-2.0", "tests only", {}, models))
