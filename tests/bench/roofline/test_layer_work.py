"""Multiply-adds and memory traffic of networks, compared with published counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights, model_layers, model_work
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.pack import Pack, reference_pack


def _model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], out: list[object]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, None, None])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_efficientnet_b5_at_456_costs_what_is_published() -> None:
    """timm: 98.9 M activations of convolutions and 10.46 GMAC, which hold two a value for normalisation."""
    pack = Pack.load(reference_pack())
    grader = fold_fp16_weights(onnx.load_model_from_string(pack.read_model("grader")))
    layers = model_layers(grader, (1, 3, 456, 456), "grader")
    activations = sum(layer.outputs for layer in layers if layer.operator == "Conv")
    assert activations == pytest.approx(98.9e6, rel=0.001)
    assert sum(layer.multiply_adds for layer in layers) + 2 * activations == pytest.approx(10.46e9, rel=0.001)


def test_a_depthwise_convolution_and_a_pointwise_operator_are_counted() -> None:
    nodes = [
        helper.make_node("Conv", ["image", "filters", "bias"], ["a"], group=3, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["out"]),
    ]
    constants = {"filters": np.zeros((3, 1, 3, 3), np.float32), "bias": np.zeros(3, np.float32)}
    convolution, relu = model_layers(
        _model(nodes, constants, ["batch", 3, None, None]), (1, 3, 8, 10), "small"
    )
    assert convolution.multiply_adds == 3 * 80 * 9
    assert (convolution.weights, convolution.inputs, convolution.outputs) == (30, 240, 240)
    assert (relu.multiply_adds, relu.weights, relu.inputs, relu.outputs) == (0, 0, 240, 240)


def test_a_view_of_a_tensor_moves_nothing() -> None:
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("Sigmoid", ["flat"], ["out"])]
    (only,) = model_layers(_model(nodes, {}, ["batch", None]), (1, 3, 4, 4), "small")
    assert (only.operator, only.inputs, only.outputs) == ("Sigmoid", 48, 48)


def test_a_graph_whose_sizes_depend_on_its_values_is_refused() -> None:
    nodes = [
        helper.make_node("NonZero", ["image"], ["places"]),
        helper.make_node("Cast", ["places"], ["out"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(PackError, match="cannot be inferred"):
        model_layers(_model(nodes, {}, [None, None]), (1, 3, 4, 4), "small")


def test_an_input_that_is_no_image_is_refused() -> None:
    nodes = [helper.make_node("Sigmoid", ["image"], ["out"])]
    with pytest.raises(PackError, match="has 4 dimensions"):
        model_layers(_model(nodes, {}, ["batch", 3, None, None]), (1, 48), "small")


def test_a_packs_model_is_counted_at_the_size_that_the_pack_gives(tmp_path: Path) -> None:
    pack = write_tiny_pack(tmp_path / "tiny")
    work = model_work(pack, "levels", 15)
    assert (work.batch, work.inputs, work.outputs) == (15, 256 * 256, 6 * 64 * 64)
    assert work.int8_share is None
    assert work.layers[0].outputs == 64 * 64
