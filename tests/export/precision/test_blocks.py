"""Blocks of a graph: how they are found, left out of INT8, and measured."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stenosis_trt.bench.roofline.layer_work import multiply_adds
from stenosis_trt.export.errors import PrecisionError
from stenosis_trt.export.onnx.graphs import quantised_share, run_model
from stenosis_trt.export.precision.blocks import quantised_blocks
from stenosis_trt.export.precision.convert import ConvertedModel
from stenosis_trt.export.precision.sensitivity import block_errors
from stenosis_trt.export.precision.unquantise import unquantise_nodes

_CHANNELS, _SIZE = 4, 8


class _Network:
    """A small network in INT8 as `to_int8` makes them: Q/DQ before each layer, weights stored as INT8."""

    def __init__(self, kind: int = TensorProto.FLOAT) -> None:
        self.kind = kind
        self.random = np.random.default_rng(3)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.weights: dict[str, np.ndarray] = {}
        self._quantised: dict[str, str] = {}
        self.dtype = helper.tensor_dtype_to_np_dtype(kind)

    def quantised(self, source: str, step: float = 0.05) -> str:
        if source not in self._quantised:
            self.constants |= {f"{source}_s": np.array(step, self.dtype), f"{source}_z": np.array(0, np.int8)}
            ends = [f"{source}_s", f"{source}_z"]
            self.nodes.append(helper.make_node("QuantizeLinear", [source, *ends], [f"{source}_q"]))
            self.nodes.append(helper.make_node("DequantizeLinear", [f"{source}_q", *ends], [f"{source}_dq"]))
            self._quantised[source] = f"{source}_dq"
        return self._quantised[source]

    def layer(self, source: str, result: str, weight: str, step: float = 0.05) -> str:
        values = self.random.standard_normal((_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32) / 6
        scale = np.abs(values).max(axis=(1, 2, 3)) / 127
        stored = np.round(values / scale[:, None, None, None]).astype(np.int8)
        self.weights[weight] = values
        self.constants |= {
            weight: stored,
            f"{weight}_s": scale.astype(self.dtype),
            f"{weight}_z": np.zeros(_CHANNELS, np.int8),
        }
        ends = [weight, f"{weight}_s", f"{weight}_z"]
        self.nodes.append(helper.make_node("DequantizeLinear", ends, [f"{weight}_dq"], axis=0))
        inputs = [self.quantised(source, step), f"{weight}_dq"]
        self.nodes.append(
            helper.make_node("Conv", inputs, [result], name=f"node_{result}", pads=[1, 1, 1, 1])
        )
        return result

    def node(self, kind: str, sources: list[str], result: str) -> str:
        self.nodes.append(helper.make_node(kind, sources, [result], name=f"node_{result}"))
        return result

    def made(self, last: str) -> ConvertedModel:
        shape = ["batch", _CHANNELS, _SIZE, _SIZE]
        nodes = list(self.nodes)
        if self.kind != TensorProto.FLOAT:
            nodes.insert(0, helper.make_node("Cast", ["picture"], ["image"], to=self.kind))
        nodes.append(helper.make_node("Cast", [last], ["out"], to=TensorProto.FLOAT))
        name = "image" if self.kind == TensorProto.FLOAT else "picture"
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, key) for key, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        onnx.checker.check_model(model)
        return ConvertedModel(bytes(model.SerializeToString()), {}, self.weights)


def _residual(
    net: _Network,
    source: str,
    name: str,
    scope: str,
    ends: tuple[str, str] = (".first.weight", ".second.weight"),
) -> str:
    """Two layers and a shortcut, whose tensor is quantised for the addition too."""
    first = net.node("Relu", [net.layer(source, f"{name}1", scope + ends[0])], f"{name}r")
    second = net.layer(first, f"{name}2", scope + ends[1])
    return net.node("Add", [net.quantised(source), second], f"{name}_sum")


def _names_and_sizes(converted: ConvertedModel) -> list[tuple[str, int]]:
    model = onnx.load_model_from_string(converted.data)
    return [(block.name, len(block.nodes)) for block in quantised_blocks(model)]


def test_a_residual_block_is_one_with_its_addition_and_what_its_stage_begins_with_is_another() -> None:
    net = _Network()
    stem = net.layer("image", "stem", "net.stem.weight")
    begin = net.layer(stem, "begin", "net.stages.0.down.weight")
    middle = _residual(net, begin, "a", "net.stages.0.one")
    last = _residual(net, middle, "b", "net.stages.0.two")
    made = net.made(net.layer(last, "head", "net.head.weight"))
    assert _names_and_sizes(made) == [
        ("stem", 1),
        ("stages.0.down", 1),
        ("stages.0.one", 3),
        ("stages.0.two", 3),
        ("head", 1),
    ]


def test_layers_that_names_put_beside_residual_blocks_are_one_block() -> None:
    """As the first block of a stage of EfficientNet, which has no shortcut."""
    net = _Network()
    first = net.layer("image", "x", "features.1.0.block.0.weight")
    second = net.layer(first, "y", "features.1.0.block.1.weight")
    last = _residual(net, second, "z", "features.1.1.block")
    assert _names_and_sizes(net.made(last)) == [("features.1.0", 2), ("features.1.1", 3)]


def test_names_that_say_nothing_leave_the_wiring() -> None:
    net = _Network()
    stem = net.layer("image", "stem", "onnx::Conv_7")
    block = _residual(net, stem, "a", "onnx::Conv_", ("3", "5"))
    made = net.made(net.layer(block, "head", "onnx::Conv_1"))
    assert _names_and_sizes(made) == [("node_stem", 1), ("node_a1 to node_a2", 3), ("node_head", 1)]


def test_a_gate_belongs_to_the_layer_that_it_weighs() -> None:
    net = _Network()
    wide = net.layer("image", "wide", "onnx::Conv_1")
    pooled = net.node("GlobalAveragePool", [wide], "pooled")
    weighed = net.node("Sigmoid", [net.layer(pooled, "squeezed", "onnx::Conv_2")], "factor")
    product = net.node("Mul", [wide, weighed], "product")
    made = net.made(net.layer(product, "narrow", "onnx::Conv_3"))
    assert [size for _, size in _names_and_sizes(made)] == [2, 1]


def test_a_long_detour_over_another_resolution_is_no_block() -> None:
    """A decoder's sum holds half of the network: its layers stay apart."""
    net = _Network()
    fine = net.layer("image", "fine", "a.weight")
    coarse = net.node("AveragePool", [fine], "coarse")
    net.nodes[-1].attribute.extend(
        [helper.make_attribute("kernel_shape", [2, 2]), helper.make_attribute("strides", [2, 2])]
    )
    deep = net.layer(net.layer(coarse, "d1", "b.weight"), "d2", "c.weight")
    net.constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    net.nodes.append(helper.make_node("Resize", [deep, "", "scales"], ["up"], mode="nearest"))
    made = net.made(net.node("Add", ["up", net.layer(fine, "lateral", "d.weight")], "sum"))
    assert [size for _, size in _names_and_sizes(made)] == [1, 1, 1, 1]


def test_a_model_without_a_quantised_layer_has_no_blocks() -> None:
    nodes = [helper.make_node("Relu", ["image"], ["out"])]
    shape = ["batch", 1, 2, 2]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "out")]
    model = helper.make_model(helper.make_graph(nodes, "plain", ends[:1], ends[1:]))
    with pytest.raises(PrecisionError, match="No layer"):
        quantised_blocks(model)


@pytest.fixture(params=[TensorProto.FLOAT, TensorProto.FLOAT16], ids=["fp32", "fp16"])
def made(request: pytest.FixtureRequest) -> ConvertedModel:
    net = _Network(request.param)
    stem = net.layer("image", "stem", "stem.weight")
    return net.made(net.layer(_residual(net, stem, "a", "body"), "head", "head.weight", step=0.5))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((6, _CHANNELS, _SIZE, _SIZE)).astype(np.float32)


def _plain(made: ConvertedModel) -> bytes:
    """The same network as it was before: its weights as floats, and no Q/DQ."""
    model = onnx.load_model_from_string(made.data)
    every = {node for block in quantised_blocks(model) for node in block.nodes}
    return bytes(unquantise_nodes(made, every).SerializeToString())


def test_a_model_with_everything_unquantised_has_its_weights_back_and_no_qdq(
    made: ConvertedModel, images: np.ndarray
) -> None:
    model = onnx.load_model_from_string(_plain(made))
    assert not [node for node in model.graph.node if node.op_type.endswith("izeLinear")]
    assert TensorProto.INT8 not in {item.data_type for item in model.graph.initializer}
    kept = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for name, values in made.original_weights.items():
        assert np.abs(kept[f"{name}_unquantised"].astype(np.float32) - values).max() < 1e-3
    onnx.checker.check_model(model)
    assert quantised_share(model) == 0.0
    assert np.isfinite(run_model(_plain(made), images)).all()


def test_one_block_left_out_keeps_what_others_take_quantised(
    made: ConvertedModel, images: np.ndarray
) -> None:
    """The stem's output is quantised for the body, and not for what is left out."""
    full = onnx.load_model_from_string(made.data)
    body = next(block for block in quantised_blocks(full) if len(block.nodes) == 3)
    mixed = unquantise_nodes(made, body.nodes)
    onnx.checker.check_model(mixed)
    work = multiply_adds(full)
    assert quantised_share(mixed) == pytest.approx(1 - body.multiply_adds / sum(work.values()))
    assert sum(node.op_type == "QuantizeLinear" for node in mixed.graph.node) == 2
    assert run_model(bytes(mixed.SerializeToString()), images).shape == images.shape
    assert bytes(unquantise_nodes(made, ()).SerializeToString()) == made.data


def test_the_block_with_the_coarsest_steps_has_the_largest_error(
    made: ConvertedModel, images: np.ndarray
) -> None:
    blocks = quantised_blocks(onnx.load_model_from_string(made.data))
    told: list[tuple[int, int]] = []
    errors = block_errors(made, blocks, images, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    head = next(error for block, error in zip(blocks, errors, strict=True) if "head" in block.nodes)
    assert head == max(errors, key=lambda error: error.relative_rms)
    assert min(error.relative_rms for error in errors) > 0
    only_head = {node for block in blocks for node in block.nodes} - {"head"}
    change = run_model(bytes(unquantise_nodes(made, only_head).SerializeToString()), images) - run_model(
        _plain(made), images
    )
    assert head.largest == pytest.approx(float(np.abs(change).max()), rel=0.05)


def test_what_is_not_known_is_named(made: ConvertedModel) -> None:
    with pytest.raises(PrecisionError, match="no node that gives absent"):
        unquantise_nodes(made, ["absent"])
    with pytest.raises(PrecisionError, match=r"original weights of stem\.weight are not known"):
        unquantise_nodes(ConvertedModel(made.data, {}), ["stem"])
