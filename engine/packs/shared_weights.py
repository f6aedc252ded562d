"""Weights that several models of a pack share: a file beside them, and their embedding into a model.

The FP32 model of a pack stores its weights as FP16, and these are the bytes of the FP16 variant too. Both
then refer to one file of weights, by ONNX's external data (location, offset, length). Runtimes never open
such a model: `embed_weights` makes the whole model in memory, and its hash is the one in pack.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from stenosis_trt.engine.packs.external_data import (
    DATA_LOCATION,
    EXTERNAL_DATA,
    LENGTH,
    MAXIMUM_FIELDS,
    MessageField,
    OnnxEncodingError,
    message_fields,
    packed_varints,
)

_GRAPH, _INITIALIZER = 7, 5
"""Fields: ModelProto.graph, GraphProto.initializer."""
_DIMS, _DATA_TYPE, _SEGMENT, _RAW_DATA = 1, 2, 3, 9
_VALUES = (4, 5, 6, 7, _RAW_DATA, 10, 11)
"""Fields of TensorProto: its dimensions, its type, and those with values."""
_KEY, _VALUE = 1, 2
"""Fields of StringStringEntryProto."""
_EXTERNAL = 1
"""TensorProto.DataLocation.EXTERNAL."""
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""Bytes of a value by TensorProto.DataType. Strings and types below a byte are not shared."""
_MAX_NUMBER_CHARACTERS = 19


Parts = list[bytes | memoryview]
"""Parts of a serialised message, in order."""


class SharedWeightsError(ValueError):
    """A model that does not refer to its file of weights as it has to. The message says what is wrong."""


def embed_weights(model: bytes, weights: bytes, location: str, limit: int) -> bytes:
    """Return an ONNX model with the values that its initialisers have in a file of weights.

    Only initialisers of the main graph are embedded; references elsewhere are left for `has_external_data`.
    The result is byte for byte what `onnx` writes for the whole model.

    Args:
        model: serialised ModelProto; untrusted.
        weights: content of the file of weights.
        location: name of that file, which references have to give exactly.
        limit: largest size of the result in bytes.

    Raises:
        SharedWeightsError: a reference names another file, or a range that is not in it or not of the size of
            the tensor, or the result would exceed `limit`.
        OnnxEncodingError: parsers may read the model differently.
    """
    bounds = _Bounds(limit - len(model))
    source = memoryview(weights)

    def tensor(field: MessageField) -> Parts:
        return _embed_tensor(_message(field), source, location, bounds)

    def graph(field: MessageField) -> Parts:
        return _rewritten(bounds.fields(_message(field)), _INITIALIZER, tensor)

    return b"".join(_rewritten(bounds.fields(memoryview(model)), _GRAPH, graph))


class _Bounds:
    """What may still be read and embedded: fields, and bytes, since many initialisers may name the same."""

    def __init__(self, bytes_left: int) -> None:
        self._bytes_left, self._fields_left = bytes_left, MAXIMUM_FIELDS

    def take(self, count: int) -> None:
        """Take bytes that are embedded."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise SharedWeightsError("with its weights it is larger than a model may be")

    def fields(self, message: memoryview) -> Iterator[MessageField]:
        """Fields of a message."""
        for field in message_fields(message):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise SharedWeightsError(f"it has more than {MAXIMUM_FIELDS} fields")
            yield field


def _rewritten(
    fields: Iterator[MessageField], number: int, rewrite: Callable[[MessageField], Parts]
) -> Parts:
    """Return the parts of a message in which the fields of one number were rewritten."""
    parts: Parts = []
    for field in fields:
        if field.number != number:
            parts.append(field.raw)
            continue
        inner = rewrite(field)
        parts += [_head(number, sum(len(part) for part in inner)), *inner]
    return parts


def _embed_tensor(tensor: memoryview, weights: memoryview, location: str, bounds: _Bounds) -> Parts:
    fields = list(bounds.fields(tensor))
    if not any(field.number in (EXTERNAL_DATA, DATA_LOCATION) and field.value != 0 for field in fields):
        return [tensor]
    if any(field.number in (*_VALUES, _SEGMENT) for field in fields):
        raise SharedWeightsError("a tensor has values both in the file and elsewhere")
    if [field.value for field in fields if field.number == DATA_LOCATION] != [_EXTERNAL]:
        raise SharedWeightsError("a tensor does not say plainly where its values are")
    offset, length = _range(fields, location)
    if offset + length > len(weights):
        raise SharedWeightsError(f"a tensor ends behind {location}")
    if length != _tensor_bytes(fields):
        raise SharedWeightsError(f"a tensor has another size than its part of {location}")
    bounds.take(length)
    kept = [field for field in fields if field.number not in (EXTERNAL_DATA, DATA_LOCATION)]
    return [
        *(field.raw for field in kept if field.number < _RAW_DATA),
        _head(_RAW_DATA, length),
        weights[offset : offset + length],
        *(field.raw for field in kept if field.number > _RAW_DATA),
    ]


def _range(fields: list[MessageField], location: str) -> tuple[int, int]:
    """Return offset and length of a tensor in the file of weights."""
    entries: dict[str, str] = {}
    for field in fields:
        if field.number == EXTERNAL_DATA:
            key, value = _entry(_message(field))
            if key in entries:
                raise SharedWeightsError(f"a tensor has two entries {key!r}")
            entries[key] = value
    if set(entries) != {"location", "offset", "length"}:
        raise SharedWeightsError("a tensor does not give location, offset and length")
    if not location or entries["location"] != location:
        raise SharedWeightsError("a tensor names another file than the pack has for its weights")
    return _number(entries["offset"]), _number(entries["length"])


def _entry(entry: memoryview) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto."""
    found = [(field.number, bytes(_message(field))) for field in message_fields(entry)]
    if [number for number, _ in found] != [_KEY, _VALUE]:
        raise OnnxEncodingError("an entry of a tensor is not a key and a value")
    try:
        key, value = (text.decode("ascii") for _, text in found)
    except UnicodeDecodeError as error:
        raise SharedWeightsError("a tensor names its values by other than ASCII characters") from error
    return key, value


def _number(text: str) -> int:
    if not (text.isdigit() and len(text) <= _MAX_NUMBER_CHARACTERS):
        raise SharedWeightsError("an offset or a length is not a number")
    return int(text)


def _tensor_bytes(fields: list[MessageField]) -> int:
    """Return the bytes of a tensor's values, from its type and dimensions."""
    kinds = [field.value for field in fields if field.number == _DATA_TYPE]
    kind = kinds[0] if len(kinds) == 1 else None
    if not isinstance(kind, int) or kind not in _ITEM_BYTES:
        raise SharedWeightsError("a tensor has a type that is not shared")
    return math.prod(_dimensions(fields)) * _ITEM_BYTES[kind]


def _dimensions(fields: list[MessageField]) -> Iterator[int]:
    for field in fields:
        if field.number == _DIMS:
            yield from [field.value] if isinstance(field.value, int) else packed_varints(field.value)


def _message(field: MessageField) -> memoryview:
    if field.wire != LENGTH or isinstance(field.value, int):
        raise OnnxEncodingError(f"field {field.number} has the wire type {field.wire}")
    return field.value


def _head(number: int, length: int) -> bytes:
    """Tag and length of a field of bytes."""
    return _varint(number << 3 | LENGTH) + _varint(length)


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)
