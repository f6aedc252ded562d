"""Models that keep weights in other files: no hash of the pack vouches for those."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.onnx_external import keeps_data_elsewhere
from stenosis_trt.engine.pack import MANIFEST, Pack, PackError, reference_pack


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
    "model",
    [_as_initializer, _as_constant, _in_a_branch, _in_a_function, _sparse, _in_a_list, _in_training],
)
def test_external_values_are_found_wherever_a_tensor_can_be(
    model: Callable[[TensorProto], onnx.ModelProto],
) -> None:
    assert keeps_data_elsewhere(model(_tensor(True)).SerializeToString())
    assert not keeps_data_elsewhere(model(_tensor(False)).SerializeToString())


@pytest.mark.parametrize("name", ["levels", "grader", "cord"])
def test_the_reference_models_keep_everything_in_their_files(name: str) -> None:
    assert not keeps_data_elsewhere((reference_pack() / f"{name}.onnx").read_bytes())


def test_a_group_that_could_hide_something_counts_as_elsewhere() -> None:
    data = _as_initializer(_tensor(False)).SerializeToString()
    # Field 99, wire types 3 and 4: a group begins and ends.
    group = data + bytes([0x9B, 0x06, 0x9C, 0x06])
    # Protobuf itself passes over it.
    assert onnx.load_model_from_string(group).graph.name == "g"
    assert keeps_data_elsewhere(group)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x80" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"\x3f"])
def test_what_is_no_protobuf_is_left_to_who_opens_it(data: bytes) -> None:
    assert not keeps_data_elsewhere(data)


def test_a_pack_with_such_a_model_is_refused_though_its_hash_is_right(tmp_path: Path) -> None:
    folder = write_tiny_pack(tmp_path / "pack").path
    data = _as_initializer(_tensor(True)).SerializeToString()
    (folder / "cord.onnx").write_bytes(data)
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    content["models"]["cord"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(PackError, match=r"cord\.onnx of pack tiny keeps weights in other files"):
        Pack.load(folder)
