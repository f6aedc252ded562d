"""TensorRT-RTX builds the reference pack in every precision, and computes in what the ONNX files ask for.

What is asked for is read from the ONNX files here, node by node, and held against the network as TensorRT-RTX
parsed it. Loading a plan, and the inspector that shows what was built, need a GPU.
"""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from onnx import TensorProto
from typed_models import NO_GPU, needs_rtx

from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import PRECISIONS, Pack
from stenosis_trt.engine.plans.build import BuildRequest, build_plans
from stenosis_trt.engine.plans.store import StoredPlan, model_files, read_model_file, read_plan
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.trt.api import TensorRT
from stenosis_trt.engine.trt.flavours import FLAVOURS, BuildSettings
from stenosis_trt.engine.trt.network import ParsedNetwork

pytestmark = pytest.mark.slow

RTX = FLAVOURS["tensorrt-rtx"]
KINDS = {
    "Conv": "convolution",
    "Gemm": "matrix_multiply",
    "QuantizeLinear": "quantize",
    "DequantizeLinear": "dequantize",
}
TYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}

Layers = dict[str, tuple[str, str]]
"""Kind of a layer and the type it computes in, by its name; Q/DQ have no type."""


def _asked(data: bytes) -> Layers:
    """What an ONNX file asks for. A node computes in INT8 if both its input and weights were quantised."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data))
    graph = model.graph
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.input)}
    types |= {item.name: item.data_type for item in graph.initializer}
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = {}
    for node in graph.node:
        computes_in = ""
        if node.op_type in ("Conv", "Gemm"):
            int8 = dequantised.issuperset(node.input[:2])
            computes_in = "int8" if int8 else TYPES[types[node.input[0]]]
        if node.op_type in KINDS:
            layers[node.name] = KINDS[node.op_type], computes_in
    return layers


def _parsed(network: ParsedNetwork) -> Layers:
    assert len({layer.name for layer in network.layers}) == len(network.layers)
    return {layer.name: (layer.kind, layer.compute_type) for layer in network.layers}


def _differing(asked: Layers, parsed: Layers) -> set[str]:
    return {name for name in {**asked, **parsed} if asked.get(name) != parsed.get(name)}


def _onnx(pack: Pack, model: str, precision: str) -> bytes:
    return read_model_file(pack, model, model_files(pack, model)[precision])


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    return TensorRT(RTX)


@pytest.fixture(scope="module")
def plans(quantised: Pack) -> dict[tuple[str, str], StoredPlan]:
    """A plan of every model in every precision."""
    request = BuildRequest(RTX.name, settings=BuildSettings((1,)))
    outcomes = list(build_plans(quantised, request, NO_GPU, show_progress))
    assert [outcome.reason for outcome in outcomes if outcome.reason] == []
    return {(outcome.model, outcome.precision): outcome.plan for outcome in outcomes if outcome.plan}


@needs_rtx
def test_every_model_is_built_in_every_precision(
    quantised: Pack, plans: dict[tuple[str, str], StoredPlan]
) -> None:
    assert set(plans) == {(model, precision) for model in MODEL_NAMES for precision in PRECISIONS}
    for (model, precision), plan in plans.items():
        assert len(read_plan(quantised, plan)) > 1_000_000
        asked = Counter(
            " ".join(kinds).rstrip() for kinds in _asked(_onnx(quantised, model, precision)).values()
        )
        assert plan.sidecar.layers == dict(asked)


@needs_rtx
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODEL_NAMES)
def test_each_layer_computes_in_what_its_file_asks_for(
    quantised: Pack, rtx: TensorRT, model: str, precision: str
) -> None:
    data = _onnx(quantised, model, precision)
    network = rtx.parse_network(data)
    asked = _asked(data)
    assert _differing(asked, _parsed(network)) == set()
    assert {*network.inputs.values(), *network.outputs.values()} == {"float32"}
    kinds = Counter(asked.values())
    convolutions = {"levels": 25, "grader": 194, "cord": 27}[model]
    assert sum(count for (kind, _), count in kinds.items() if kind == "convolution") == convolutions
    if precision == "int8":
        assert kinds["convolution", "int8"] > convolutions / 2
        assert kinds["dequantize", ""] > kinds["quantize", ""] > 0
    else:
        assert kinds["convolution", {"fp32": "float32", "fp16": "float16"}[precision]] == convolutions
        assert not {kind for kind, _ in kinds} & {"quantize", "dequantize"}


@needs_rtx
def test_a_file_in_which_one_convolution_lost_its_quantisation_is_told_apart(
    quantised: Pack, rtx: TensorRT
) -> None:
    """The comparison above can fail: of the weights alone, of the input alone, and of a whole node."""
    data = _onnx(quantised, "cord", "int8")
    asked = _asked(data)
    model = onnx.load_model_from_string(data)
    makers = {output: node for node in model.graph.node for output in node.output}
    quantised_nodes = [node for node in model.graph.node if asked.get(node.name) == ("convolution", "int8")]
    node = quantised_nodes[len(quantised_nodes) // 2]
    dequantise = makers[node.input[0]]
    quantise = makers[dequantise.input[0]]
    # The convolution takes what was quantised before it was.
    node.input[0] = quantise.input[0]
    parsed = rtx.parse_network(model.SerializeToString())
    assert node.name in _differing(asked, _parsed(parsed))
    assert parsed.layer_counts["convolution int8"] == Counter(asked.values())["convolution", "int8"] - 1


@needs_rtx
def test_a_file_of_another_precision_differs_in_every_layer(quantised: Pack, rtx: TensorRT) -> None:
    half, single = (_onnx(quantised, "levels", precision) for precision in ("fp16", "fp32"))
    assert len(_differing(_asked(half), _parsed(rtx.parse_network(single)))) == 25


@needs_rtx
def test_a_plans_sidecar_holds_what_the_gate_found_of_its_file(
    quantised: Pack, plans: dict[tuple[str, str], StoredPlan]
) -> None:
    for (model, precision), plan in plans.items():
        sidecar = plan.sidecar
        assert sidecar.measured is None
        if precision == "fp32":
            assert sidecar.variant_gate is None
            continue
        gate = quantised.models[model].variants[precision].gate
        assert sidecar.variant_gate == gate
        assert gate["passed"] is True
        assert {"validated_on", "figures", "checks"} <= set(gate)
