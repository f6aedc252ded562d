"""`stenosis-trt export`: the spec, ONNX files, and the export of three checkpoints to a pack."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import typer
from named_values import named_value
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from time_limits import time_limit
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.cli.errors import fail_with_os_error
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.records import LANDMARKS, LEVELS
from stenosis_trt.export.errors import ExportError
from stenosis_trt.export.models.efficientnet import EfficientNetB5
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.onnx.checks import OnnxError
from stenosis_trt.export.onnx.from_onnx import import_onnx
from stenosis_trt.export.packs.export import export_pack
from stenosis_trt.export.precision.studies import StudyCollection
from stenosis_trt.export.spec_file import ModelDeclaration, SpecError, read_spec, reference_spec


def _call(*arguments: object, prelude: str = "") -> subprocess.CompletedProcess[str]:
    script = f"{prelude}\nfrom stenosis_trt.engine.cli.app import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit(300))


# ------------------------------------------------------------------------------------------------ the spec


def test_the_reference_spec_is_that_of_the_reference_pack() -> None:
    spec, pack = read_spec(reference_spec()), Pack.load(reference_pack())
    for name, model in pack.models.items():
        assert spec.models[name].input == model.input
        # The example leaves out this limit, since a grader may lack the class.
        limit = spec.models[name].output.maximum_other
        assert spec.models[name].output == replace(model.output, maximum_other=limit)
    assert spec.half_weights


def test_whoever_says_nothing_of_a_pack_gets_nothing_of_the_reference_packs_said_in_its_place() -> None:
    spec = read_spec(reference_spec())
    assert {spec.name, spec.version, spec.licence, spec.intended_use} == {"unknown"}
    assert spec.card == dict.fromkeys(("training_data", "limits", "not_for"), "unknown")
    told = read_spec(reference_spec(), ["pack.licence=MIT", "card.limits=adults", "card.site=B"])
    assert (told.name, told.licence) == ("unknown", "MIT")
    assert (told.card["limits"], told.card["site"], told.card["not_for"]) == ("adults", "B", "unknown")


def test_a_spec_declares_clinical_use_or_the_pack_says_nothing_of_it(
    onnx_files: dict[str, Path], phantoms: StudyCollection, tmp_path: Path
) -> None:
    for settings, entry in (([], None), (["pack.clinical_use=true"], True)):
        spec, out = read_spec(reference_spec(), [*_ECHOES, *settings]), tmp_path / str(entry)
        pack = export_pack(onnx_files, spec, out, phantoms.folder, lambda _: None)
        assert pack.clinical_use is bool(entry)
        assert json.loads(pack.read_manifest()).get("clinical_use") is entry


@pytest.mark.parametrize("name", ["reference", " Reference "])
def test_the_name_of_the_pack_that_comes_with_the_package_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"name of the pack that comes with this package.*--name site-1"):
        read_spec(reference_spec(), [f'pack.name="{name}"'])


def test_a_spec_called_reference_is_the_example_and_settings_overrule_it() -> None:
    spec = read_spec(
        Path("reference"),
        [
            "grader.input.size=[456, 456]",
            "pack.name=ours",
            "pack.weights=fp32",
            "grader.checkpoint.network=timm/efficientnet_b5",
        ],
    )
    assert spec.models["grader"].input.size == (456, 456)
    assert spec.name == "ours"
    assert not spec.half_weights
    assert spec.models["grader"].checkpoint.network == "timm/efficientnet_b5"


def test_a_network_of_four_grades_needs_no_more_than_their_names() -> None:
    output = read_spec(reference_spec(), [_FOUR]).models["grader"].output
    assert (output.names, output.maximum_other) == (("0", "1", "2", "3"), None)
    with pytest.raises(SpecError, match="maximum_other needs a class named other"):
        read_spec(reference_spec(), [_FOUR, "grader.output.maximum_other=0.4"])


def test_the_region_may_be_given_in_millimetres(tmp_path: Path) -> None:
    text = reference_spec().read_text(encoding="utf-8").replace("spacing_mm = 0.375", "roi_mm = [48.0, 48.0]")
    (tmp_path / "spec.toml").write_text(text, encoding="utf-8")
    spec = read_spec(tmp_path / "spec.toml")
    assert spec.models["grader"].input.spacing_mm == 0.375
    with pytest.raises(SpecError, match="Pixels have to be square"):
        read_spec(tmp_path / "spec.toml", ["grader.input.roi_mm=[48, 40]"])
    with pytest.raises(SpecError, match="either spacing_mm or roi_mm"):
        read_spec(tmp_path / "spec.toml", ["grader.input.spacing_mm=0.4"])


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("grader.input.sise=[1,1]", r"\[grader.input\] has unknown entries: sise"),
        ("speed=3", "the spec has unknown entries: speed"),
        ("pack.clinical_use=yes", "clinical_use is 'yes'. Write true or false"),
        ("grader.input.size=456", r"size is 456, and has to be \[height, width\]"),
        ("grader.input.mean=[0.5]", "mean is .* has to be 3 numbers"),
        ("grader.input.std=[0.0, 1.0, 1.0]", "std must be positive"),
        ("grader.input.channels=2", "mean is|neighbours need odd"),
        ("levels.output.kind=coordinates", "coordinates, which the run-time cannot use yet"),
        ("levels.output.kind=classes", "has to be 'heatmaps'"),
        ('cord.output.names=["a", "b", "c", "d"]', "are not those of cord"),
        ("cord.output.stride=0", "whole number of at least 1"),
        ("cord.output.activation=tanh", "Write one of none, sigmoid"),
        ("cord.output.minimum_confidence=2", "must lie in 0 to 1"),
        ("levels.output.minimum_mean_confidence=2", "minimum_mean_confidence must lie in 0 to 1"),
        ("grader.output.minimum_mean_confidence=0.5", "unknown entries: minimum_mean_confidence"),
        ('grader.output.names=["0", "1", "2", "other"]', "Write 0, 1, 2, 3, or 0, 1, 2, 3, other, in"),
        ("grader.output.maximum_other=1.4", "maximum_other must be above 0 and at most 1"),
        ('levels.output.names=["C2/3", "dens"]', "Write C2/3, .* or C2/3, .* C2, dens, in the order"),
        ("cord.output.maximum_other=0.4", "unknown entries: maximum_other"),
        ("pack.weights=int8", "Write one of fp16, fp32"),
        ("pack.name=3", "has to be a text"),
        ("nothing", "is not KEY=VALUE"),
        ("pack.weights.x=3", "which is not a table"),
        ("cord=3", "has to be a table"),
        (f"cord.input.spacing_mm=1{'0' * 400}", "more than 64 bits"),
        (f"cord.input.size=[0x1{'0' * 9000}, 8]", "more than 64 bits"),
        ("cord.input.size=[99999999999, 8]", r"has to be \[height, width\]"),
        ("cord.input.spacing_mm=99999999999", "has to be 1 number"),
        ("cord.input.size=[true, true]", r"has to be \[height, width\]"),
        ("cord.output.stride=99999999999", "whole number"),
        (f"card.x={'[' * 60}{']' * 60}", "nests tables and lists"),
        ('pack.name="a\\u0007b"', "not a line of at most"),
        (f"pack.licence={'x' * 20_001}", "more than 20000 characters"),
        ("cord.checkpoint.temperature=0", "number above 0"),
    ],
)
def test_what_is_wrong_in_a_spec_is_named(setting: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        read_spec(reference_spec(), [setting])


def test_a_date_on_the_card_is_a_text_as_toml_writes_it() -> None:
    spec = read_spec(reference_spec(), ["card.trained_on=2024-05-01", "card.data.at=[07:30:00, 1]"])
    assert spec.card["trained_on"] == "2024-05-01"
    assert spec.card["data"] == {"at": ["07:30:00", 1]}


@pytest.mark.parametrize(
    "setting", ["card.x=nan", "card.x.y=[1, inf]", "cord.metrics.error=nan", "card.x=\udcf6"]
)
def test_what_pack_json_cannot_hold_is_refused_before_anything_is_exported(setting: str) -> None:
    with pytest.raises(SpecError, match=r"cannot hold|write numbers|not UTF-8 text"):
        read_spec(reference_spec(), [setting])


def test_a_spec_that_lacks_something_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"No spec .*--spec FILE.*--spec reference$"):
        read_spec(None)
    (tmp_path / "short.toml").write_text(reference_spec().read_text("utf-8").replace("stride = 2", ""))
    with pytest.raises(SpecError, match=r"lacks stride.* --set cord\.output\.stride=VALUE$"):
        read_spec(tmp_path / "short.toml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_spec(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_text("size = [1", encoding="utf-8")
    with pytest.raises(SpecError, match="is not TOML"):
        read_spec(tmp_path / "bad.toml")


# ------------------------------------------------------------------------------------------------ ONNX files


def _spec(size: int = 32, **output: object) -> ModelDeclaration:
    """A cord network of small input; `output` overrules entries of its output."""
    settings = [f"cord.input.size=[{size}, {size}]", *(f"cord.output.{k}={v}" for k, v in output.items())]
    return read_spec(reference_spec(), settings).models["cord"]


def _example(size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 1, size, size)).astype(np.float32)


def _points_model(
    path: Path,
    *,
    points: int = 4,
    stride: int = 2,
    sizes: tuple[object, ...] = ("n", 1, "h", "w"),
    opset: int = 18,
    domain: str = "",
    names: tuple[str, str] = ("image", "heatmaps"),
) -> Path:
    """A strided convolution whose input and output are called as the pack's are: names must not collide."""
    weight = np.random.default_rng(1).standard_normal((points, 1, stride, stride)).astype(np.float32)
    source, result = names
    nodes = [helper.make_node("Conv", [source, "order"], ["ordered"], strides=[stride, stride])]
    nodes.append(helper.make_node("Tanh", ["ordered"], [result], domain=domain))
    graph = helper.make_graph(
        nodes,
        "points",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n", "k", "y", "x"])],
        [numpy_helper.from_array(weight, "order")],
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("none", lambda x: x),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("clip", lambda x: x.clip(0, 1)),
        ("softmax", lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)),
    ],
)
def test_an_onnx_file_is_ordered_activated_and_sized(
    tmp_path: Path, activation: str, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = _points_model(tmp_path / "m.onnx")
    spec = _spec(names='["left", "anterior", "right", "posterior"]', activation=activation)
    exported, answer = import_onnx(path, spec, _example(), half_weights=False)
    own = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    made = onnxruntime.InferenceSession(exported.data, providers=["CPUExecutionProvider"])
    assert made.get_inputs()[0].name == "image"
    assert made.get_inputs()[0].shape[1:] == [1, 32, 32]
    assert made.get_outputs()[0].shape[1:] == [4, 16, 16]
    assert isinstance(made.get_inputs()[0].shape[0], str)
    wanted = expected(own.run(None, {"image": _example()})[0][:, [1, 3, 0, 2]])
    assert made.run(None, {"image": _example()})[0] == pytest.approx(wanted, abs=1e-5)
    assert answer(_example()) == pytest.approx(wanted, abs=1e-5)
    assert exported.maximum_error < 1e-5


@pytest.mark.parametrize(
    ("model", "output", "reason"),
    [
        ({"sizes": (1, 1, 32, 32)}, {}, "batch of the input of .* is fixed at 1.*dynamic_axes"),
        ({"sizes": ("n", 1, 64, 64)}, {}, "input of .* is any × 1 × 64 × 64, and the spec says 1 × 32 × 32"),
        ({"sizes": ("n", 1024)}, {}, "has to be batch × channels|not a valid ONNX|cannot"),
        ({"opset": 12}, {}, "opset 12, and 13 to 20"),
        ({"domain": "com.microsoft"}, {}, r"uses com\.microsoft\.Tanh"),
        ({"points": 6}, {}, "is 3 × 6 × 16 × 16, and the spec asks for|cannot have"),
        ({"stride": 4}, {}, "spec asks for|cannot have an input"),
        ({}, {"stride": 4}, "spec asks for|cannot have an input"),
    ],
)
def test_an_onnx_file_that_is_not_what_the_spec_says_is_refused(
    tmp_path: Path, model: dict[str, object], output: dict[str, object], reason: str
) -> None:
    path = _points_model(tmp_path / "m.onnx", **model)  # type: ignore[arg-type]
    with pytest.raises(OnnxError, match=reason):
        import_onnx(path, _spec(**output), _example(), half_weights=False)


def test_an_onnx_file_that_depends_on_its_batch_is_refused(tmp_path: Path) -> None:
    """A normalisation over the batch, as of a network exported while it was training."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Concat", ["centred"] * 4, ["y"], axis=1),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 32, 32])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 32, 32])
    axes = numpy_helper.from_array(np.array([0]), "axes")
    graph = helper.make_graph(nodes, "g", [image], [result], [axes])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "m.onnx",
    )
    spec = replace(_spec(), output=replace(_spec().output, stride=1))
    with pytest.raises(OnnxError, match="returns different values for an image alone and in a batch"):
        import_onnx(tmp_path / "m.onnx", spec, _example(), half_weights=False)


def _model(path: Path, nodes: list[onnx.NodeProto], rank: int = 4, **constants: np.ndarray) -> Path:
    """A model of an image "x" to "y", of that many dimensions."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def _refused(path: Path, declaration: ModelDeclaration) -> str:
    with pytest.raises(OnnxError) as caught:
        import_onnx(path, declaration, _example(), half_weights=False)
    return str(caught.value)


_POOL = helper.make_node("GlobalAveragePool", ["x"], ["p"])
_FLAT = helper.make_node("Flatten", ["p"], ["f"])


def test_an_output_of_fewer_dimensions_than_heatmaps_have_is_refused_with_what_to_export(
    tmp_path: Path,
) -> None:
    flat = _model(tmp_path / "flat.onnx", [_POOL, helper.make_node("Flatten", ["p"], ["y"])], 2)
    assert re.search(
        "is 3 × 1, and the spec asks for 3 × 4 × 16 × 16.*heatmaps, batch ×", _refused(flat, _spec())
    )
    row = _model(tmp_path / "row.onnx", [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], 0)
    assert "is one number, and the spec asks for" in _refused(row, _spec())


def test_heatmaps_of_another_stride_are_refused_with_the_option_that_says_so(tmp_path: Path) -> None:
    path = _points_model(tmp_path / "m.onnx", stride=4)
    assert _refused(path, _spec()).endswith("--set cord.output.stride=4")
    assert import_onnx(path, _spec(stride=4, activation="sigmoid"), _example(), half_weights=False)


def test_a_levels_network_of_another_number_of_maps_is_told_which_there_are(tmp_path: Path) -> None:
    small = ["levels.input.size=[32, 32]", "levels.output.activation=sigmoid"]
    landmarks = json.dumps([*LEVELS, *LANDMARKS])
    with_landmarks = read_spec(reference_spec(), small).models["levels"]
    levels = read_spec(reference_spec(), [*small, f"levels.output.names={json.dumps(list(LEVELS))}"]).models[
        "levels"
    ]
    ten = _points_model(tmp_path / "ten.onnx", points=10, stride=levels.output.stride)
    assert _refused(ten, levels).endswith(f"--set 'levels.output.names={landmarks}'")
    assert import_onnx(ten, with_landmarks, _example(), half_weights=False)
    six = _points_model(tmp_path / "six.onnx", points=6, stride=levels.output.stride)
    assert _refused(six, with_landmarks).endswith(f"--set 'levels.output.names={json.dumps(list(LEVELS))}'")
    seven = _points_model(tmp_path / "seven.onnx", points=7, stride=levels.output.stride)
    assert "levels has 6 or 10 points: C2/3, " in _refused(seven, levels)


def test_an_input_of_another_size_is_refused_with_the_option_that_says_so(tmp_path: Path) -> None:
    path = _points_model(tmp_path / "m.onnx", sizes=("n", 1, 64, 64))
    assert "--set 'cord.input.size=[64, 64]'" in _refused(path, _spec())


def _grader(path: Path, classes: int, *more: onnx.NodeProto) -> Path:
    weight = np.random.default_rng(2).standard_normal((1, classes)).astype(np.float32)
    last = "logits" if more else "y"
    nodes = [_POOL, _FLAT, helper.make_node("MatMul", ["f", "w"], [last]), *more]
    return _model(path, nodes, 2, w=weight)


def _grading(*settings: str) -> ModelDeclaration:
    small = ["grader.input.size=[32, 32]", "grader.input.channels=1"]
    small += ["grader.input.mean=[0.5]", "grader.input.std=[0.25]"]
    return read_spec(reference_spec(), [*small, *settings]).models["grader"]


@pytest.mark.parametrize(
    ("classes", "names"), [(4, '["0", "1", "2", "3"]'), (5, '["0", "1", "2", "3", "other"]')]
)
def test_a_grader_of_another_number_of_classes_is_refused_with_the_option_that_names_them(
    tmp_path: Path, classes: int, names: str
) -> None:
    path = _grader(tmp_path / "m.onnx", classes)
    other = _grading() if classes == 4 else _grading(_FOUR)
    assert _refused(path, other).endswith(f"--set 'grader.output.names={names}'")
    told = _refused(path, _grading(f"grader.output.names={names}"))
    assert told.endswith("--set grader.output.activation=softmax")


def test_a_grader_of_seven_classes_is_told_which_there_are(tmp_path: Path) -> None:
    assert "has 4 or 5 classes: 0, 1, 2, 3, or" in _refused(_grader(tmp_path / "m.onnx", 7), _grading())


def test_an_activation_that_the_file_has_already_is_not_applied_once_more(tmp_path: Path) -> None:
    """It would make every grade unsure, and every heatmap a plateau of 0.5."""
    softmax = helper.make_node("Softmax", ["logits"], ["y"], axis=1)
    path = _grader(tmp_path / "g.onnx", 4, softmax)
    told = _refused(path, _grading(_FOUR, "grader.output.activation=softmax"))
    assert told.endswith("--set grader.output.activation=none")
    assert import_onnx(path, _grading(_FOUR, "grader.output.activation=none"), _example(), half_weights=False)
    twice = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Expand", ["s", "w"], ["y"])]
    echo = _model(tmp_path / "c.onnx", twice, w=np.array([1, 4, 1, 1]))
    assert "already" in _refused(echo, _spec(stride=1, activation="sigmoid"))


def test_an_output_that_is_not_finite_is_said_to_be_that(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sqrt", ["x"], ["r"]), helper.make_node("Expand", ["r", "w"], ["y"])]
    path = _model(tmp_path / "m.onnx", nodes, w=np.array([1, 4, 1, 1]))
    assert re.search(r"not finite .* \d+% of its values are NaN", _refused(path, _spec(stride=1)))


def test_weights_that_lie_beside_a_model_are_named_when_they_are_missing(tmp_path: Path) -> None:
    model = onnx.load(_points_model(tmp_path / "m.onnx"))
    path = tmp_path / "apart" / "m.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert import_onnx(path, _spec(activation="sigmoid"), _example(), half_weights=False)
    (path.parent / "m.data").rename(path.parent / "renamed.data")
    told = _refused(path, _spec(activation="sigmoid"))
    assert f"keeps weights in m.data, which is not there. Put it beside the model, in {path.parent}" in told


def _with_data(folder: Path, location: str = "m.data") -> Path:
    """A model in `folder` that has its weights in another file."""
    folder.mkdir()
    model = onnx.load(_points_model(folder / "whole.onnx"))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "m.onnx"


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard", "symbolic"])
def test_weights_may_be_links_as_package_managers_and_model_hubs_make_them(
    link: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    stored = _with_data(tmp_path / "store")
    (tmp_path / "used").mkdir()
    for name in ("m.onnx", "m.data"):
        link(stored.parent / name, tmp_path / "used" / name)
    spec, example = _spec(activation="sigmoid"), _example()
    expected, _ = import_onnx(stored.parent / "whole.onnx", spec, example, half_weights=False)
    found, _ = import_onnx(tmp_path / "used" / "m.onnx", spec, example, half_weights=False)
    assert found.data == expected.data


def test_weights_that_were_cut_short_or_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    path = _with_data(tmp_path / "short")
    data = path.parent / "m.data"
    data.write_bytes(data.read_bytes()[:-1])
    told = _refused(path, _spec(activation="sigmoid"))
    assert re.search(r"keeps weights up to byte (\d+) of m.data, which has \d+\. Copy both files again", told)

    path = _with_data(tmp_path / "apart")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../short/m.data"
    path.write_bytes(model.SerializeToString())
    assert "keeps weights in ../short/m.data, not in a file of its folder" in _refused(path, _spec())


def test_of_two_outputs_one_is_taken_by_the_command_that_is_given(tmp_path: Path) -> None:
    model = onnx.load(_points_model(tmp_path / "m.onnx"))
    model.graph.output.append(helper.make_tensor_value_info("ordered", TensorProto.FLOAT, [None] * 4))
    onnx.save(model, tmp_path / "two.onnx")
    told = _refused(tmp_path / "two.onnx", _spec())
    command = shlex.split(told.partition("is wanted: python ")[2])
    subprocess.run([sys.executable, *command], cwd=tmp_path, check=True)
    assert [value.name for value in onnx.load(tmp_path / "one.onnx").graph.output] == ["heatmaps"]
    assert import_onnx(tmp_path / "one.onnx", _spec(activation="sigmoid"), _example(), half_weights=False)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(OnnxError, match="not a valid ONNX model"):
        import_onnx(tmp_path / "m.onnx", _spec(), _example(), half_weights=False)
    with pytest.raises(OnnxError, match="is not there"):
        import_onnx(tmp_path / "gone.onnx", _spec(), _example(), half_weights=False)


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    levels, cord = KeypointNet(1, 10, 4).eval(), KeypointNet(1, 4, 2).eval()
    # Initial weights would give every image the same probabilities.
    shapes = {name: tuple(value.shape) for name, value in EfficientNetB5(5).state_dict().items()}
    grader = {name: named_value(name, shape) for name, shape in shapes.items()}
    save_file(levels.state_dict(), folder / "levels.safetensors")
    torch.save({"model": {f"module.{k}": v for k, v in cord.state_dict().items()}}, folder / "cord.pth")
    torch.save({"state_dict": grader, "epoch": 1}, folder / "grader.pt")
    return {
        "levels": folder / "levels.safetensors",
        "cord": folder / "cord.pth",
        "grader": folder / "grader.pt",
    }


def _arguments(checkpoints: dict[str, Path]) -> list[object]:
    return [item for name, path in checkpoints.items() for item in (f"--{name}", path)]


def test_three_checkpoints_become_a_pack_that_verifies(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "packs" / "ours"
    answer = _call(
        *("export", *_arguments(checkpoints), "--spec", "reference", "--out", out),
        *("--name", "ours", "--licence", "1"),
    )
    assert answer.returncode == 0, answer.stderr
    assert "largest error" in answer.stdout
    assert "says 'unknown' for intended_use. To say it: --intended-use TEXT" in answer.stdout
    pack = Pack.load(out)
    assert (pack.name, pack.licence, pack.intended_use) == ("ours", "1", "unknown")
    assert pack.card["not_for"] == "unknown"
    for name, model in pack.models.items():
        assert 0 < model.metrics["export_error_slices"] <= model.metrics["export_maximum_error"] < 5e-3
        assert pack.card["export_check"]["slices"][name] > 0
    assert pack.card["exported_from"]["cord"]["weights"] == "model.module"
    assert pack.card["exported_from"]["grader"]["network"] == "torchvision/efficientnet_b5"
    assert str(tmp_path) not in json.dumps(pack.card)
    assert _call("verify", out).returncode == 0
    refused = _call("export", *_arguments(checkpoints), "--spec", "reference", "--out", out)
    assert refused.returncode == 2
    assert "is there already" in refused.stderr


@pytest.fixture(scope="module")
def onnx_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that answer with the image itself, of no fixed height and width."""
    pack = write_tiny_pack(tmp_path_factory.mktemp("onnx") / "tiny", landmarks=True)
    return {name: pack.path / model.file for name, model in pack.models.items()}


_FOUR = 'grader.output.names=["0", "1", "2", "3"]'
_SAID = ["pack.name=ours", "pack.licence=MIT", "pack.intended_use=tests"]
_TINY = [
    *_SAID,
    _FOUR,
    "levels.output.activation=sigmoid",
    "grader.input.mean=[0,0,0]",
    "grader.input.std=[1,1,1]",
]
_ECHOES = [*_TINY, "cord.output.activation=sigmoid"]


def test_onnx_files_become_a_pack_that_is_checked_on_the_studies_given(
    onnx_files: dict[str, Path], phantoms: StudyCollection, tmp_path: Path
) -> None:
    spec, lines = read_spec(reference_spec(), _ECHOES), list[str]()
    pack = export_pack(onnx_files, spec, tmp_path / "pack", phantoms.folder, lines.append)
    assert pack.card["exported_from"]["levels"]["network"] == "ONNX"
    assert pack.card["export_check"]["slices_of"] == "studies given with --check-studies"
    assert [line.split(":")[0] for line in lines] == [*pack.models, *pack.models]
    assert all("slices of studies" in line for line in lines[3:])


def test_a_grader_may_bring_a_fifth_class_in_any_order(
    onnx_files: dict[str, Path], phantoms: StudyCollection, tmp_path: Path
) -> None:
    """The tiny grader takes a middle brightness for the last of its five; here that one is called 3."""
    five = write_tiny_pack(tmp_path / "five", other=True, landmarks=True)
    files = {**onnx_files, "grader": five.path / five.models["grader"].file}
    names = ["0", "1", "2", "other", "3"]
    settings = [*_ECHOES, f"grader.output.names={json.dumps(names)}", "grader.output.maximum_other=0.7"]
    spec = read_spec(reference_spec(), settings)
    pack = export_pack(files, spec, tmp_path / "pack", phantoms.folder, lambda _: None)
    output = pack.models["grader"].output
    assert (output.names, output.maximum_other) == (("0", "1", "2", "3", "other"), 0.7)
    batch = np.full((1, 3, *pack.models["grader"].input.size), 0.5, np.float32)
    answer = onnxruntime.InferenceSession(pack.read_model("grader")).run(None, {"image": batch})[0]
    assert answer.argmax() == 3


def test_a_pack_that_was_made_meanwhile_is_not_overwritten(
    onnx_files: dict[str, Path], phantoms: StudyCollection, tmp_path: Path
) -> None:
    """Two runs into one folder: the second to finish says so, and leaves nothing."""
    spec, out = read_spec(reference_spec(), _ECHOES), tmp_path / "pack"

    def report(line: str) -> None:
        if line.startswith("cord: largest"):
            write_tiny_pack(out)

    with pytest.raises(ExportError, match="is there already"):
        export_pack(onnx_files, spec, out, phantoms.folder, report)
    assert Pack.load(out).name == "tiny"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_name_that_is_no_utf_8_is_kept_as_what_it_is(
    onnx_files: dict[str, Path], phantoms: StudyCollection, tmp_path: Path
) -> None:
    name = tmp_path / os.fsdecode(b"c\xf6rd.onnx")
    shutil.copy(onnx_files["cord"], name)
    spec = read_spec(reference_spec(), _ECHOES)
    pack = export_pack({**onnx_files, "cord": name}, spec, tmp_path / "pack", phantoms.folder, lambda _: None)
    assert pack.card["exported_from"]["cord"]["file"] == "c\\xf6rd.onnx"


@pytest.mark.parametrize(
    ("out", "prelude", "reason"),
    [
        ("pack", "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (500, 500))", "File too large"),
        ("file/pack", "", "Not a directory"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    onnx_files: dict[str, Path],
    phantoms: StudyCollection,
    tmp_path: Path,
    out: str,
    prelude: str,
    reason: str,
) -> None:
    (tmp_path / "file").touch()
    settings = [item for setting in _ECHOES for item in ("--set", setting)]
    command = [
        "export",
        *_arguments(onnx_files),
        "--spec",
        "reference",
        *settings,
        "--check-studies",
        phantoms.folder,
    ]
    answer = _call(*command, "--out", tmp_path / out, prelude=prelude)
    assert answer.returncode == 2, answer.stderr
    assert reason in answer.stderr
    assert "None" not in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_full_disk_says_where_room_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail_with_os_error(OSError(errno.ENOSPC, "No space left on device"))
    assert ended.value.exit_code == 2
    said = capsys.readouterr().err
    assert said.startswith("stenosis-trt: No space left on device. Make room where --out lies and in ")
    with pytest.raises(BrokenPipeError):
        fail_with_os_error(BrokenPipeError(errno.EPIPE, "Broken pipe"))


def test_an_input_that_no_memory_holds_is_one_line(onnx_files: dict[str, Path], tmp_path: Path) -> None:
    size = ["--set", "grader.input.size=[4000000, 4000000]"]
    for model in ("levels", "cord"):
        size += ["--set", f"{model}.output.activation=sigmoid"]
    answer = _call(
        "export", *_arguments(onnx_files), "--spec", "reference", *size, "--out", tmp_path / "pack"
    )
    assert answer.returncode == 2
    assert re.fullmatch(r"stenosis-trt: There is not enough memory .*input.size.*\n", answer.stderr)


def test_an_onnx_file_without_its_activation_is_refused_with_the_option_that_gives_it_one(
    onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    spec = read_spec(reference_spec(), _TINY)
    with pytest.raises(
        OnnxError, match=r"cord: its output reaches from .* --set cord\.output.activation=sigmoid$"
    ):
        export_pack(onnx_files, spec, tmp_path / "pack", report=list[str]().append)
    assert not (tmp_path / "pack").exists()


def test_a_name_to_ignore_that_no_checkpoint_has_is_told(onnx_files: dict[str, Path], tmp_path: Path) -> None:
    spec = read_spec(reference_spec(), _ECHOES)
    with pytest.raises(ExportError, match="No checkpoint has aux beside its weights"):
        export_pack(onnx_files, spec, tmp_path / "pack", report=list[str]().append, ignored=["aux"])
    assert not (tmp_path / "pack").exists()


def test_a_network_that_answers_everything_alike_is_refused(
    onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    """Any error of the export would be hidden by it."""
    state = KeypointNet(1, 4, 2).state_dict()
    state["head.weight"] = torch.zeros_like(state["head.weight"])
    torch.save(state, tmp_path / "same.pt")
    spec = read_spec(reference_spec(), _TINY)
    files = {**onnx_files, "cord": tmp_path / "same.pt"}
    with pytest.raises(ExportError, match="model cord returns the same output for all slices"):
        export_pack(files, spec, tmp_path / "pack", report=list[str]().append)
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--spec", "gone.toml"], "cannot be read"),
        (["--spec", "reference", "--check-studies", "gone"], "There are no studies at gone"),
        (["--spec", "reference", "--levels", "gone.pt"], "There is no checkpoint at gone.pt"),
        (["--spec", "reference", "--levels", "gone.onnx"], "gone.onnx is not there"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(
    checkpoints: dict[str, Path], tmp_path: Path, extra: list[str], reason: str
) -> None:
    answer = _call("export", *_arguments(checkpoints), "--out", tmp_path / "pack", *extra)
    assert answer.returncode == 2
    assert reason in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_without_torch_the_command_says_what_to_install(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    answer = _call(
        *("export", *_arguments(checkpoints), "--spec", "reference", "--out", tmp_path / "pack"),
        prelude="import sys; sys.modules['torch'] = None",
    )
    assert answer.returncode == 2
    assert answer.stderr.splitlines() == [
        "stenosis-trt: `export` needs torch, which is not installed: pip install 'stenosis-trt[export]'"
    ]


@pytest.mark.slow
def test_export_goes_on_to_other_precisions_as_quantise_does(
    pack: Pack, phantoms: StudyCollection, tmp_path: Path
) -> None:
    """One phantom is too few for the gate: FP16 is measured, fails on that alone, and is left out."""
    files = [item for name in pack.models for item in (f"--{name}", pack.path / f"{name}.onnx")]
    purposes = ("check", "calibration", "validation")
    folders = [item for purpose in purposes for item in (f"--{purpose}-studies", phantoms.folder)]
    command = ["export", *files, "--spec", "reference", *folders, "--precision", "fp16"]
    answer = CliRunner().invoke(app, [*map(str, command), "--out", str(tmp_path / "new" / "pack")])
    assert answer.exit_code == 1, answer.output
    assert "fp16 FAILS the gate" in answer.output
    assert answer.output.count("FAILS by") == answer.output.count("compared  ") == 2
    made = Pack.load(tmp_path / "new" / "pack")
    assert made.precisions == ("fp32",)
    assert made.card["exported_from"]["grader"]["network"] == "ONNX"
    manifest = json.loads((made.path / "pack.json").read_text(encoding="utf-8"))
    assert manifest["refused"]["fp16"]["passed"] is False
    assert manifest["quantised"]["calibrated_on"] == "a folder of studies"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pack"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int4"], "There is no precision int4"),
        (["--precision", "int8", "--calibration-method", "mean"], "no calibration method 'mean'"),
        (
            ["--precision", "int8", "--calibration-studies", "/absent"],
            "no studies at /absent.*--calibration-studies",
        ),
        (
            ["--precision", "fp16", "--validation-studies", "/absent"],
            "no studies at /absent.*--validation-studies",
        ),
        (["--precision", "fp16", "--out", "."], "is there already"),
        (
            ["--precision", "fp16", "--calibration-method", "max"],
            "Nothing reads --calibration-method without int8",
        ),
        (["--validation-studies", "/absent"], "Nothing reads --validation-studies without --precision"),
        (
            ["--calibration-method", "max", "--calibration-studies", "."],
            "--calibration-studies and --calibration-method without --precision",
        ),
    ],
)
def test_what_is_wrong_with_a_precision_is_said_before_anything_is_exported(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    files = [item for name in ("levels", "grader", "cord") for item in (f"--{name}", "absent.onnx")]
    command = ["export", *files, "--spec", "reference", "--out", str(tmp_path / "new"), *arguments]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 2
    assert re.search(words, answer.output)
    assert len(answer.output.splitlines()) == 1
    assert not (tmp_path / "new").exists()
