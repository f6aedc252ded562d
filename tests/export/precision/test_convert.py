"""Conversion of the small networks to FP16 and INT8 by ModelOpt, run by ONNX Runtime."""

from __future__ import annotations

import errno
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.export.errors import PrecisionError
from stenosis_trt.export.onnx.graphs import (
    activation_percentiles,
    largest_activation,
    quantised_share,
    round_scales_to_fp16,
    run_model,
    set_activation_scales,
)
from stenosis_trt.export.precision.convert import (
    CALIBRATION_METHODS,
    Int8Options,
    require_modelopt,
    to_fp16,
    to_int8,
)
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16


def _network(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], size: int = 8) -> bytes:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, size, size])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", None, None, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _kinds(model: onnx.ModelProto) -> set[int]:
    """Types of the weights: what has as many values as a filter."""
    return {item.data_type for item in model.graph.initializer if np.prod(item.dims) >= 512}


def _same_ends(model: onnx.ModelProto) -> None:
    for end in (*model.graph.input, *model.graph.output):
        assert end.type.tensor_type.elem_type == TensorProto.FLOAT
        assert end.type.tensor_type.shape.dim[0].dim_param


@pytest.mark.parametrize("name", ["levels", "cord"])
def test_fp16_answers_as_fp32_does_and_keeps_its_ends(
    pack: Pack, inputs: dict[str, Float32Array], name: str
) -> None:
    converted = to_fp16(pack.read_model(name), inputs[name])
    model = onnx.load_model_from_string(converted.data)
    _same_ends(model)
    assert _kinds(model) == {TensorProto.FLOAT16}
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 2
    expected = run_model(pack.read_model(name), inputs[name])
    assert np.abs(run_model(converted.data, inputs[name]) - expected).max() < 2e-3
    assert 0 < converted.metrics["maximum_output_error"] < 2e-3
    assert converted.metrics["nodes_in_fp32"] == 0.0


def test_what_would_overflow_in_fp16_stays_fp32() -> None:
    nodes = [
        helper.make_node("Mul", ["image", "up"], ["large"], name="up"),
        helper.make_node("Mul", ["large", "down"], ["small"], name="down"),
        helper.make_node("Relu", ["small"], ["out"], name="end"),
    ]
    data = _network(nodes, {"up": np.array(1e6, np.float32), "down": np.array(1e-6, np.float32)})
    inputs = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    converted = to_fp16(data, inputs)
    assert converted.metrics["nodes_in_fp32"] == 2.0
    assert np.abs(run_model(converted.data, inputs) - inputs).max() < 2e-3


@pytest.mark.parametrize("calibrator", CALIBRATION_METHODS)
def test_int8_has_integer_weights_by_channel_and_answers_nearly_as_fp32(
    pack: Pack, inputs: dict[str, Float32Array], calibrator: str
) -> None:
    converted = to_int8(pack.read_model("cord"), inputs["cord"], Int8Options(calibrator))
    model = onnx.load_model_from_string(converted.data)
    _same_ends(model)
    assert _kinds(model) == {TensorProto.INT8}
    weights = {item.name: item for item in model.graph.initializer}
    by_channel = [
        weights[node.input[1]].dims[0] == weights[node.input[0]].dims[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    ]
    assert by_channel
    assert all(by_channel)
    assert all(
        weights[node.input[1]].data_type == TensorProto.FLOAT16
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    )
    assert converted.metrics["quantised_share"] > 0.99
    assert len(converted.data) < 0.6 * len(pack.read_model("cord"))
    assert 1e-3 < converted.metrics["maximum_output_error"] < 0.2


def test_int8_is_calibrated_on_every_input(pack: Pack, inputs: dict[str, Float32Array]) -> None:
    """Batches of eight would leave the ninth input over; here it alone is bright."""
    nine = np.resize(inputs["cord"], (9, *inputs["cord"].shape[1:])) * np.float32(0.01)
    nine[8] *= 100
    scales = []
    for some in (nine, nine[8:]):
        model = onnx.load_model_from_string(to_int8(pack.read_model("cord"), some, Int8Options("max")).data)
        stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
        scales.append(float(stored[first.input[1]]))
    assert scales[0] >= 0.9 * scales[1]


def test_int8_can_leave_everything_else_in_fp32(pack: Pack, inputs: dict[str, Float32Array]) -> None:
    converted = to_int8(
        pack.read_model("cord"), inputs["cord"], Int8Options("max", high_precision_dtype="fp32")
    )
    model = onnx.load_model_from_string(converted.data)
    assert TensorProto.FLOAT16 not in {item.data_type for item in model.graph.initializer}
    assert converted.metrics["elsewhere_fp16"] == 0.0


def _filters(scale: float) -> dict[str, np.ndarray]:
    weights = np.random.default_rng(1).standard_normal((32, 1, 3, 3)).astype(np.float32)
    weights[3] *= scale
    deep = np.random.default_rng(2).standard_normal((32, 32, 3, 3)).astype(np.float32)
    return {"first": weights, "second": deep}


_CONVOLUTIONS = [
    helper.make_node("Conv", ["image", "first"], ["a"], name="a", pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["a"], ["b"], name="b"),
    helper.make_node("Conv", ["b", "second"], ["c"], name="c", pads=[1, 1, 1, 1]),
    helper.make_node("Sigmoid", ["c"], ["out"], name="d"),
]


def test_a_channel_of_tiny_weights_gets_a_scale_that_fp16_has() -> None:
    """TensorRT refuses a scale of zero, and that is what FP16 makes of one below 2⁻²⁵."""
    inputs = np.random.default_rng(0).random((4, 1, 32, 32), dtype=np.float32)
    converted = to_int8(_network(_CONVOLUTIONS, _filters(1e-8), 32), inputs, Int8Options("max"))
    model = onnx.load_model_from_string(converted.data)
    scales = {node.input[1] for node in model.graph.node if node.op_type.endswith("izeLinear")}
    values = [numpy_helper.to_array(item) for item in model.graph.initializer if item.name in scales]
    assert len(values) >= 2
    assert all((value > 0).all() for value in values)


def test_values_that_overflow_fp16_leave_the_whole_model_fp32_around_int8() -> None:
    inputs = np.random.default_rng(0).random((4, 1, 32, 32), dtype=np.float32)
    weights = _filters(1.0)
    weights["second"] *= 1e4
    converted = to_int8(_network(_CONVOLUTIONS, weights, 32), inputs, Int8Options("max"))
    assert converted.metrics["elsewhere_fp16"] == 0.0


def test_fp16_is_rounded_on_the_cpu_as_on_a_gpu(pack: Pack, inputs: dict[str, Float32Array]) -> None:
    """ONNX Runtime alone computes FP16 models in FP32 on a CPU: nothing could be learnt from comparing."""
    nodes = [
        helper.make_node("Add", ["image", "large"], ["sum"], name="up"),
        helper.make_node("Sub", ["sum", "large"], ["out"], name="down"),
    ]
    data = _network(nodes, {"large": np.full((1, 1, 1, 1), 2048, np.float32)})
    image = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    half = to_fp16(data, image).data
    expected = (image.astype(np.float16) + np.float16(2048)) - np.float16(2048)
    assert set(np.unique(expected)) <= {0.0, 1.0, 2.0}
    assert np.array_equal(run_model(emulate_fp16(half), image), expected.astype(np.float32))
    answer = run_model(emulate_fp16(to_fp16(pack.read_model("cord"), inputs["cord"]).data), inputs["cord"])
    assert np.array_equal(answer, answer.astype(np.float16))


def test_a_model_without_fp16_is_rounded_nowhere(pack: Pack, inputs: dict[str, Float32Array]) -> None:
    data = pack.read_model("cord")
    assert np.array_equal(run_model(emulate_fp16(data), inputs["cord"]), run_model(data, inputs["cord"]))


def test_what_overflows_fp16_is_infinite_when_rounded() -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "up"], ["large"]),
        helper.make_node("Mul", ["large", "down"], ["small"]),
        helper.make_node("Cast", ["small"], ["out"], to=TensorProto.FLOAT),
    ]
    data = _network(nodes, {"up": np.array(6e4, np.float16), "down": np.array(1e-4, np.float16)})
    image = np.full((1, 1, 8, 8), 2.0, np.float32)
    assert np.isinf(run_model(emulate_fp16(data), image)).all()


def test_a_full_disk_is_not_taken_for_a_model_that_cannot_be_converted(
    pack: Pack, inputs: dict[str, Float32Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        to_fp16(pack.read_model("cord"), inputs["cord"])


def test_nothing_to_quantise_is_said() -> None:
    data = _network([helper.make_node("Sigmoid", ["image"], ["out"], name="end")], {})
    with pytest.raises(PrecisionError, match="nothing in the model to quantise"):
        to_int8(data, np.zeros((4, 1, 8, 8), np.float32))


def test_weights_stored_as_half_are_weights_again(pack: Pack) -> None:
    stored = onnx.load_model_from_string(pack.read_model("cord"))
    folded = fold_fp16_weights(stored)
    assert any(node.op_type == "Cast" for node in stored.graph.node)
    assert not any(node.op_type == "Cast" for node in folded.graph.node)
    image = np.random.default_rng(0).random((2, 1, 128, 128), dtype=np.float32)
    before, after = (run_model(item.SerializeToString(), image) for item in (stored, folded))
    assert np.array_equal(before, after)


def _quantised(scale: float) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["out"]),
    ]
    constants = {"scale": np.array(scale, np.float32), "zero": np.array(0, np.int8)}
    return onnx.load_model_from_string(_network(nodes, constants))


def test_a_percentile_leaves_the_largest_values_out() -> None:
    plain = onnx.load_model_from_string(_network([helper.make_node("Identity", ["image"], ["out"])], {}))
    inputs = np.linspace(-1, 1, 4 * 64, dtype=np.float32).reshape(4, 1, 8, 8)
    inputs[0, 0, 0, 0] = 100.0
    assert largest_activation(plain, inputs) == 100.0
    model = _quantised(100.0 / 127)
    found = activation_percentiles(plain, model, inputs, 99.0)
    assert found["image"] == pytest.approx(1.0, abs=0.05)
    set_activation_scales(model, found)
    answer = run_model(model.SerializeToString(), inputs)
    assert answer.max() == pytest.approx(found["image"], rel=1e-5)


def test_scales_are_rounded_up_to_numbers_of_fp16() -> None:
    for scale in (0.1, 3e-5, 1e-9):
        model = _quantised(scale)
        round_scales_to_fp16(model)
        found = float(numpy_helper.to_array(model.graph.initializer[0]))
        assert found == float(np.float16(found))
        assert found >= scale
        assert found <= max(scale * 1.01, 2.0**-20)


def test_the_quantised_share_counts_multiply_adds() -> None:
    model = onnx.load_model_from_string(_network(_CONVOLUTIONS, _filters(1.0), 32))
    assert quantised_share(model) == 0.0
    inputs = np.random.default_rng(0).random((4, 1, 32, 32), dtype=np.float32)
    converted = to_int8(model.SerializeToString(), inputs, Int8Options("max"))
    # ModelOpt leaves a convolution of a single channel alone: 1 of 33 parts of the work, or all is INT8.
    assert converted.metrics["quantised_share"] in (pytest.approx(32 / 33), pytest.approx(1.0))


def test_a_missing_modelopt_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    for name in [name for name in sys.modules if name.startswith("modelopt.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(PrecisionError, match=r"pip install 'stenosis-trt\[export\]'") as caught:
        require_modelopt()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"calibration_method": "mean"}, "no calibration method 'mean'"),
        ({"percentile": 20.0}, "over 50"),
        ({"high_precision_dtype": "bf16"}, "fp16 or fp32"),
    ],
)
def test_wrong_options_say_what_is_allowed(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Int8Options(**options)  # type: ignore[arg-type]
