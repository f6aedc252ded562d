"""ONNX graphs as PyTorch modules: the same numbers as ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_pack import write_tiny_pack
from torch.nn import functional

from stenosis_trt.bench.peers.torch_graph import UnsupportedGraph, graph_module

Arrays = dict[str, np.ndarray]


def _model(nodes: list[onnx.NodeProto], constants: Arrays, size: int = 16) -> bytes:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _assert_same(model: bytes, shape: tuple[int, ...]) -> torch.fx.GraphModule:
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(model).run(None, {"image": images})
    module = graph_module(model)
    with torch.inference_mode():
        found = module(torch.from_numpy(images)).numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    return module


def _weights(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return (0.3 * np.random.default_rng(sum(shape)).standard_normal(shape)).astype(dtype)


def _squeeze_excite() -> bytes:
    """Half-precision weights, a depthwise convolution, SiLU, squeeze-excite, and a classifier."""
    node = helper.make_node
    nodes = [
        node("Cast", ["half"], ["stem"], to=1),
        node("Conv", ["image", "stem", "bias"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1], group=1),
        node("Sigmoid", ["a"], ["a_gate"]),
        node("Mul", ["a", "a_gate"], ["b"]),
        node("Conv", ["b", "depthwise"], ["c"], pads=[2, 2, 2, 2], group=8),
        node("ReduceMean", ["c", "plane"], ["pooled"], keepdims=1),
        node("Conv", ["pooled", "squeeze"], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("Sigmoid", ["e"], ["f"]),
        node("Mul", ["f", "c"], ["g"]),
        node("Add", ["g", "b"], ["h"]),
        node("ReduceMean", ["h", "plane"], ["flat"], keepdims=0),
        node("Gemm", ["flat", "classifier", "logit_bias"], ["logits"], transB=1),
        node("Div", ["logits", "temperature"], ["cooled"]),
        node("Softmax", ["cooled"], ["out"], axis=1),
    ]
    constants = {
        "half": _weights(8, 3, 3, 3, dtype=np.float16),
        "bias": _weights(8),
        "depthwise": _weights(8, 1, 5, 5),
        "plane": np.array([2, 3]),
        "squeeze": _weights(8, 8, 1, 1),
        "classifier": _weights(4, 8),
        "logit_bias": _weights(4),
        "temperature": np.array(0.7, np.float32),
    }
    return _model(nodes, constants)


def test_a_network_with_squeeze_excite_gives_the_outputs_of_onnx_runtime() -> None:
    for batch in (1, 3):
        _assert_same(_squeeze_excite(), (batch, 3, 16, 16))


def test_x_times_its_sigmoid_becomes_silu_and_other_gates_stay() -> None:
    targets = [node.target for node in _assert_same(_squeeze_excite(), (1, 3, 16, 16)).graph.nodes]
    assert targets.count(functional.silu) == 1
    assert targets.count(torch.sigmoid) == 1


def test_pixels_are_repeated_as_resize_does() -> None:
    nodes = [
        helper.make_node(
            "Resize",
            ["image", "", "scales"],
            ["large"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Sigmoid", ["large"], ["out"]),
    ]
    _assert_same(_model(nodes, {"scales": np.array([1, 1, 2, 2], np.float32)}), (2, 3, 16, 16))


def test_the_models_of_a_tiny_pack_are_translated(tmp_path: Path) -> None:
    pack = write_tiny_pack(tmp_path / "tiny")
    for name, model in pack.models.items():
        _assert_same(pack.read_model(name), (2, *model.input_shape))


def test_a_network_of_the_reference_pack_gives_the_outputs_of_onnx_runtime() -> None:
    from stenosis_trt.engine.packs.pack import open_pack

    pack = open_pack()
    _assert_same(pack.read_model("cord"), (1, *pack.models["cord"].input_shape))


def test_weights_are_parameters_so_that_a_device_and_a_layout_can_be_chosen() -> None:
    module = graph_module(_squeeze_excite())
    shapes = {tuple(item.shape) for item in module.parameters()}
    assert {(8, 3, 3, 3), (8, 1, 5, 5), (4, 8)} <= shapes
    assert {item.dtype for item in module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("node", "constants", "message"),
    [
        (helper.make_node("Erf", ["image"], ["out"]), {}, "The operator Erf is not translated."),
        (helper.make_node("Cast", ["image"], ["out"], to=10), {}, "Cast to another type"),
        (
            helper.make_node("Conv", ["image", "w"], ["out"], pads=[0, 0, 1, 1]),
            {"w": _weights(1, 3, 3, 3)},
            "other padding at its start",
        ),
        (
            helper.make_node("Resize", ["image", "", "s"], ["out"], mode="linear"),
            {"s": np.array([1, 1, 2, 2], np.float32)},
            "does not repeat pixels",
        ),
        (
            helper.make_node("Gemm", ["image", "w"], ["out"], transB=0),
            {"w": _weights(3, 3)},
            "not a linear layer",
        ),
        (helper.make_node("ReduceMean", ["image", "image"], ["out"]), {}, "that is computed"),
        (
            helper.make_node("AveragePool", ["image"], ["out"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            {},
            "AveragePool with padding",
        ),
    ],
)
def test_what_is_not_translated_is_named(node: onnx.NodeProto, constants: Arrays, message: str) -> None:
    with pytest.raises(UnsupportedGraph, match=message):
        graph_module(_model([node], constants))
