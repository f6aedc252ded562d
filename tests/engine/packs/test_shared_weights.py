"""Weights that several models share: they are read from the pack alone, and a hash vouches for each byte."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from shared_weights_pack import PRECISIONS, with_weights, write_shared_pack
from signing_keys import write_pair
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.external_data import OnnxEncodingError, has_external_data
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.packs.shared_weights import SharedWeightsError, embed_weights
from stenosis_trt.engine.plans.signing import sign_pack

_FILE = "w.weights"
_WEIGHTS = bytes(range(256)) * 16
_LIMIT = 1 << 20


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return write_shared_pack(tmp_path / "pack")


def test_a_model_is_read_with_its_weights_and_has_the_hash_of_the_whole(pack: Pack, tmp_path: Path) -> None:
    plain = write_tiny_pack(tmp_path / "plain")
    for name, model in pack.models.items():
        data = pack.read_model(name)
        assert data == with_weights(plain.read_model(name), "fp32")
        assert hashlib.sha256(data).hexdigest() == model.sha256
        assert len((pack.path / model.file).read_bytes()) < len(data) - 1500
        assert pack.read_variant(name, "fp16") == with_weights(plain.read_model(name), "fp16")
    for precision in PRECISIONS:
        CpuBackend(pack.in_precision(precision)).close()


def test_the_files_are_onnx_with_external_data_as_other_tools_read_it(pack: Pack) -> None:
    whole = onnx.load_model_from_string(pack.read_model("cord"))
    (found,) = (
        item for item in onnx.load(pack.path / "cord.onnx").graph.initializer if item.name == "weights"
    )
    (expected,) = (item for item in whole.graph.initializer if item.name == "weights")
    assert found.raw_data == expected.raw_data


@pytest.mark.parametrize("top", ["", "pack"])
def test_a_zip_holds_the_weights_too(pack: Pack, tmp_path: Path, top: str) -> None:
    root = pack.path.parent if top else pack.path
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", root, top or None)
    zipped = Pack.load(Path(archive))
    assert [zipped.read_model(name) for name in zipped.models] == [pack.read_model(n) for n in pack.models]


@pytest.mark.parametrize("place", [0, -1])
def test_changed_weights_are_refused(pack: Pack, place: int) -> None:
    path = pack.path / "cord.weights"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(PackError, match=r"cord\.weights of pack tiny is not the file its manifest names"):
        Pack.load(pack.path)
    with pytest.raises(PackError, match=r"cord\.weights of pack tiny is not the file its manifest names"):
        pack.read_model("cord")


def test_a_signature_covers_the_weights(pack: Pack) -> None:
    pair = write_pair(pack.path.parent)
    sign_pack(pack, pair.key)
    assert Pack.load(pack.path, pair.trust).signed_by == pair.public_key.fingerprint
    path = pack.path / "grader.weights"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(PackError, match=r"grader\.weights"):
        Pack.load(pack.path, pair.trust)


def _change_entry(pack: Pack, **values: str) -> None:
    content = json.loads((pack.path / MANIFEST).read_text(encoding="utf-8"))
    content["models"]["cord"]["weights"].update(values)
    (pack.path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("file", ["../cord.weights", "/cord.weights"])
def test_weights_outside_of_the_pack_are_not_read(pack: Pack, file: str) -> None:
    shutil.copy(pack.path / "cord.weights", pack.path.parent)
    _change_entry(pack, file=file)
    with pytest.raises(PackError, match="names a file outside itself"):
        Pack.load(pack.path)


def test_a_link_to_weights_outside_of_the_pack_is_not_followed(pack: Pack) -> None:
    outside = pack.path.parent / "outside"
    (pack.path / "cord.weights").rename(outside)
    (pack.path / "cord.weights").symlink_to(outside)
    with pytest.raises(PackError, match="is a link to a file outside the pack"):
        Pack.load(pack.path)


def test_weights_lie_beside_the_files_that_name_them(pack: Pack) -> None:
    (pack.path / "inner").mkdir()
    (pack.path / "cord.weights").rename(pack.path / "inner" / "cord.weights")
    _change_entry(pack, file="inner/cord.weights")
    with pytest.raises(PackError, match="names another file than the pack has for its weights"):
        Pack.load(pack.path)


def test_a_pack_of_a_later_layout_names_those_that_are_read(pack: Pack) -> None:
    content = json.loads((pack.path / MANIFEST).read_text(encoding="utf-8"))
    (pack.path / MANIFEST).write_text(json.dumps({**content, "schema": 3}), encoding="utf-8")
    with pytest.raises(PackError, match="has layout 3, and this release reads 1 and 2"):
        Pack.load(pack.path)


def _tensor(**entries: str) -> TensorProto:
    """Four FP32 values, in the file of weights from byte 64 on unless `entries` say otherwise."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": _FILE, "offset": "64", "length": "16", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _model(*tensors: TensorProto) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return bytes(
        helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], tensors)).SerializeToString()
    )


def test_the_result_is_what_onnx_writes_for_the_whole_model() -> None:
    tensor = _tensor()
    tensor.doc_string = "said"
    whole = TensorProto()
    whole.CopyFrom(tensor)
    whole.ClearField("external_data")
    whole.ClearField("data_location")
    whole.raw_data = _WEIGHTS[64:80]
    other = numpy_helper.from_array(np.ones(3, np.int64), "other")
    assert embed_weights(_model(tensor, other), _WEIGHTS, _FILE, _LIMIT) == _model(whole, other)
    assert embed_weights(_model(other), _WEIGHTS, _FILE, _LIMIT) == _model(other)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "other"}, "names another file"),
        ({"location": f"./{_FILE}"}, "names another file"),
        ({"location": f"../{_FILE}"}, "names another file"),
        ({"offset": "-16"}, "is not a number"),
        ({"offset": " 64"}, "is not a number"),
        ({"offset": "6" * 20}, "is not a number"),
        ({"offset": ""}, "is not a number"),
        ({"offset": "\u0664"}, "other than ASCII"),
        ({"offset": str(len(_WEIGHTS) - 15)}, "ends behind"),
        ({"offset": str((1 << 64) - 16)}, "is not a number"),
        ({"offset": str((1 << 63) - 16)}, "ends behind"),
        ({"length": "12"}, "has another size"),
        ({"length": "20"}, "has another size"),
        ({"checksum": "0"}, "does not give location, offset and length"),
    ],
)
def test_a_reference_to_anything_else_is_refused(entries: dict[str, str], words: str) -> None:
    with pytest.raises(SharedWeightsError, match=words):
        embed_weights(_model(_tensor(**entries)), _WEIGHTS, _FILE, _LIMIT)


def _both(tensor: TensorProto) -> None:
    tensor.raw_data = bytes(16)


def _without_length(tensor: TensorProto) -> None:
    del tensor.external_data[2]


def _twice(tensor: TensorProto) -> None:
    tensor.external_data.add(key="offset", value="0")


def _not_external(tensor: TensorProto) -> None:
    tensor.data_location = TensorProto.DEFAULT


def _strings(tensor: TensorProto) -> None:
    tensor.data_type = TensorProto.STRING


def _negative(tensor: TensorProto) -> None:
    tensor.dims[:] = [-2, -2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_both, "values both in the file and elsewhere"),
        (_without_length, "does not give location"),
        (_twice, "two entries 'offset'"),
        (_not_external, "does not say plainly"),
        (_strings, "a type that is not shared"),
        (_negative, "has another size"),
    ],
)
def test_a_tensor_that_is_not_plain_is_refused(change: Callable[[TensorProto], None], words: str) -> None:
    tensor = _tensor()
    change(tensor)
    with pytest.raises(SharedWeightsError, match=words):
        embed_weights(_model(tensor), _WEIGHTS, _FILE, _LIMIT)


def test_many_tensors_of_the_same_bytes_do_not_fill_the_memory() -> None:
    tensor = _tensor(offset="0", length="4096")
    tensor.dims[:] = [1024]
    assert embed_weights(_model(*[tensor] * 200), _WEIGHTS, _FILE, _LIMIT)
    with pytest.raises(SharedWeightsError, match="larger than a model may be"):
        embed_weights(_model(*[tensor] * 300), _WEIGHTS, _FILE, _LIMIT)


def test_a_reference_in_a_node_stays_and_is_found() -> None:
    ends = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])]
    node = helper.make_node("Constant", [], ["y"], value=_tensor())
    data = helper.make_model(helper.make_graph([node], "g", [], ends)).SerializeToString()
    found = embed_weights(data, _WEIGHTS, _FILE, _LIMIT)
    assert found == data
    assert has_external_data(found)


def test_what_parsers_read_differently_is_refused() -> None:
    sound: Any = _model(_tensor())
    for damaged in (sound[:-1], sound + b"\x0c", b"\xff" * 20):
        with pytest.raises(OnnxEncodingError):
            embed_weights(damaged, _WEIGHTS, _FILE, _LIMIT)
