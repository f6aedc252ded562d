"""Weights of several models in one file: equal bytes once, and each model comes back as it was."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stenosis_trt.engine.packs.shared_weights import embed_weights
from stenosis_trt.export.packs.shared_weights import SHARED_FROM_BYTES, share_weights

_FILE = "grader.weights"


def _model(**values: np.ndarray) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:], tensors)
    return bytes(helper.make_model(graph).SerializeToString())


def _back(model: bytes, weights: bytes) -> bytes:
    return embed_weights(model, weights, _FILE, 1 << 20)


def test_equal_bytes_are_stored_once_whatever_they_are_called() -> None:
    draw = np.random.default_rng(0)
    common, first, second = (draw.normal(size=700).astype(np.float16) for _ in range(3))
    whole = {"fp32": _model(a=common, b=first), "fp16": _model(c=common, d=second, e=common.copy())}
    shared, weights = share_weights(whole, _FILE)
    assert {name: _back(data, weights) for name, data in shared.items()} == whole
    assert 3 * common.nbytes <= len(weights) < 3 * common.nbytes + 3 * 64
    assert sum(map(len, shared.values())) < 1500


def test_small_tensors_stay_in_their_model() -> None:
    small = np.zeros(SHARED_FROM_BYTES, np.int8)
    whole = {"a": _model(w=small), "b": _model(w=small)}
    assert share_weights(whole, _FILE) == (whole, b"")


def test_a_model_that_shares_with_none_is_left_as_it_is() -> None:
    whole = {"fp32": _model(w=np.ones(5000, np.float32))}
    assert share_weights(whole, _FILE) == (whole, b"")


def test_a_model_that_would_not_come_back_as_it_was_keeps_its_weights() -> None:
    values = np.ones(5000, np.float32)
    # The version in front of the graph instead of behind it: another order than onnx writes.
    model = onnx.load_model_from_string(_model(w=values))
    graph = onnx.ModelProto(graph=model.graph).SerializeToString()
    model.ClearField("graph")
    odd = graph + model.SerializeToString()
    whole = {"odd": odd, "usual": _model(w=values), "other": _model(v=values)}
    shared, weights = share_weights(whole, _FILE)
    assert shared["odd"] == odd
    assert {name: _back(data, weights) for name, data in shared.items()} == whole
    assert len(weights) == values.nbytes
