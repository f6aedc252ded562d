"""Moving equal weights of several ONNX models into one file; see `engine.packs.shared_weights`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import onnx
from onnx import TensorProto

from stenosis_trt.engine.packs.files import MAXIMUM_MODEL_BYTES
from stenosis_trt.engine.packs.shared_weights import embed_weights

SHARED_FROM_BYTES = 1024
"""Smaller tensors stay in each model: a reference takes about 70 bytes."""
_ALIGNMENT = 64


def share_weights(models: Mapping[str, bytes], location: str) -> tuple[dict[str, bytes], bytes]:
    """Move the weights of models into one file, in which equal bytes are stored once.

    Args:
        models: ONNX models with their weights, by any key.
        location: name of the file of weights, which lies beside them.

    Returns:
        The models with references to the file, and its content. A model that would not come back byte for
        byte keeps its weights; so does one that is given alone, since it shares nothing.
    """
    if len(models) < 2:
        return dict(models), b""
    weights = _Weights(location)
    shared = {}
    for name, data in models.items():
        before = weights.copy()
        shared[name] = weights.move(data)
        back = embed_weights(shared[name], bytes(weights.content), location, MAXIMUM_MODEL_BYTES)
        if back != data:
            shared[name], weights = data, before
    return shared, bytes(weights.content)


class _Weights:
    """Content of a file of weights that grows with each model."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._offsets: dict[bytes, int] = {}
        self.content = bytearray()

    def copy(self) -> _Weights:
        """Return a copy that grows on its own."""
        copied = _Weights(self._location)
        copied._offsets, copied.content = dict(self._offsets), bytearray(self.content)
        return copied

    def move(self, data: bytes) -> bytes:
        """Return a model whose large initialisers refer to the file, and add their values to it."""
        model = onnx.load_model_from_string(data)
        for item in model.graph.initializer:
            if len(item.raw_data) > SHARED_FROM_BYTES:
                entries = {
                    "location": self._location,
                    "offset": str(self._place(item.raw_data)),
                    "length": str(len(item.raw_data)),
                }
                item.ClearField("raw_data")
                item.data_location = TensorProto.EXTERNAL
                for key, value in entries.items():
                    item.external_data.add(key=key, value=value)
        return bytes(model.SerializeToString())

    def _place(self, values: bytes) -> int:
        key = hashlib.sha256(values).digest()
        if key not in self._offsets:
            self.content += bytes(-len(self.content) % _ALIGNMENT)
            self._offsets[key] = len(self.content)
            self.content += values
        return self._offsets[key]
