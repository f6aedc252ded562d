"""Whether an ONNX model keeps weights in other files, of which its own hash says nothing.

Given a model's bytes, ONNX Runtime looks for such files in the working directory. The model is walked as
protobuf, without the package `onnx`: messages that may hold a tensor are entered, those that cannot are
skipped. Parsers differ in what they make of odd encodings (C++ takes the lower 32 bits of a tag, and passes
over groups and fields that it does not know), so only what every parser reads alike is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}

_V = (_VARINT,)
_L = (_LENGTH,)
_F = (_FIXED32,)
_VARINTS = (_VARINT, _LENGTH)
_FLOATS = (_FIXED32, _LENGTH)
_DOUBLES = (_FIXED64, _LENGTH)
"""Numbers that may be repeated are written one by one, or packed into one field."""

_PLAIN: Mapping[str, Mapping[int, tuple[int, ...]]] = {
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
"""By message of onnx.proto: numbers and wire types of the fields that hold no tensor at any depth."""

_ENTERED: Mapping[str, Mapping[int, str]] = {
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
"""By message: numbers of the fields that are tensors or may hold some, and what they are."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_DEPTH = 100
"""Messages within messages that protobuf's parsers take."""
_MAX_FIELDS = 5_000_000
"""Fields that are walked, in seconds; networks have some thousands."""
_VARINT_BYTES, _TAG_BYTES = 10, 5
_MAX_LENGTH = (1 << 31) - 1
_ORT_FORMAT = b"ORTM"
"""At bytes 4 to 7 of ONNX Runtime's own format, which it takes as well and which is no protobuf."""


class OnnxEncodingError(ValueError):
    """A model whose encoding parsers may read differently. The message says what is odd in it."""


def has_external_data(model: bytes) -> bool:
    """Return True if a tensor of an ONNX model says that its values are in another file.

    Args:
        model: the serialised ModelProto.

    Raises:
        OnnxEncodingError: the model is not encoded as ONNX is, holds fields that this release does not know,
            or nests deeper than protobuf allows: what a run-time makes of it cannot be told.
    """
    if model[4:8] == _ORT_FORMAT:
        raise OnnxEncodingError("it has the mark of ONNX Runtime's own format")
    waiting = [("ModelProto", memoryview(model), 1)]
    fields = 0
    while waiting:
        kind, message, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise OnnxEncodingError(f"its messages nest deeper than {_MAX_DEPTH}")
        for number, wire, value in _fields(message):
            fields += 1
            if fields > _MAX_FIELDS:
                raise OnnxEncodingError(f"it has more than {_MAX_FIELDS} fields")
            entered = _ENTERED[kind].get(number)
            taken = _L if entered else _PLAIN[kind].get(number)
            if taken is None:
                raise OnnxEncodingError(f"its {kind} has a field {number} that this release does not know")
            if wire not in taken:
                raise OnnxEncodingError(f"field {number} of its {kind} has the wire type {wire}")
            if kind == "TensorProto" and number in (_EXTERNAL_DATA, _DATA_LOCATION) and value != 0:
                return True
            if entered and isinstance(value, memoryview):
                waiting.append((entered, value, depth + 1))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of each field of a message.

    Raises:
        OnnxEncodingError: it is no protobuf message that all parsers read alike.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place, _TAG_BYTES)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise OnnxEncodingError(f"the number of a field is {number}")
        value: int | memoryview
        if wire == _VARINT:
            value, place = _varint(message, place, _VARINT_BYTES)
        else:
            if wire == _LENGTH:
                size, place = _varint(message, place, _TAG_BYTES)
            elif wire in _SIZES:
                size = _SIZES[wire]
            else:
                raise OnnxEncodingError(f"field {number} has the wire type {wire}, which ONNX does not use")
            if size > min(_MAX_LENGTH, len(message) - place):
                raise OnnxEncodingError("a field ends behind its message")
            value = message[place : place + size]
            place += size
        yield number, wire, value


def _varint(message: memoryview, place: int, limit: int) -> tuple[int, int]:
    """A number of at most `limit` bytes, seven bits a byte, lowest first, and the place behind it."""
    number = 0
    for index, byte in enumerate(message[place : place + limit]):
        number |= (byte & 127) << (7 * index)
        if byte < 128:
            return number, place + index + 1
    raise OnnxEncodingError("a number in it has no end")
