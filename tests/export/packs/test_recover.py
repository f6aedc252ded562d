"""Recovery of checkpoints from a pack: equal outputs, and an equal pack when exported again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.export.checkpoints.files import write_checkpoint
from stenosis_trt.export.checkpoints.networks import load_network
from stenosis_trt.export.errors import ExportError
from stenosis_trt.export.models.efficientnet import EfficientNetB5
from stenosis_trt.export.models.temperature import TemperatureScaled
from stenosis_trt.export.onnx.from_torch import export_network, torch_inference
from stenosis_trt.export.packs.check_inputs import random_inputs
from stenosis_trt.export.packs.recover import add_other_class, main, recover_checkpoints, recover_network
from stenosis_trt.export.precision.candidates import write_candidate
from stenosis_trt.export.spec_file import read_spec, reference_spec


def test_a_packs_weights_become_checkpoints_that_answer_as_it_does(pack: Pack, tmp_path: Path) -> None:
    errors = recover_checkpoints(pack, tmp_path)
    declared = read_spec(reference_spec()).models
    for name, model in pack.models.items():
        assert errors[name] < 1e-5
        loaded = load_network(tmp_path / f"{name}.safetensors", declared[name])
        network, _ = recover_network(pack, name)
        batch = random_inputs(model.input, 2)
        answers = [torch_inference(item, model.output.kind)(batch) for item in (loaded.network, network)]
        assert np.array_equal(*answers)


def _weights(data: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_model_from_string(data).graph
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def test_exported_again_every_stored_weight_is_the_same(pack: Pack) -> None:
    network, _ = recover_network(pack, "cord")
    exported = export_network(network, "heatmaps", random_inputs(pack.models["cord"].input))
    before, after = _weights(pack.read_model("cord")), _weights(exported.data)
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert np.array_equal(values, after[name]), name


def test_a_temperature_comes_back_with_the_weights(pack: Pack, tmp_path: Path) -> None:
    network, _ = recover_network(pack, "cord")
    batch = random_inputs(pack.models["cord"].input)
    exported = export_network(TemperatureScaled(network, 1.7), "heatmaps", batch)
    scaled = write_candidate(pack, tmp_path / "pack", "fp32", {"cord": exported.data})
    found, error = recover_network(scaled, "cord")
    assert error < 1e-5
    assert found.state_dict()["temperature"] == pytest.approx(1.7)
    write_checkpoint(tmp_path / "cord.safetensors", found)
    loaded = load_network(tmp_path / "cord.safetensors", read_spec(reference_spec()).models["cord"])
    answers = [torch_inference(item, "heatmaps")(batch) for item in (loaded.network, found, network)]
    assert np.array_equal(answers[0], answers[1])
    assert not np.allclose(answers[1], answers[2])


def test_a_grader_of_four_grades_gets_the_class_other_and_grades_as_before() -> None:
    torch.manual_seed(0)
    four = EfficientNetB5(4).eval()
    images = torch.rand(2, 3, 64, 64)
    before, after = four(images), add_other_class(four)(images)
    assert after.shape == (2, 5)
    assert torch.allclose(after[:, :4], before, atol=1e-6)
    assert torch.equal(after[:, 4], torch.tensor([-1.0, -1.0]))


def test_a_grader_that_knows_other_does_not_get_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reference", str(tmp_path / "out"), "--other"]) == 2
    assert 'does not have exactly 4 grades, so "other" cannot be added' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_network_is_refused_and_nothing_is_written(
    pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = write_tiny_pack(tmp_path / "tiny")
    with pytest.raises(ExportError, match=r"cord is not this project's network: it has no head\.weight"):
        recover_network(tiny, "cord")
    with pytest.raises(ExportError, match="grader is not this project's network: it has no features"):
        recover_network(replace(pack, path=tiny.path, models={**pack.models, **tiny.models}), "grader")
    assert main([str(tiny.path), str(tmp_path / "out")]) == 2
    assert "Ask the pack's maker" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_network_that_computes_otherwise_is_refused(pack: Pack, tmp_path: Path) -> None:
    """Padding as TensorFlow's SAME: the tensors are those of torchvision's network, the answers are not."""
    model = onnx.load_model_from_string(pack.read_model("grader"))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    pads = next(item for item in first.attribute if item.name == "pads")
    assert list(pads.ints) == [1, 1, 1, 1]
    pads.ints[:] = [0, 0, 2, 2]
    other = write_candidate(pack, tmp_path, "fp32", {"grader": model.SerializeToString()})
    with pytest.raises(ExportError, match="another variant"):
        recover_network(other, "grader")


def test_the_command_takes_the_reference_pack_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reference", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("differs from the pack's model by at most") == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "levels.safetensors",
        "grader.safetensors",
        "cord.safetensors",
    }


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["reference", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err
