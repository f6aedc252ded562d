"""Models that keep weights in other files: no hash of the pack vouches for those."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.external_data import (
    _PARSED_FIELDS,
    _SKIPPED_FIELDS,
    OnnxEncodingError,
    has_external_data,
)
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack, reference_pack


def _tensor(external: bool, name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "weights.bin"
    return tensor


def _graph(nodes: list[onnx.NodeProto], initializers: list[TensorProto]) -> onnx.GraphProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    return helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)


def _as_initializer(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(_graph([helper.make_node("Add", ["x", "w"], ["y"])], [tensor]))


def _as_constant(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(_graph([helper.make_node("Constant", [], ["y"], value=tensor)], []))


def _in_a_branch(tensor: TensorProto) -> onnx.ModelProto:
    branch = _as_initializer(tensor).graph
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_model(_graph([node], []))


def _in_a_function(tensor: TensorProto) -> onnx.ModelProto:
    model = _as_initializer(_tensor(False))
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "f", ["x"], ["y"], [node], opset))
    return model


def _sparse(tensor: TensorProto) -> onnx.ModelProto:
    model = _as_initializer(_tensor(False))
    indices = numpy_helper.from_array(np.arange(4), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [4]))
    return model


def _in_a_list(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Own", [], ["y"], values=[_tensor(False), tensor])
    return helper.make_model(_graph([node], []))


def _in_training(tensor: TensorProto) -> onnx.ModelProto:
    model = _as_initializer(_tensor(False))
    model.training_info.add().initialization.CopyFrom(_as_initializer(tensor).graph)
    return model


@pytest.mark.parametrize(
    "model", [_as_initializer, _as_constant, _in_a_branch, _in_a_function, _sparse, _in_a_list, _in_training]
)
def test_external_values_are_found_wherever_a_tensor_can_be(
    model: Callable[[TensorProto], onnx.ModelProto],
) -> None:
    assert has_external_data(model(_tensor(True)).SerializeToString())
    assert not has_external_data(model(_tensor(False)).SerializeToString())


@pytest.mark.parametrize("name", ["levels", "grader", "cord"])
def test_the_reference_models_are_read_with_everything_in_them(name: str) -> None:
    assert not has_external_data(Pack.load(reference_pack()).read_model(name))


def _number(value: int, size: int = 0) -> bytes:
    """A varint, of at least `size` bytes."""
    data = bytearray()
    while value > 127 or len(data) < size - 1:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def _field(number: int, content: bytes, more: int = 0, size: int = 0) -> bytes:
    """A field of bytes; `more` is added to its tag, which takes at least `size` bytes."""
    return _number((number << 3 | 2) + more, size) + _number(len(content)) + content


def _hidden(tag: bytes) -> bytes:
    """A model whose graph, with a weight in another file, lies behind this tag."""
    model = _as_initializer(_tensor(True))
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + tag + _number(len(graph)) + graph


def test_a_graph_behind_a_tag_of_which_a_parser_drops_bits_is_refused() -> None:
    """C++ takes the lower 32 bits: field 7, and ONNX Runtime reaches for the weights."""
    data = _hidden(_number((7 << 3 | 2) + (1 << 32)))
    with pytest.raises(Exception, match=r"weights\.bin|external data"):
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    with pytest.raises(OnnxEncodingError):
        has_external_data(data)


def test_a_tag_with_more_bytes_than_it_needs_hides_nothing() -> None:
    assert has_external_data(_hidden(_number(7 << 3 | 2, 5)))
    with pytest.raises(OnnxEncodingError):
        has_external_data(_hidden(_number(7 << 3 | 2, 6)))


_SOUND = _as_initializer(_tensor(False)).SerializeToString()
# The initialiser of a graph as a number, in place of a message.
_WRONG_TYPE = _field(7, _number(5 << 3 | 0) + _number(1))


@pytest.mark.parametrize(
    "data",
    [
        # Field 99, wire types 3 and 4: a group begins and ends. Protobuf itself passes over it.
        _SOUND + bytes([0x9B, 0x06, 0x9C, 0x06]),
        _SOUND + _field(99, b""),
        _SOUND + _field(7, _field(99, b"")),
        _SOUND + _WRONG_TYPE,
        _SOUND + b"\x00\x00",
        _SOUND + b"\x3a\xff\xff\xff\xff\x0f",
        _SOUND[:-1],
        b"no model",
        b"\x80" * 40,
        b"\x3f",
        # The mark of ONNX Runtime's own format, inside a name that protobuf reads.
        b"\x12\x10..ORTM" + b"." * 12,
    ],
)
def test_what_parsers_may_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(OnnxEncodingError):
        has_external_data(data)


def test_messages_nested_deeper_than_protobuf_goes_are_refused() -> None:
    branch = b""
    for _ in range(40):
        branch = _field(1, _field(5, _field(6, branch)))
    with pytest.raises(OnnxEncodingError, match="nest deeper"):
        has_external_data(_field(7, branch))


def test_the_fields_that_are_known_are_those_of_onnx() -> None:
    """A field that onnx gets is refused until it stands in the table."""
    for name, plain in _SKIPPED_FIELDS.items():
        known = {**dict.fromkeys(plain), **_PARSED_FIELDS[name]}
        fields = getattr(onnx, name).DESCRIPTOR.fields
        assert set(known) == {field.number for field in fields}
        for field in fields:
            kind = field.message_type.name if field.message_type else None
            assert known[field.number] == (kind if kind in _SKIPPED_FIELDS else None), (name, field.name)


def _found_by_onnx(message: Any) -> bool:
    """Whether a tensor at any depth names other files, by onnx's own parser."""
    if isinstance(message, TensorProto) and (
        message.data_location == TensorProto.EXTERNAL or message.external_data
    ):
        return True
    return any(
        _found_by_onnx(item)
        for field, value in message.ListFields()
        if field.message_type is not None
        for item in (value if field.is_repeated else [value])
    )


_PLACES = (_as_initializer, _as_constant, _in_a_branch, _in_a_function, _sparse, _in_a_list, _in_training)


@settings(max_examples=300, deadline=None)
@given(
    place=st.sampled_from(_PLACES),
    external=st.booleans(),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6), st.integers(0, 6)), max_size=3),
)
def test_whatever_onnx_finds_in_a_model_as_it_was_changed_is_found_or_refused(
    place: Callable[[TensorProto], onnx.ModelProto], external: bool, edits: list[tuple[int, bytes, int]]
) -> None:
    data = bytes(place(_tensor(external)).SerializeToString())
    for start, put, removed in edits:
        start %= len(data) + 1
        data = data[:start] + put + data[start + removed :]
    try:
        elsewhere = has_external_data(data)
    except OnnxEncodingError:
        return
    if elsewhere:
        return
    # What is taken for whole is read by onnx alike, if at all: a text may be no UTF-8.
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        return
    assert not _found_by_onnx(model)


def test_a_pack_with_a_model_of_unknown_encoding_is_refused(tmp_path: Path) -> None:
    folder = _with_cord(tmp_path / "pack", _hidden(_number((7 << 3 | 2) + (1 << 32))))
    with pytest.raises(
        PackError, match=r"cord\.onnx of pack tiny is not encoded as an ONNX model is: .*told"
    ):
        Pack.load(folder)


def _with_cord(folder: Path, data: bytes) -> Path:
    """A pack with this model in it, its hash as it has to be."""
    write_tiny_pack(folder)
    (folder / "cord.onnx").write_bytes(data)
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    content["models"]["cord"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_pack_with_external_data_is_refused_though_its_hash_is_right(tmp_path: Path) -> None:
    folder = _with_cord(tmp_path / "pack", _as_initializer(_tensor(True)).SerializeToString())
    with pytest.raises(PackError, match=r"cord\.onnx of pack tiny keeps weights in other files"):
        Pack.load(folder)
