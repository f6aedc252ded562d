"""Removal of squeeze-excite branches from INT8: detection, accuracy, TensorRT's layers, and the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fused_layers import fused_layers
from onnx import TensorProto, helper, numpy_helper
from typed_models import needs_rtx

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.trt.api import TensorRT
from stenosis_trt.engine.trt.flavours import FLAVOURS
from stenosis_trt.export.precision.convert import ConvertedModel, Int8Options, to_int8
from stenosis_trt.export.precision.gate_result import GateLimits
from stenosis_trt.export.precision.quantise import QuantiseOptions, measure_precisions, retry_without_rewrites
from stenosis_trt.export.precision.rewrites import (
    RewrittenModel,
    rewrite_squeeze_excite,
    squeeze_excite_branches,
)
from stenosis_trt.export.precision.studies import StudyCollection
from stenosis_trt.export.precision.writing import ConvertedModels, write_variants

_FEW = GateLimits(minimum_levels=6, minimum_patients=1)
_CHANNELS = 32
_SIZE = 16


def _weights(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)


def _silu(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Sigmoid", [source], [f"{source}_sigmoid"]),
        helper.make_node("Mul", [source, f"{source}_sigmoid"], [result]),
    ]


def _network(branch: list[onnx.NodeProto], constants: dict[str, np.ndarray], joined: str = "scaled") -> bytes:
    """A convolution with SiLU, a branch from its maps, `silu`, to `scaled`, and a convolution of that."""
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["maps"], name="first"),
        *_silu("maps", "silu"),
        *branch,
        helper.make_node("Conv", [joined, "last"], ["out"], name="last"),
    ]
    stored = {"first": _weights(_CHANNELS, 16, 1, 1), "last": _weights(16, _CHANNELS, 1, 1), **constants}
    shape = ["batch", 16, _SIZE, _SIZE]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _convolutions(pooling: str = "ReduceMean") -> bytes:
    """The branch as torchvision and timm have it."""
    pooled = ["silu", "axes"] if pooling == "ReduceMean" else ["silu"]
    branch = [
        helper.make_node(pooling, pooled, ["pooled"], name="pool"),
        helper.make_node("Conv", ["pooled", "squeeze"], ["squeezed"], name="squeeze"),
        *_silu("squeezed", "active"),
        helper.make_node("Conv", ["active", "excite"], ["excited"], name="excite"),
        helper.make_node("Sigmoid", ["excited"], ["factor"]),
        helper.make_node("Mul", ["factor", "silu"], ["scaled"], name="scale"),
    ]
    layers = {"squeeze": _weights(8, _CHANNELS, 1, 1), "excite": _weights(_CHANNELS, 8, 1, 1)}
    return _network(branch, layers | ({"axes": np.array([2, 3])} if pooling == "ReduceMean" else {}))


def _products() -> bytes:
    """The branch of SENet and MobileNetV3: matrix products, ReLU and a hard sigmoid."""
    branch = [
        helper.make_node("GlobalAveragePool", ["silu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "squeeze"], ["squeezed"]),
        helper.make_node("Relu", ["squeezed"], ["active"]),
        helper.make_node("Gemm", ["active", "excite"], ["excited"]),
        helper.make_node("HardSigmoid", ["excited"], ["factors"]),
        helper.make_node("Unsqueeze", ["factors", "axes"], ["factor"]),
        helper.make_node("Mul", ["silu", "factor"], ["scaled"]),
    ]
    layers = {"squeeze": _weights(_CHANNELS, 8), "excite": _weights(8, _CHANNELS)}
    return _network(branch, {**layers, "axes": np.array([2, 3])})


@pytest.mark.parametrize(
    ("data", "nodes"),
    [
        (_convolutions(), "pooled squeezed squeezed_sigmoid active excited factor scaled"),
        (_convolutions("GlobalAveragePool"), "pooled squeezed squeezed_sigmoid active excited factor scaled"),
        (_products(), "pooled flat squeezed active excited factors factor scaled"),
    ],
)
def test_a_branch_is_found_from_its_pooling_to_its_product(data: bytes, nodes: str) -> None:
    (branch,) = squeeze_excite_branches(onnx.load_model_from_string(data))
    assert set(branch) == set(nodes.split())


def test_what_only_resembles_one_is_left_alone() -> None:
    pool = helper.make_node("GlobalAveragePool", ["silu"], ["pooled"])
    layer = helper.make_node("Conv", ["pooled", "excite"], ["excited"])
    excite = {"excite": _weights(_CHANNELS, _CHANNELS, 1, 1)}
    # A product with other maps than those that were pooled; one without a layer; a sum; a use besides.
    other = [pool, layer, helper.make_node("Mul", ["maps", "excited"], ["scaled"])]
    bare = [pool, helper.make_node("Mul", ["silu", "pooled"], ["scaled"])]
    added = [pool, layer, helper.make_node("Add", ["silu", "excited"], ["scaled"])]
    twice = [
        pool,
        layer,
        helper.make_node("Mul", ["silu", "excited"], ["product"]),
        helper.make_node("Resize", ["excited", "", "", "sizes"], ["large"]),
        helper.make_node("Add", ["product", "large"], ["scaled"]),
    ]
    sizes = {"sizes": np.array([1, _CHANNELS, _SIZE, _SIZE])}
    for branch, constants in ((other, excite), (bare, {}), (added, excite), (twice, excite | sizes)):
        assert squeeze_excite_branches(onnx.load_model_from_string(_network(branch, constants))) == []


def test_the_graders_branches_are_found_and_its_last_pooling_is_none(pack: Pack) -> None:
    branches = squeeze_excite_branches(onnx.load_model_from_string(pack.read_model("grader")))
    assert len(branches) == 39
    assert {len(branch) for branch in branches} == {7}
    for name in ("levels", "cord"):
        assert squeeze_excite_branches(onnx.load_model_from_string(pack.read_model(name))) == []


def _images(count: int) -> Float32Array:
    return np.random.default_rng(0).standard_normal((count, 16, _SIZE, _SIZE)).astype(np.float32)


def _quantised_layers(data: bytes) -> set[str]:
    graph = onnx.load_model_from_string(data).graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {node.name for node in graph.node if node.op_type == "Conv" and set(node.input[:2]) <= dequantised}


@pytest.mark.parametrize("elsewhere", ["fp16", "fp32"])
def test_a_rewritten_model_has_its_branch_out_of_int8_and_is_nearer_to_fp32(elsewhere: str) -> None:
    data, images = _convolutions(), _images(16)
    before = to_int8(data, images, Int8Options("max", high_precision_dtype=elsewhere))
    assert _quantised_layers(before.data) == {"first", "squeeze", "excite", "last"}
    after = rewrite_squeeze_excite(data, before, images)
    assert isinstance(after, RewrittenModel)
    assert after.without_rewrite is before
    assert _quantised_layers(after.data) == {"first", "last"}
    graph = onnx.load_model_from_string(after.data).graph
    # What the first convolution takes, and what the last one takes: two quantised activations are left.
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 2
    kind = TensorProto.FLOAT16 if elsewhere == "fp16" else TensorProto.FLOAT
    weights = {item.name: item.data_type for item in graph.initializer}
    small = [node.input[1] for node in graph.node if node.name in ("squeeze", "excite")]
    assert [weights[name] for name in small] == [kind, kind]
    assert after.metrics["squeeze_excite_left_out"] == 1.0
    assert 0.9 < after.metrics["quantised_share"] < before.metrics["quantised_share"] == 1.0
    assert after.metrics["mean_output_error"] < before.metrics["mean_output_error"]


def test_a_model_without_such_branches_stays_as_it_is(pack: Pack, inputs: dict[str, Float32Array]) -> None:
    data = pack.read_model("cord")
    converted = ConvertedModel(data, {})
    assert rewrite_squeeze_excite(data, converted, inputs["cord"]) is converted


@needs_rtx
def test_tensorrt_fuses_more_of_a_rewritten_model() -> None:
    data, images = _convolutions(), _images(4)
    before = to_int8(data, images, Int8Options("max"))
    shape = (16, _SIZE, _SIZE)
    quantised = fused_layers(before.data, shape)
    lighter = fused_layers(rewrite_squeeze_excite(data, before, images).data, shape)
    assert len(lighter) < len(quantised)


@pytest.mark.slow
@needs_rtx
def test_tensorrt_ends_with_a_fifth_fewer_layers_of_the_grader(
    pack: Pack, inputs: dict[str, Float32Array]
) -> None:
    """SiLU and pooling are one layer again, and so are a branch's first convolution and its SiLU."""
    data, images = pack.read_model("grader"), inputs["grader"][:2]
    before = to_int8(data, images, Int8Options("max"))
    quantised = fused_layers(before.data, (3, 128, 128))
    lighter = fused_layers(rewrite_squeeze_excite(data, before, images).data, (3, 128, 128))
    plain = fused_layers(data, (3, 128, 128))
    assert len(plain) < len(lighter) < 0.85 * len(quantised)
    if TensorRT(FLAVOURS["tensorrt-rtx"]).version == "1.7.1.116":
        # The figures of docs/decisions/squeeze-excite.md.
        assert (len(plain), len(lighter), len(quantised)) == (277, 353, 431)
    assert not any("CorrSilu" in name for name in quantised)
    assert sum("CorrSilu" in name for name in lighter) == 39
    assert sum("SiluMean" in name for name in lighter) == 40


def _noisy(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    for item in model.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.size >= 512:
            noise = 0.5 * values.std() * np.random.default_rng(0).standard_normal(values.shape)
            item.CopyFrom(numpy_helper.from_array((values + noise).astype(values.dtype), item.name))
    return bytes(model.SerializeToString())


def _made(pack: Pack, **models: ConvertedModel) -> dict[str, ConvertedModels]:
    plain: ConvertedModels = {name: ConvertedModel(pack.read_model(name), {}) for name in pack.models}
    return {"int8": {**plain, **models}}


@pytest.mark.slow
def test_rewrites_that_the_gate_refuses_are_taken_back(
    pack: Pack, phantoms: StudyCollection, tmp_path: Path
) -> None:
    sound = ConvertedModel(pack.read_model("cord"), {"bytes": 1.0})
    made = _made(pack, cord=RewrittenModel(_noisy(sound.data), {"bytes": 2.0}, without_rewrite=sound))
    found = measure_precisions(pack, made, phantoms, _FEW)
    assert not found.outcomes["int8"].passed
    taken, models = retry_without_rewrites(found, made, phantoms, _FEW)
    assert taken.outcomes["int8"].passed
    assert taken.without_rewrites == ("int8",)
    assert taken.by_model == {}
    assert models["int8"]["cord"] is sound
    written = write_variants(tmp_path / "pack", taken, models, {})
    assert written.read_variant("cord", "int8") == sound.data


def test_rewrites_that_are_not_to_blame_stay(pack: Pack, phantoms: StudyCollection) -> None:
    data = pack.read_model("levels")
    sound = RewrittenModel(data, {}, without_rewrite=ConvertedModel(_noisy(data), {}))
    made = _made(pack, levels=sound, cord=ConvertedModel(_noisy(pack.read_model("cord")), {}))
    found = measure_precisions(pack, made, phantoms, _FEW)
    taken, models = retry_without_rewrites(found, made, phantoms, _FEW)
    assert taken == replace(found, without_rewrites=())
    assert models["int8"]["levels"] is sound


@pytest.mark.slow
def test_a_refused_model_that_is_refused_without_rewrites_too_stays_refused(
    pack: Pack, phantoms: StudyCollection
) -> None:
    noisy = ConvertedModel(_noisy(pack.read_model("cord")), {})
    made = _made(pack, cord=RewrittenModel(noisy.data, {}, without_rewrite=noisy))
    taken, models = retry_without_rewrites(
        measure_precisions(pack, made, phantoms, _FEW), made, phantoms, _FEW
    )
    assert not taken.outcomes["int8"].passed
    assert taken.without_rewrites == ()
    assert isinstance(models["int8"]["cord"], RewrittenModel)


def test_what_rewrites_may_be_is_said() -> None:
    with pytest.raises(ValueError, match="can be auto, on, off, not 'maybe'"):
        QuantiseOptions(squeeze_excite_rewrite="maybe")
