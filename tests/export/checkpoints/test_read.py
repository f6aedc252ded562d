"""Checkpoints in common forms: wrapped, prefixed, half precision, pickled; and error messages."""

from __future__ import annotations

import argparse
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from named_values import named_value
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from stenosis_trt.export.checkpoints.efficientnet_names import library_names
from stenosis_trt.export.checkpoints.files import CheckpointError, read_checkpoint
from stenosis_trt.export.checkpoints.networks import load_network
from stenosis_trt.export.models.efficientnet import EfficientNetB5
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.models.temperature import TemperatureScaled
from stenosis_trt.export.spec_file import CheckpointDeclaration, ModelDeclaration, read_spec, reference_spec

State = dict[str, torch.Tensor]
_MODELS = read_spec(reference_spec(), ['grader.output.names=["0", "1", "2", "3"]']).models
_CORD = _MODELS["cord"]
_GRADER = _MODELS["grader"]


@pytest.fixture(scope="module")
def cord() -> KeypointNet:
    torch.manual_seed(0)
    return KeypointNet(1, 4, 2).eval()


@pytest.fixture(scope="module")
def grader() -> EfficientNetB5:
    torch.manual_seed(0)
    return EfficientNetB5(4).eval()


def _saved(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def _with(declaration: ModelDeclaration, **choice: Any) -> ModelDeclaration:
    return replace(declaration, checkpoint=CheckpointDeclaration(**choice))


def _same(one: nn.Module, other: nn.Module, channels: int) -> bool:
    x = torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        return torch.equal(one(x), other(x))


def _prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_a_plain_state_dict_is_loaded(tmp_path: Path, cord: KeypointNet, suffix: str) -> None:
    path = _saved(tmp_path / f"cord{suffix}", cord.state_dict())
    loaded = load_network(path, _CORD)
    assert _same(loaded.network, cord, 1)
    assert loaded.facts == {"network": "stenosis-trt/keypoint"}


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        (("state_dict",), ""),
        (("model",), "module."),
        (("checkpoint", "model_state_dict"), "_orig_mod."),
        ((), "model.net."),
        (("state_dict",), "module.model.network."),
    ],
)
def test_wrappers_are_peeled_off(
    tmp_path: Path, cord: KeypointNet, keys: tuple[str, ...], prefix: str
) -> None:
    content: Any = _prefixed(cord.state_dict(), prefix)
    for key in reversed(keys):
        content = {key: content, "epoch": 7, "best": 0.9}
    loaded = load_network(_saved(tmp_path / "cord.pt", content), _CORD)
    assert _same(loaded.network, cord, 1)
    assert loaded.facts["weights"] == ".".join((*keys, *prefix.rstrip(".").split("."))).strip(".")


def test_a_temperature_around_the_network_divides_its_logits(tmp_path: Path, cord: KeypointNet) -> None:
    scaled = TemperatureScaled(cord, 2.5)
    loaded = load_network(_saved(tmp_path / "cord.pt", {"model": scaled.state_dict()}), _CORD)
    assert _same(loaded.network, scaled, 1)
    assert not _same(loaded.network, cord, 1)
    assert loaded.facts["temperature"] == "2.5"
    assert "not_read" not in loaded.facts


@pytest.mark.parametrize("value", [torch.tensor(0.0), torch.ones(2)])
def test_a_temperature_that_is_none_is_refused(
    tmp_path: Path, cord: KeypointNet, value: torch.Tensor
) -> None:
    content = {**_prefixed(cord.state_dict(), "network."), "temperature": value}
    with pytest.raises(CheckpointError, match="temperature that is not a positive number"):
        load_network(_saved(tmp_path / "cord.pt", content), _CORD)


def test_optimisers_and_schedules_beside_the_weights_do_no_harm(tmp_path: Path, cord: KeypointNet) -> None:
    network = KeypointNet(1, 4, 2)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.randn(1, 1, 64, 64)).sum().backward()
    optimiser.step()
    content = {"net": network.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 3}
    assert _same(load_network(_saved(tmp_path / "c.pt", content), _CORD).network, network.eval(), 1)


def test_of_several_sets_of_weights_one_must_be_named(tmp_path: Path, cord: KeypointNet) -> None:
    averaged = AveragedModel(KeypointNet(1, 4, 2)).eval()
    content = {"network": cord.state_dict(), "average": averaged.state_dict(), "arch": "ours"}
    path = _saved(tmp_path / "c.pt", content)
    with pytest.raises(CheckpointError, match=r"several sets of weights.*'network', 'average\.module'"):
        load_network(path, _CORD)
    with pytest.raises(CheckpointError, match="has no weights 'ema'"):
        load_network(path, _with(_CORD, weights="ema"))
    loaded = load_network(path, _with(_CORD, weights="average.module"))
    assert _same(loaded.network, averaged.module, 1)
    assert loaded.facts["not_read"] == "n_averaged"
    assert _same(load_network(path, _with(_CORD, weights="network")).network, cord, 1)


def test_half_precision_and_missing_counters_are_no_obstacle(tmp_path: Path, cord: KeypointNet) -> None:
    state = {name: value.half() for name, value in cord.state_dict().items() if "num_batches" not in name}
    loaded = load_network(_saved(tmp_path / "c.safetensors", state), _CORD)
    assert {value.dtype for value in loaded.network.parameters()} == {torch.float32}


class _Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_none(tmp_path: Path, cord: KeypointNet) -> None:
    mark = tmp_path / "ran"
    path = _saved(tmp_path / "c.pt", {"state_dict": cord.state_dict(), "callback": _Malicious(mark)})
    with pytest.raises(CheckpointError, match=r"wants to run code \(it calls for posix.system\).*state_dict"):
        load_network(path, _CORD)
    assert not mark.exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path, cord: KeypointNet) -> None:
    with pytest.raises(CheckpointError, match=r"wants to run code .*KeypointNet.*save the weights alone"):
        load_network(_saved(tmp_path / "c.pt", cord), _CORD)


@pytest.mark.filterwarnings("error")
def test_a_pickle_of_another_protocol_is_refused_without_a_remark_of_pytorchs(
    tmp_path: Path, cord: KeypointNet
) -> None:
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(dict(cord.state_dict()), protocol=4))
    with pytest.raises(CheckpointError, match="Save the weights alone"):
        read_checkpoint(tmp_path / "plain.pt")


def test_weights_without_values_are_refused(tmp_path: Path, cord: KeypointNet) -> None:
    state = {name: value.to("meta") for name, value in cord.state_dict().items()}
    path = _saved(tmp_path / "empty.pt", state)
    with pytest.raises(CheckpointError, match="weights without values"):
        load_network(path, _CORD)


def test_a_command_line_kept_beside_the_weights_is_read(tmp_path: Path, cord: KeypointNet) -> None:
    content = {"state_dict": cord.state_dict(), "args": argparse.Namespace(lr=0.1)}
    assert _same(load_network(_saved(tmp_path / "c.pth", content), _CORD).network, cord, 1)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("c.bin", b"x", "cannot be read as a PyTorch checkpoint"),
        ("c.h5", b"\x89HDF\r\n\x1a\n" + b"x" * 99, "it is HDF5, as Keras writes it"),
        ("c.pt.gz", b"\x1f\x8b" + b"x" * 99, "compressed by gzip: unpack it with gunzip"),
        ("c.pt", b"<!DOCTYPE html>", "a page that was downloaded"),
        ("c.pt", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("c.pt", b"not a checkpoint", "cannot be read as a PyTorch checkpoint"),
        ("c.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense", "cannot be read as safetensors"),
        ("c.pt", b"", "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=reason):
        load_network(tmp_path / name, _CORD)


def test_a_file_that_is_not_there_and_one_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        load_network(tmp_path / "gone.pt", _CORD)
    with pytest.raises(CheckpointError, match="holds a list"):
        load_network(_saved(tmp_path / "list.pt", [1, 2]), _CORD)
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load_network(_saved(tmp_path / "none.pt", {"epoch": 1}), _CORD)


def test_what_does_not_fit_is_named(tmp_path: Path, cord: KeypointNet) -> None:
    state = dict(cord.state_dict())
    state["head.other"] = state.pop("head.bias")
    state["laterals.0.weight"] = torch.zeros(64, 23, 1, 1)
    with pytest.raises(CheckpointError) as caught:
        load_network(_saved(tmp_path / "c.pt", state), _CORD)
    message = str(caught.value)
    assert "lacks head.bias" in message
    assert "laterals.0.weight (64×23×1×1, not 64×24×1×1)" in message
    assert "nothing called head.other" in message


def test_a_network_that_is_not_known_is_told_to_come_as_onnx(tmp_path: Path) -> None:
    path = _saved(tmp_path / "hrnet.pt", {"conv1.weight": torch.zeros(1), "stage2.0.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"called conv1.weight, stage2.0.weight.*\.onnx"):
        load_network(path, _CORD)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, cord: KeypointNet, value: float) -> None:
    state = {**cord.state_dict(), "head.bias": torch.full((4,), value)}
    with pytest.raises(CheckpointError, match=r"not finite: head\.bias"):
        load_network(_saved(tmp_path / "c.pt", state), _CORD)


def test_quantised_weights_are_refused(tmp_path: Path, cord: KeypointNet) -> None:
    state = {**cord.state_dict(), "head.weight": torch.zeros(4, 64, 1, 1, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match=r"not floating-point numbers: head\.weight"):
        load_network(_saved(tmp_path / "c.pt", state), _CORD)


def test_numbers_that_contradict_the_spec_are_named(tmp_path: Path, grader: EfficientNetB5) -> None:
    cord = _saved(tmp_path / "c.pt", KeypointNet(1, 4, 4).state_dict())
    with pytest.raises(CheckpointError, match="stride of 4, and the spec says 2"):
        load_network(cord, _CORD)
    six = _saved(tmp_path / "six.pt", KeypointNet(1, 6, 2).state_dict())
    with pytest.raises(CheckpointError, match=r"has 6 points \(head.weight is 6×64×1×1\).*asks for 4"):
        load_network(six, _CORD)
    state = dict(grader.state_dict())
    state["classifier.1.weight"] = torch.zeros(1000, 2048)
    with pytest.raises(CheckpointError, match=r"has 1000 classes \(classifier.1.weight is 1000×2048\)"):
        load_network(_saved(tmp_path / "g.pt", state), _GRADER)


@pytest.mark.parametrize("library", ["torchvision", "timm", "efficientnet-pytorch"])
def test_a_grader_in_each_naming_gives_the_same_logits(tmp_path: Path, library: str) -> None:
    """The same weights under each library's names, loaded as torchvision's variant where it has to be."""
    network = EfficientNetB5(4).eval()
    # Initial weights would not do: residual branches start at zero, and any tensor in them would serve.
    state = {key: named_value(key, tuple(value.shape)) for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    names = library_names(state, library)
    path = _saved(tmp_path / "g.safetensors", {names[key]: value for key, value in state.items()})
    choices = {
        "torchvision": {},
        "timm": {"network": "timm/tf_efficientnet_b5"},
        # Padded for what is put in, and not for 456 × 456.
        "efficientnet-pytorch": {"image_size": (0, 0)},
    }
    loaded = load_network(path, _with(_GRADER, **choices[library])).network
    # An odd size at every stride, where TensorFlow's padding is the same on both sides.
    image = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = loaded(image), network(image)
    assert expected.std() > 0.05
    assert (found - expected).abs().max() < 1e-5


def test_timms_two_networks_are_told_apart_by_the_spec_or_the_file(
    tmp_path: Path, grader: EfficientNetB5
) -> None:
    names = library_names(grader.state_dict(), "timm")
    state = {names[key]: value for key, value in grader.state_dict().items()}
    bare = _saved(tmp_path / "bare.pt", state)
    with pytest.raises(CheckpointError, match=r"may be of timm/efficientnet_b5 or timm/tf_efficientnet_b5"):
        load_network(bare, _GRADER)
    told = _saved(tmp_path / "told.pt", {"arch": "tf_efficientnet_b5", "state_dict": state})
    assert load_network(told, _GRADER).facts["network"] == "timm/tf_efficientnet_b5"
    asked = load_network(bare, _with(_GRADER, network="timm/efficientnet_b5"))
    assert next(m for m in asked.network.modules() if isinstance(m, nn.BatchNorm2d)).eps == 1e-5
    with pytest.raises(CheckpointError, match=r"names of timm, and the spec says torchvision"):
        load_network(bare, _with(_GRADER, network="torchvision/efficientnet_b5"))
    with pytest.raises(CheckpointError, match="'resnet' is not known"):
        load_network(bare, _with(_GRADER, network="resnet"))
    with pytest.raises(CheckpointError, match="does not use image_size"):
        load_network(told, _with(_GRADER, image_size=(128, 128)))


def test_outputs_in_another_order_are_put_in_the_pipes(tmp_path: Path, cord: KeypointNet) -> None:
    path = _saved(tmp_path / "c.pt", cord.state_dict())
    spec = read_spec(reference_spec(), ['cord.output.names=["left", "right", "posterior", "anterior"]'])
    network = load_network(path, spec.models["cord"]).network
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(x), cord(x)[:, [3, 2, 0, 1]])
