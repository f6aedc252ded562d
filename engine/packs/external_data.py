"""Detection of external data: ONNX tensors whose values lie in another file, which no hash covers.

ONNX Runtime looks for such files in the working directory when it loads a model from bytes, so a model is
opened only once it holds all its values (`shared_weights.py`). The model is
parsed as protobuf without the package `onnx`: messages that may contain a tensor are parsed, all others are
skipped. Protobuf parsers disagree on unusual encodings (C++ keeps the lower 32 bits of a tag and skips groups
and unknown fields), so any encoding that is not read the same way by every parser is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

VARINT, LENGTH = 0, 2
"""Wire types of an integer, and of bytes or a message."""

_FIXED64, _FIXED32 = 1, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}

# Wire types of a field: an integer, bytes or a message, a float; then of repeated integers and floats.
_V = (VARINT,)
_L = (LENGTH,)
_F = (_FIXED32,)
_VARINTS = (VARINT, LENGTH)
_FLOATS = (_FIXED32, LENGTH)
_DOUBLES = (_FIXED64, LENGTH)
"""Wire types of repeated numbers: one field a number, or one packed field."""

_SKIPPED_FIELDS: Mapping[str, Mapping[int, tuple[int, ...]]] = {
    "ModelProto": {1: _V, 2: _L, 3: _L, 4: _L, 5: _V, 6: _L, 8: _L, 14: _L, 26: _L},
    "GraphProto": {2: _L, 10: _L, 11: _L, 12: _L, 13: _L, 14: _L, 16: _L},
    "NodeProto": {1: _L, 2: _L, 3: _L, 4: _L, 6: _L, 7: _L, 8: _L, 9: _L, 10: _L},
    "AttributeProto": {
        **{1: _L, 2: _F, 3: _V, 4: _L, 7: _FLOATS, 8: _VARINTS, 9: _L, 13: _L, 14: _L, 15: _L},
        **{20: _V, 21: _L},
    },
    "SparseTensorProto": {3: _VARINTS},
    "TrainingInfoProto": {3: _L, 4: _L},
    "FunctionProto": {1: _L, 4: _L, 5: _L, 6: _L, 8: _L, 9: _L, 10: _L, 12: _L, 13: _L, 14: _L},
    "TensorProto": {
        **{1: _VARINTS, 2: _V, 3: _L, 4: _FLOATS, 5: _VARINTS, 6: _L, 7: _VARINTS, 8: _L, 9: _L},
        **{10: _DOUBLES, 11: _VARINTS, 12: _L, 13: _L, 14: _V, 16: _L},
    },
}
"""Fields of each message of onnx.proto that contain no tensor at any depth: number to wire types."""

_PARSED_FIELDS: Mapping[str, Mapping[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        **{5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto"},
        **{22: "SparseTensorProto", 23: "SparseTensorProto"},
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TensorProto": {},
}
"""Fields of each message that are or may contain tensors: number to the message they hold."""

EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of a TensorProto whose values lie in another file."""

_MAX_DEPTH = 100
"""Nesting limit of protobuf's own parsers."""
MAXIMUM_FIELDS = 5_000_000
"""Limit of the fields parsed, which takes seconds. Networks have some thousands."""
_VARINT_BYTES, _TAG_BYTES = 10, 5
_MAX_LENGTH = (1 << 31) - 1
_ORT_FORMAT = b"ORTM"
"""Bytes 4 to 7 of ONNX Runtime's own format (FlatBuffers), which it also loads."""


class OnnxEncodingError(ValueError):
    """An encoding that parsers may read differently. The message names what is unusual."""


class MessageField(NamedTuple):
    """One field of a serialised message.

    Attributes:
        number: number of the field.
        wire: wire type.
        value: an integer, or the bytes of anything else.
        raw: the field as it is encoded, with its tag.
    """

    number: int
    wire: int
    value: int | memoryview
    raw: memoryview


def has_external_data(model: bytes) -> bool:
    """Return True if a tensor of an ONNX model stores its values in another file.

    Args:
        model: the serialised ModelProto.

    Raises:
        OnnxEncodingError: the model is not a ModelProto, contains unknown fields, or nests deeper than
            protobuf allows: how a runtime would read it is unknown.
    """
    if model[4:8] == _ORT_FORMAT:
        raise OnnxEncodingError("it has the mark of ONNX Runtime's own format")
    pending = [("ModelProto", memoryview(model), 1)]
    fields = 0
    while pending:
        kind, message, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise OnnxEncodingError(f"its messages nest deeper than {_MAX_DEPTH}")
        for number, wire, value, _ in message_fields(message):
            fields += 1
            if fields > MAXIMUM_FIELDS:
                raise OnnxEncodingError(f"it has more than {MAXIMUM_FIELDS} fields")
            submessage = _PARSED_FIELDS[kind].get(number)
            allowed = _L if submessage else _SKIPPED_FIELDS[kind].get(number)
            if allowed is None:
                raise OnnxEncodingError(f"its {kind} has a field {number} that this release does not know")
            if wire not in allowed:
                raise OnnxEncodingError(f"field {number} of its {kind} has the wire type {wire}")
            if kind == "TensorProto" and number in (EXTERNAL_DATA, DATA_LOCATION) and value != 0:
                return True
            if submessage and isinstance(value, memoryview):
                pending.append((submessage, value, depth + 1))
    return False


def message_fields(message: memoryview) -> Iterator[MessageField]:
    """Yield the fields of a message in their order.

    Raises:
        OnnxEncodingError: parsers may read the message differently.
    """
    offset = 0
    while offset < len(message):
        start = offset
        tag, offset = _varint(message, offset, _TAG_BYTES)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise OnnxEncodingError(f"the number of a field is {number}")
        value: int | memoryview
        if wire == VARINT:
            value, offset = _varint(message, offset, _VARINT_BYTES)
        else:
            if wire == LENGTH:
                size, offset = _varint(message, offset, _TAG_BYTES)
            elif wire in _SIZES:
                size = _SIZES[wire]
            else:
                raise OnnxEncodingError(f"field {number} has the wire type {wire}, which ONNX does not use")
            if size > min(_MAX_LENGTH, len(message) - offset):
                raise OnnxEncodingError("a field ends behind its message")
            value = message[offset : offset + size]
            offset += size
        yield MessageField(number, wire, value, message[start:offset])


def packed_varints(values: memoryview) -> Iterator[int]:
    """Yield the integers of a packed repeated field.

    Raises:
        OnnxEncodingError: the last one has no end.
    """
    offset = 0
    while offset < len(values):
        value, offset = _varint(values, offset, _VARINT_BYTES)
        yield value


def _varint(message: memoryview, offset: int, limit: int) -> tuple[int, int]:
    """Decode a varint of at most `limit` bytes (7 bits a byte, lowest first); return it and its end."""
    number = 0
    for index, byte in enumerate(message[offset : offset + limit]):
        number |= (byte & 127) << (7 * index)
        if byte < 128:
            return number, offset + index + 1
    raise OnnxEncodingError("a number in it has no end")
