"""ONNX models that keep weights elsewhere: `has_external_data` against those who open models.

What ONNX's parser takes for external data must be found. What that parser refuses and ONNX Runtime's may
take, as tags of more bytes than they need, must not make ONNX Runtime reach for another file either.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from fuzz.harness import Target, main
from fuzz.mutation import mutated_bytes
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.external_data import OnnxEncodingError, has_external_data

_ELSEWHERE = "weights.bin"
_VARINT, _LENGTH = 0, 2


def _tensor(external: bool) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "w")
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", _ELSEWHERE
    return tensor


def _model(external: bool) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "b", [], ends[1:], [_tensor(external)]
    )
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [_tensor(False)])
    return bytes(helper.make_model(graph).SerializeToString())


def seeds() -> list[bytes]:
    return [_model(False), _model(True)]


def check(data: bytes, folder: Path) -> None:
    try:
        external = any(map(_is_external, _tensors(onnx.ModelProto.FromString(data))))
    except DecodeError:
        external = _runtime_reaches_out(data)
    assert has_external_data(data) or not external, "weights in another file are not seen"


def _runtime_reaches_out(data: bytes) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - it has an exception for each of its codes
        return _ELSEWHERE in str(error)
    return False


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.external_data) or tensor.data_location == TensorProto.EXTERNAL


def _tensors(message: object) -> list[TensorProto]:
    """Every tensor in a message, wherever it lies."""
    found: list[TensorProto] = []
    waiting = [message]
    while waiting:
        item = waiting.pop()
        if isinstance(item, TensorProto):
            found.append(item)
        for field, value in item.ListFields():  # type: ignore[attr-defined]
            if field.message_type is not None:
                waiting += list(value) if hasattr(value, "__len__") else [value]
    return found


def mutate(rng: random.Random, data: bytes) -> bytes:
    """A tag written with more bytes than it needs, as some parsers take it, or bytes changed."""
    places = _tags(data)
    if not places or rng.random() < 0.5:
        return mutated_bytes(rng, data)
    place = rng.choice(places)
    longer = [data[place] | 0x80, *[0x80] * rng.choice((0, 1, 3, 3, 7)), rng.choice((0, 0x10, 0x7F))]
    return data[:place] + bytes(longer) + data[place + 1 :]


def _tags(data: bytes) -> list[int]:
    """Where fields at the top begin whose tag has one byte and whose length has one or two."""
    found, place = [], 0
    while place + 2 < len(data) and data[place] < 0x80:
        found.append(place)
        wire, place = data[place] & 7, place + 1
        value, place = data[place] & 0x7F, place + 1
        if data[place - 1] >= 0x80:
            value, place = value | data[place] << 7, place + 1
        if wire == _LENGTH:
            place += value
        elif wire != _VARINT:
            break
    return found


TARGET = Target("external_data", (PackError, OnnxEncodingError), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
