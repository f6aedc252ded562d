"""Whether an ONNX model keeps weights in other files, of which its own hash says nothing.

Given a model's bytes, ONNX Runtime looks for such files in the working directory. The model is walked as
protobuf, without the package `onnx`: messages that may hold a tensor are entered, the rest is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_HOLDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "tensor": {},
}
"""By message of onnx.proto: numbers of the fields that are tensors or may hold some, and what they are."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _LENGTH = 0, 2
_SIZES = {1: 8, 5: 4}
_GROUPS = (3, 4)
_VARINT_BYTES = 10


def keeps_data_elsewhere(model: bytes) -> bool:
    """Whether a tensor of an ONNX model says that its values are in another file.

    What is no protobuf keeps nothing anywhere, and is no model to whoever opens it. ONNX has no groups, and
    protobuf passes over them: a model with one counts as keeping data elsewhere.
    """
    waiting = [("model", memoryview(model))]
    try:
        while waiting:
            kind, message = waiting.pop()
            for number, wire, value in _fields(message):
                if wire in _GROUPS:
                    return True
                if kind == "tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION) and value != 0:
                    return True
                if wire == _LENGTH and number in _HOLDS[kind] and isinstance(value, memoryview):
                    waiting.append((_HOLDS[kind][number], value))
    except ValueError:
        return False
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of each field of a message.

    Raises:
        ValueError: it is no protobuf message.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview = 0
        if wire == _VARINT:
            value, place = _varint(message, place)
        elif wire not in _GROUPS:
            if wire == _LENGTH:
                size, place = _varint(message, place)
            elif wire in _SIZES:
                size = _SIZES[wire]
            else:
                raise ValueError("no wire type of protobuf")
            if size > len(message) - place:
                raise ValueError("a field that ends behind its message")
            value = message[place : place + size]
            place += size
        yield number, wire, value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number that is seven bits a byte, lowest first, and the place behind it."""
    number = 0
    for index, byte in enumerate(message[place : place + _VARINT_BYTES]):
        number |= (byte & 127) << (7 * index)
        if byte < 128:
            return number, place + index + 1
    raise ValueError("a number without an end")
