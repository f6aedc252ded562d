"""ONNX models that refer to a file of weights: `embed_weights` against ONNX's own reading of them.

What is returned holds no reference that ONNX's parser would follow in an initialiser, and each value lies
where the reference said.
"""

from __future__ import annotations

import random
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from fuzz.harness import Target, main
from fuzz.mutation import mutated_bytes
from stenosis_trt.engine.packs.external_data import OnnxEncodingError
from stenosis_trt.engine.packs.shared_weights import SharedWeightsError, embed_weights

_FILE = "w.weights"
_WEIGHTS = bytes(range(256))
_LIMIT = 4096


def _tensor(name: str, offset: int, items: int) -> TensorProto:
    tensor = TensorProto(
        name=name, data_type=TensorProto.FLOAT16, dims=[items], data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": _FILE, "offset": str(offset), "length": str(2 * items)}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def seeds() -> list[bytes]:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    models = []
    for count in (1, 5):
        tensors = [_tensor(f"w{number}", 16 * number, 8) for number in range(count)]
        models.append(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], tensors)))
    return [bytes(model.SerializeToString()) for model in models]


def check(data: bytes, folder: Path) -> None:
    found = embed_weights(data, _WEIGHTS, _FILE, _LIMIT)
    # A tag and lengths of up to five bytes are written anew for each tensor.
    assert len(found) <= _LIMIT + 12 * len(data), "more was embedded than the limit allows"
    try:
        before, after = onnx.ModelProto.FromString(data), onnx.ModelProto.FromString(found)
    except DecodeError:
        return
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert new.data_location != TensorProto.EXTERNAL, "an initialiser still refers to a file"
        if old.data_location == TensorProto.EXTERNAL:
            named = {entry.key: entry.value for entry in old.external_data}
            first = int(named["offset"])
            assert named["location"] == _FILE, "another file was taken"
            assert new.raw_data == _WEIGHTS[first : first + int(named["length"])], "other bytes were taken"


def mutate(rng: random.Random, data: bytes) -> bytes:
    return mutated_bytes(rng, data)


TARGET = Target("shared_weights", (OnnxEncodingError, SharedWeightsError), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
