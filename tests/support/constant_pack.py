"""A pack whose models answer the same for every image: a spine and a cord that no study has, at no cost.

Every study with a cervical field of view is graded with it, so that a test of what is around the models need
not compute networks. The answer is strongest for the images in the middle of a batch, as that to a
mid-sagittal slice is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_pack import CORD_NAMES, GRADES, input_spec

from stenosis_trt.engine.packs.models import OutputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.export.packs.writer import ModelContent, PackContent, write_pack

_LEVELS_STRIDE, _CORD_STRIDE = 4, 2
_WIDTH = 1.2
"""Standard deviation of a peak in pixels of the heatmap."""


def _model(answer: npt.NDArray[np.float32]) -> bytes:
    """Return a model that answers each item of a batch with `answer`, whatever the image.

    Heatmaps (P, H, W) of the first and last item of a batch are a tenth lower than those in the middle.
    """
    rank = answer.ndim
    nodes = [
        helper.make_node("Shape", ["image"], ["batch_size"], start=0, end=1),
        helper.make_node("Squeeze", ["batch_size"], ["count"]),
        helper.make_node("Range", ["zero", "count", "one"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["places"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["count"], ["length"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["length", "half"], ["middle"]),
        helper.make_node("Add", ["places", "half"], ["centres"]),
        helper.make_node("Sub", ["centres", "middle"], ["offsets"]),
        helper.make_node("Abs", ["offsets"], ["distances"]),
        helper.make_node("Div", ["distances", "middle"], ["shares"]),
        helper.make_node("Mul", ["shares", "slope"], ["lowered"]),
        helper.make_node("Sub", ["whole", "lowered"], ["factors"]),
        helper.make_node("Reshape", ["factors", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "answer"], ["out"]),
    ]
    constants = {
        "zero": np.array(0),
        "one": np.array(1),
        "half": np.array(0.5, np.float32),
        "whole": np.array(1, np.float32),
        "slope": np.array(0.1 if rank == 3 else 0.0, np.float32),
        "shape": np.array([-1] + [1] * rank),
        "answer": answer[None],
    }
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", None, None, None])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", *answer.shape])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _peaks(size: int, points: list[tuple[float, float]]) -> npt.NDArray[np.float32]:
    """Return heatmaps (points, size, size) with one peak each at (column, row)."""
    row, column = np.mgrid[0:size, 0:size]
    return np.stack(
        [np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * _WIDTH**2)) * 0.95 for x, y in points]
    ).astype(np.float32)


def write_constant_pack(out: Path) -> Pack:
    """Write the pack to `out`."""
    levels = [(32.0 + 0.4 * index, 21.0 + 4.4 * index) for index in range(len(LEVELS))]
    cord = [(32.0, 26.0), (32.0, 38.0), (20.0, 32.0), (44.0, 32.0)]
    models = {
        "levels": ModelContent(
            _model(_peaks(64, levels)),
            "fp32",
            input_spec(256, 1.0, 1, "sagittal"),
            OutputSpec("heatmaps", LEVELS, _LEVELS_STRIDE, 0.3),
        ),
        "grader": ModelContent(
            _model(np.array([0.1, 0.7, 0.15, 0.05], np.float32)),
            "fp32",
            input_spec(64, 0.75, 3, "sagittal", 6.0),
            OutputSpec("classes", GRADES, 1, 0.5),
        ),
        "cord": ModelContent(
            _model(_peaks(64, cord)),
            "fp32",
            input_spec(128, 0.5, 1, "axial"),
            OutputSpec("heatmaps", CORD_NAMES, _CORD_STRIDE, 0.3),
        ),
    }
    return write_pack(out, PackContent("constant", "1", "Apache-2.0", "tests only", {}, models))
