"""ONNX export of networks, and the whole training recipe in its short form."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from shared_data import shared_data
from time_limits import time_limit
from torch import nn

from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.export.checkpoints.networks import load_network
from stenosis_trt.export.errors import ExportError
from stenosis_trt.export.models.efficientnet import EfficientNetB5
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.onnx.from_torch import export_network, torch_inference
from stenosis_trt.export.onnx.graphs import run_model
from stenosis_trt.export.packs.check_inputs import random_inputs
from stenosis_trt.export.spec_file import read_spec, reference_spec
from stenosis_trt.export.training.recipe import GRADE_NAMES, LEVEL_NAMES
from stenosis_trt.export.training.tasks import grade_loss, heatmap_loss
from stenosis_trt.export.training.train import read_fold_figures


def _example(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_an_exported_keypoint_network_answers_as_pytorch_does_for_any_batch() -> None:
    torch.manual_seed(0)
    network = KeypointNet(1, 4, 2).eval()
    exported = export_network(network, "heatmaps", _example(2, 1, 64, 64))
    session = onnxruntime.InferenceSession(exported.data, providers=["CPUExecutionProvider"])
    inputs = _example(5, 1, 64, 64)
    with torch.inference_mode():
        expected = network(torch.from_numpy(inputs)).sigmoid().numpy()
    assert np.abs(session.run(None, {"image": inputs})[0] - expected).max() < 5e-3
    assert session.get_inputs()[0].shape[1:] == [1, 64, 64]


def test_weights_are_stored_as_half_and_computed_as_single() -> None:
    exported = export_network(KeypointNet(1, 4, 2).eval(), "heatmaps", _example(2, 1, 64, 64))
    model = onnx.load_from_string(exported.data)
    kinds = {weight.data_type for weight in model.graph.initializer if np.prod(weight.dims) >= 64}
    assert kinds == {TensorProto.FLOAT16}
    assert len(exported.data) < 2.3 * sum(p.numel() for p in KeypointNet(1, 4, 2).parameters())
    for end in (*model.graph.input, *model.graph.output):
        assert end.type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.slow
def test_an_exported_grader_gives_probabilities() -> None:
    torch.manual_seed(0)
    exported = export_network(EfficientNetB5(4).eval(), "classes", _example(2, 3, 64, 64))
    session = onnxruntime.InferenceSession(exported.data, providers=["CPUExecutionProvider"])
    answer = session.run(None, {"image": _example(3, 3, 64, 64)})[0]
    assert answer.shape == (3, 4)
    assert answer.sum(axis=1) == pytest.approx([1.0] * 3, abs=1e-5)


def test_a_weight_too_large_for_half_is_refused() -> None:
    network = KeypointNet(1, 4, 2).eval()
    with torch.no_grad():
        network.head.weight.fill_(1e5)
    with pytest.raises(ExportError, match="too large for FP16"):
        export_network(network, "heatmaps", _example(2, 1, 64, 64))


class _Sensitive(nn.Module):
    """Differs by more than the tolerance once its weights are rounded to FP16."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1, 8, 8), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight - x * 0.1).sum((2, 3), keepdim=True) * 1e4


def test_an_export_that_answers_differently_is_refused() -> None:
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_network(_Sensitive(), "heatmaps", np.ones((2, 1, 8, 8), np.float32))


def test_losses_are_lowest_where_the_network_is_right() -> None:
    target = torch.rand(2, 3, 8, 8) * 0.9 + 0.05
    right = torch.logit(target)
    assert heatmap_loss(right, target) < heatmap_loss(right + 0.3, target)
    assert heatmap_loss(right, target) < heatmap_loss(right - 0.3, target)
    grades = torch.tensor([0, 3])
    near = torch.tensor([[0.0, 5, 0, 0, 0], [0, 0, 5, 0, 0]])
    far = torch.tensor([[0.0, 0, 0, 5, 0], [5, 0, 0, 0, 0]])
    assert grade_loss(near, grades) < grade_loss(far, grades)


def test_what_is_no_level_has_a_loss_of_its_own_and_no_grade_to_be_far_from() -> None:
    logits = torch.tensor([[0.0, 0, 0, 0, 6]], requires_grad=True)
    other, severe = torch.tensor([4]), torch.tensor([3])
    assert grade_loss(logits, other) < grade_loss(logits, severe)
    assert torch.isfinite(grade_loss(logits, other))
    # The mean grade of these logits is 1.5: among grades it would be pulled towards the target.
    grade_loss(logits, other).backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0, :4], logits.grad[0, :1].expand(4))


def _recipe(work: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """The short recipe on real volumes, from the command line."""
    command = [sys.executable, "-m", "stenosis_trt.export.training.train", "--short", "--work", work / "work"]
    command += ["--volumes", shared_data("volumes"), *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=time_limit(300))


_FOUND: dict[str, Any] = {"calibration": {"temperature": 1.7}, "left_out_subjects": ["errsm_30"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fold, whose networks have learnt nothing, and a pack with all subjects and figures found before."""
    work = tmp_path_factory.mktemp("recipe")
    done = _recipe(work, "--folds", "--left-out", "errsm_30")
    assert done.returncode == 1
    assert "without errsm_30 graded none of the studies made from it" in done.stderr
    (work / "work" / "folds.json").write_text(json.dumps(_FOUND))
    done = _recipe(work, "--out", work / "pack")
    assert done.returncode == 0, done.stderr
    return work


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_recipe_runs_through_and_writes_packs(trained: Path) -> None:
    for pack in (Pack.load(trained / "pack"), Pack.load(trained / "work" / "without_errsm_30" / "pack")):
        assert "Not for patients" in pack.intended_use
        licences = {item["licence"].split(",")[0] for item in pack.card["training_data"]}
        assert licences == {"Apache-2.0", "MIT"}
        for model in pack.models.values():
            assert model.metrics["export_maximum_error"] < 5e-3
    for stage in ("phantoms_only", "without_errsm_30", "all"):
        log = (trained / "work" / stage / "levels.log.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in log] == [4]
    assert (trained / "work" / "curves.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_card_tells_what_the_networks_began_with_and_what_was_found_without_each_subject(
    trained: Path,
) -> None:
    card = Pack.load(trained / "pack").card
    assert card["left_out_figures"] == _FOUND
    for item in card["begun_with"]:
        start = (trained / "work" / "phantoms_only" / item["name"]).read_bytes()
        assert item["sha256"] == hashlib.sha256(start).hexdigest()


@pytest.mark.slow
@pytest.mark.shared_data
def test_what_was_trained_is_left_as_checkpoints_that_export_takes(trained: Path) -> None:
    """The pack's grader is that of its checkpoint with the temperature that was found."""
    names = {
        model: ", ".join(f'"{name}"' for name in outputs)
        for model, outputs in (("grader", GRADE_NAMES), ("levels", LEVEL_NAMES))
    }
    changes = [f"{model}.output.names=[{outputs}]" for model, outputs in names.items()]
    declared = read_spec(reference_spec(), changes).models
    pack = Pack.load(trained / "pack")
    for name, model in pack.models.items():
        network = load_network(trained / "work" / "all" / f"{name}.safetensors", declared[name]).network
        batch = random_inputs(model.input, 2)
        expected = torch_inference(network, model.output.kind)(batch)
        if name == "grader":
            expected = expected ** (1 / _FOUND["calibration"]["temperature"])
            expected /= expected.sum(axis=1, keepdims=True)
        assert np.abs(run_model(pack.read_model(name), batch) - expected).max() < 5e-3


def test_without_folds_a_pack_gets_no_temperature_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_fold_figures(tmp_path / "folds.json") == {}
    assert "gets no temperature and no figures" in capsys.readouterr().out


@pytest.mark.slow
def test_the_recipe_says_what_it_lacks(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "stenosis_trt.export.training.train",
        "--short",
        "--work",
        tmp_path / "work",
    ]
    for options, reason in (
        ([], "Give --volumes"),
        (["--volumes", tmp_path, "--folds", "--only", "cord"], "Leave out --only"),
        (["--volumes", tmp_path, "--folds", "--left-out", "errsm_11"], "errsm_11 is no training subject"),
        (["--volumes", tmp_path, "--start", tmp_path / "gone", "--out", tmp_path / "pack"], "cannot be read"),
    ):
        done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
        assert done.returncode == 1
        assert reason in done.stderr
