"""Import of ONNX files: checks a file and converts it to the form of exported networks.

Input and output get the names and fixed size of the pack's models, the outputs are reordered, a missing
activation is appended, and the result is compared with the original file.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from onnx.compose import add_prefix
from onnx.inliner import inline_local_functions
from onnxruntime.capi import onnxruntime_pybind11_state as state

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.export.errors import ExportError
from stenosis_trt.export.onnx.checks import (
    OnnxError,
    check_activation,
    check_network_output,
    input_remedy,
    map_size,
)
from stenosis_trt.export.onnx.from_torch import (
    INPUT_NAME,
    OUTPUT_NAMES,
    TOLERANCE,
    ExportedModel,
    finalise_model,
)
from stenosis_trt.export.onnx.reading import read_model
from stenosis_trt.export.spec_file import ModelDeclaration

SUFFIX = ".onnx"
OPSETS = (13, 20)
"""Per-channel quantisation needs opset 13; TensorRT 10.3 of JetPack 6 reads up to 20."""

_DOMAINS = ("", "ai.onnx")
_PREFIX = "network/"
_MAX_MESSAGE = 200
"""Maximum number of characters quoted from a library's message."""
_RUNTIME_ERRORS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.RuntimeException,
)
_BATCH_TOLERANCE = 1e-3
"""Largest effect of the rest of a batch on an image's output; rounding stays far below."""

Inference = Callable[[Float32Array], Float32Array]


def import_onnx(
    path: Path, declaration: ModelDeclaration, example: Float32Array, half_weights: bool
) -> tuple[ExportedModel, Inference]:
    """Convert an ONNX file to a pack's form and compare it with the original.

    Args:
        path: the file; external data beside it are read.
        declaration: its part of the spec.
        example: inputs to compare on, float32 (N, C, H, W), N ≥ 2.
        half_weights: store weights as FP16.

    Returns:
        The model with its error, and a function that runs the original file with order and activation.

    Raises:
        OnnxError: the file does not match the spec, or it cannot run on all supported runtimes.
        ExportError: the outputs of the converted model differ from the original's.
    """
    if declaration.checkpoint != type(declaration.checkpoint)():
        raise OnnxError(f"{path} is not a checkpoint: remove [….checkpoint] from the spec.")
    original = _load(path)
    _check_input(path, _inputs(original)[0], declaration)
    raw, answer = _inference(path, original.SerializeToString(), declaration)
    output = raw(example)
    check_network_output(path, declaration, len(example), output)
    expected = answer(example)
    data = _to_pack_form(path, original, declaration, half_weights)
    alone = np.concatenate([answer(example[k : k + 1]) for k in range(len(example))])
    if not np.abs(alone - expected).max() <= _BATCH_TOLERANCE:
        raise OnnxError(
            f"{path} returns different values for an image alone and in a batch.",
            "Export it in evaluation mode, without operators that depend on the batch size.",
        )
    check_activation(path, declaration, output)
    session = _session(path, data)
    error = float(np.abs(session.run(None, {INPUT_NAME: example})[0] - expected).max())
    if not error <= TOLERANCE:
        raise ExportError(
            (
                f"{path}, simplified and with its weights as the pack stores them, differs from the "
                f"original file by {error:.2g}, over {TOLERANCE:.2g}."
            ),
            'Write weights = "fp32" under [pack].',
        )
    return ExportedModel(data, error), answer


def _load(path: Path) -> onnx.ModelProto:
    """Load a model with its external data, functions inlined. It must have one float32 input and output."""
    try:
        model = read_model(path)
        onnx.checker.check_model(model)
    except (OSError, DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise OnnxError(
            f"{path} is not a valid ONNX model ({_one_line(error)}).", "Export it again."
        ) from error
    model = inline_local_functions(model)
    opset = next((item.version for item in model.opset_import if item.domain in _DOMAINS), 0)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise OnnxError(
            f"{path} uses opset {opset}, and {OPSETS[0]} to {OPSETS[1]} can be used everywhere.",
            "Export it again with opset_version=18.",
        )
    others = (node for node in model.graph.node if node.domain not in _DOMAINS)
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in others})
    if foreign:
        raise OnnxError(
            f"{path} uses {', '.join(foreign)}, which are not ONNX operators.",
            "Export it again, not optimised for one runtime.",
        )
    for what, ends in (("input", _inputs(model)), ("output", list(model.graph.output))):
        if len(ends) != 1:
            names = ", ".join(value.name for value in ends)
            raise OnnxError(
                f"{path} has {len(ends)} {what}s ({names}), and has to have one.",
                f"Export it so{_extract_command(path, model)}",
            )
        if ends[0].type.tensor_type.elem_type != TensorProto.FLOAT:
            raise OnnxError(f"The {what} {ends[0].name} of {path} is not float32.", "Export it so.")
    return model


def _to_pack_form(
    path: Path, original: onnx.ModelProto, declaration: ModelDeclaration, half_weights: bool
) -> bytes:
    """The model with the pack's input and output names, order and activation, simplified and serialised."""
    spec, output = declaration.input, declaration.output
    # A prefix on all names prevents collisions with ours.
    model = add_prefix(original, _PREFIX)
    graph = model.graph
    result = OUTPUT_NAMES[output.kind]
    before = helper.make_node("Identity", [INPUT_NAME], [_inputs(model)[0].name])
    after, order = _output_nodes(graph.output[0].name, result, declaration)
    nodes = [before, *graph.node, *after]
    del graph.node[:], graph.value_info[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.append(order)
    image: list[str | int | None] = ["batch", spec.channels, spec.height, spec.width]
    shape: list[str | int | None] = ["batch", len(output.names), *map_size(declaration)]
    graph.input.append(helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, image))
    graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, shape))
    try:
        return finalise_model(model, half_weights)
    # ONNX Slim lets through whatever exception an unexpected graph causes.
    except (
        *(onnx.checker.ValidationError, onnx.shape_inference.InferenceError),
        *(LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, ValueError, RuntimeError),
    ) as error:
        raise OnnxError(
            (
                f"{path} cannot have an input of {spec.height} × {spec.width} and the output that the "
                f"spec says ({_one_line(error)})."
            ),
            "Correct the spec, or export it again.",
        ) from error


def _output_nodes(
    made: str, result: str, declaration: ModelDeclaration
) -> tuple[list[onnx.NodeProto], onnx.TensorProto]:
    """Nodes from the network's output to the pack's, and the tensor with their order."""
    order = numpy_helper.from_array(np.array(declaration.order, dtype=np.int64), "order")
    nodes = [helper.make_node("Gather", [made, "order"], ["ordered"], axis=1)]
    if declaration.order == tuple(range(len(declaration.order))):
        nodes = [helper.make_node("Identity", [made], ["ordered"])]
    activation = declaration.activation or "none"
    if activation == "clip":
        bounds = [np.array(value, dtype=np.float32) for value in (0.0, 1.0)]
        nodes += [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
            for name, value in zip(("lowest", "highest"), bounds, strict=True)
        ]
        nodes.append(helper.make_node("Clip", ["ordered", "lowest", "highest"], [result]))
    elif activation == "softmax":
        nodes.append(helper.make_node("Softmax", ["ordered"], [result], axis=1))
    else:
        kind = "Sigmoid" if activation == "sigmoid" else "Identity"
        nodes.append(helper.make_node(kind, ["ordered"], [result]))
    return nodes, order


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are not stored weights."""
    stored = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def _check_input(path: Path, source: onnx.ValueInfoProto, declaration: ModelDeclaration) -> None:
    spec = declaration.input
    wanted = (spec.channels, spec.height, spec.width)
    dimensions = source.type.tensor_type.shape.dim
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in dimensions]
    shown = " × ".join("any" if size is None else str(size) for size in sizes)
    if len(sizes) != 4:
        raise OnnxError(f"The input of {path} is {shown}, and has to be batch × channels × height × width.")
    if sizes[0] is not None:
        raise OnnxError(
            f"The batch of the input of {path} is fixed at {sizes[0]}.",
            (
                "Export it again with a batch that is free: dynamic_axes={name: {0: 'batch'}}, or "
                "dynamic_shapes."
            ),
        )
    if any(size is not None and size != right for size, right in zip(sizes[1:], wanted, strict=True)):
        raise OnnxError(
            f"The input of {path} is {shown}, and the spec says {' × '.join(map(str, wanted))}.",
            f"{input_remedy(declaration, sizes[1:])}",
        )


def _session(path: Path, data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _RUNTIME_ERRORS as error:
        raise OnnxError(
            f"ONNX Runtime cannot load {path} ({_one_line(error)}).", "Export it again."
        ) from error


def _inference(path: Path, data: bytes, declaration: ModelDeclaration) -> tuple[Inference, Inference]:
    """Functions that run the original file: raw output, and output in order and activated by NumPy."""
    session = _session(path, data)
    name = session.get_inputs()[0].name
    order, activation = list(declaration.order), declaration.activation or "none"

    def raw(batch: Float32Array) -> Float32Array:
        try:
            return np.asarray(session.run(None, {name: batch})[0], dtype=np.float32)
        except _RUNTIME_ERRORS as error:
            raise OnnxError(
                f"{path} cannot run on a batch of {len(batch)} ({_one_line(error)}).",
                "Export it again for input.size, with a batch that is free.",
            ) from error

    def answer(batch: Float32Array) -> Float32Array:
        return np.asarray(_activate(raw(batch)[:, order], activation), dtype=np.float32)

    return raw, answer


def _activate(values: Any, activation: str) -> Any:
    values = values.astype(np.float64)
    if activation == "sigmoid":
        return 1.0 / (1.0 + np.exp(-values))
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    return values.clip(0.0, 1.0) if activation == "clip" else values


def _extract_command(path: Path, model: onnx.ModelProto) -> str:
    """Command that extracts a model with the first input and output; or a full stop."""
    inputs = [value.name for value in _inputs(model)]
    if len(inputs) != 1 or len(model.graph.output) < 2:
        return "."
    ends = f"{inputs!r}, {[model.graph.output[0].name]!r}"
    call = f"onnx.utils.extract_model({str(path)!r}, 'one.onnx', {ends})"
    return f", or take the output that is wanted: python -c {shlex.quote(f'import onnx.utils; {call}')}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_MAX_MESSAGE]
