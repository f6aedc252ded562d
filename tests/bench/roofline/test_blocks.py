"""Blocks of networks: which layers belong together, and what passes between blocks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stenosis_trt.bench.roofline.blocks import model_blocks, network_blocks
from stenosis_trt.bench.roofline.layer_work import model_work
from stenosis_trt.engine.packs.pack import Pack, reference_pack

SHAPE = (1, 2, 8, 8)


def _convolution(source: str, name: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"{name}.weight"], [target], name=f"node_{target}")


def _residual_network(prefix: str = "net.") -> onnx.ModelProto:
    """A convolution, then a residual block of two with a ReLU between: 1 × 1 kernels on two channels."""
    names = (f"{prefix}stem.0", f"{prefix}stages.0.1.first", f"{prefix}stages.0.1.second")
    nodes = [
        _convolution("image", names[0], "a"),
        _convolution("a", names[1], "b"),
        helper.make_node("Relu", ["b"], ["c"], name="node_c"),
        _convolution("c", names[2], "d"),
        helper.make_node("Add", ["a", "d"], ["out"], name="node_out"),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE[1:]])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", *SHAPE[1:]])],
        [numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), f"{name}.weight") for name in names],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_an_addition_belongs_to_the_block_whose_result_it_adds() -> None:
    stem, stage = model_blocks(_residual_network(), SHAPE, "small")
    assert (stem.name, [layer.name for layer in stem.layers]) == ("stem.0", ["a"])
    assert (stage.name, [layer.name for layer in stage.layers]) == ("stages.0.1", ["b", "c", "d", "out"])
    assert {"node_c", "c", "node_out", "out"} <= stage.aliases


def test_only_what_passes_between_blocks_is_their_input_and_output() -> None:
    stem, stage = model_blocks(_residual_network(), SHAPE, "small")
    size = 2 * 8 * 8
    assert (stem.inputs, stem.outputs, stem.weights) == (size, size, 4)
    # The stem's output is read twice within the stage, and moves into it once.
    assert (stage.inputs, stage.outputs, stage.weights) == (size, size, 8)
    assert (stem.multiply_adds, stage.multiply_adds) == (2 * size, 4 * size)


def test_a_layer_without_a_known_weight_makes_a_block_of_its_own() -> None:
    nodes = [helper.make_node("Relu", ["image"], ["a"]), helper.make_node("Sigmoid", ["a"], ["out"])]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE[1:]])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", *SHAPE[1:]])],
    )
    (only,) = model_blocks(helper.make_model(graph), SHAPE, "plain")
    assert (only.name, len(only.layers), only.inputs, only.outputs) == ("a", 2, 128, 128)


@pytest.mark.parametrize("name", ["levels", "grader", "cord"])
def test_the_blocks_of_a_pack_hold_all_of_its_layers_once(name: str) -> None:
    pack = Pack.load(reference_pack())
    blocks, work = network_blocks(pack, name), model_work(pack, name, 1)
    assert sorted(layer.name for block in blocks for layer in block.layers) == sorted(
        layer.name for layer in work.layers
    )
    assert sum(block.multiply_adds for block in blocks) == work.multiply_adds
    assert blocks[0].inputs == work.inputs
    assert blocks[-1].outputs == work.outputs


def test_the_blocks_of_efficientnet_are_its_inverted_residuals() -> None:
    """EfficientNet_B5 has 3, 5, 5, 7, 7, 9 and 3 of them, a stem, a last convolution and a classifier."""
    names = [block.name for block in network_blocks(Pack.load(reference_pack()), "grader")]
    counts = (3, 5, 5, 7, 7, 9, 3)
    expected = [f"features.{stage + 1}.{k}" for stage, count in enumerate(counts) for k in range(count)]
    assert names == ["features.0.0", *expected, "features.8.0", "classifier.1"]
