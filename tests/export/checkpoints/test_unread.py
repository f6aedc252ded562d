"""Content of checkpoints beside the weights: recognised as data, or reported; never ignored silently."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import enum
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stenosis_trt.export.checkpoints.files import CheckpointError, read_checkpoint
from stenosis_trt.export.checkpoints.networks import LoadedNetwork, load_network
from stenosis_trt.export.checkpoints.plain_data import PickledArray
from stenosis_trt.export.checkpoints.take_weights import read_inert
from stenosis_trt.export.checkpoints.unread import IgnoredKeys
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.models.temperature import TemperatureScaled
from stenosis_trt.export.spec_file import read_spec, reference_spec

State = dict[str, Any]


@pytest.fixture(scope="module")
def cord() -> KeypointNet:
    torch.manual_seed(0)
    return KeypointNet(1, 4, 2).eval()


def _load(path: Path, *settings: str, ignored: tuple[str, ...] = ()) -> LoadedNetwork:
    declaration = read_spec(reference_spec(), settings).models["cord"]
    return load_network(path, declaration, IgnoredKeys(ignored))


def _saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def _logits(network: nn.Module) -> torch.Tensor:
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        result: torch.Tensor = network(x)
    return result


@pytest.mark.parametrize("suffix", ["ckpt", "bin", "pth.tar", "tar", "weights", "PT"])
@pytest.mark.parametrize("written", [torch.save, save_file], ids=["torch", "safetensors"])
def test_a_checkpoint_is_read_by_its_content(
    tmp_path: Path, cord: KeypointNet, suffix: str, written: Any
) -> None:
    written(cord.state_dict(), tmp_path / f"cord.{suffix}")
    assert torch.equal(_logits(_load(tmp_path / f"cord.{suffix}").network), _logits(cord))


@pytest.mark.parametrize(
    "prefix", ["", "_orig_mod.", "module.", "model.", "module._orig_mod.", "model.module.net."]
)
@pytest.mark.parametrize("place", [(), ("state_dict",), ("checkpoint", "model")])
def test_a_temperature_is_peeled_as_the_weights_are(
    tmp_path: Path, cord: KeypointNet, prefix: str, place: tuple[str, ...]
) -> None:
    scaled = TemperatureScaled(cord, 2.5)
    content: Any = {f"{prefix}{name}": value for name, value in scaled.state_dict().items()}
    for key in place:
        content = {key: content, "epoch": 3}
    loaded = _load(_saved(tmp_path / "c.pt", content))
    assert torch.equal(_logits(loaded.network), _logits(scaled))
    assert loaded.facts["temperature"] == "2.5"


def test_a_temperature_in_the_network_itself_divides_its_logits(tmp_path: Path, cord: KeypointNet) -> None:
    content = {f"model.{name}": value for name, value in cord.state_dict().items()}
    content["model.temperature"] = torch.tensor([4.0])
    assert torch.equal(_logits(_load(_saved(tmp_path / "c.pt", content)).network), _logits(cord) / 4)


def test_of_two_temperatures_neither_is_taken(tmp_path: Path, cord: KeypointNet) -> None:
    wrapped = TemperatureScaled(TemperatureScaled(cord, 2.0), 3.0)
    with pytest.raises(CheckpointError, match=r"several temperatures: .*--ignore-key"):
        _load(_saved(tmp_path / "c.pt", wrapped.state_dict()))


@pytest.mark.parametrize("value", [1.75, np.float64(1.75), torch.tensor(1.75)])
def test_a_temperature_outside_the_set_of_weights_is_asked_about_with_both_answers_to_paste(
    tmp_path: Path, cord: KeypointNet, value: object
) -> None:
    path = _saved(tmp_path / "c.pt", {"model": cord.state_dict(), "temperature": value})
    with pytest.raises(CheckpointError) as caught:
        _load(path)
    told = str(caught.value)
    setting = re.search(r"--set (cord\.checkpoint\.temperature=1\.75)", told)
    ignored = re.search(r"--ignore-key (\S+)", told)
    assert setting
    assert ignored
    divided = _load(path, setting[1])
    assert torch.equal(_logits(divided.network), _logits(cord) / 1.75)
    assert divided.facts["temperature"] == "1.75"
    assert torch.equal(_logits(_load(path, ignored=(ignored[1],)).network), _logits(cord))


def test_a_temperature_of_the_spec_may_not_contradict_the_weights(tmp_path: Path, cord: KeypointNet) -> None:
    path = _saved(tmp_path / "c.pt", TemperatureScaled(cord, 2.0).state_dict())
    with pytest.raises(CheckpointError, match=r"has the temperature 2 .* and the spec says 3"):
        _load(path, "cord.checkpoint.temperature=3.0")
    assert _load(path, "cord.checkpoint.temperature=2.0").facts["temperature"] == "2"


@pytest.mark.parametrize(
    ("beside", "names"),
    [
        ({"logit_bias": torch.zeros(4)}, ["logit_bias"]),
        ({"prior": np.ones(4)}, ["prior"]),
        ({"scale": 0.5}, ["scale"]),
        ({"mean": [0.485, 0.456]}, ["mean"]),
        ({"args": argparse.Namespace(lr=0.1, temperature=2.0)}, ["args.temperature"]),
        ({"hyper_parameters": {"temperature": 2.0, "lr": 0.1}}, ["hyper_parameters.temperature"]),
        ({"best_temperature": 1.5}, ["best_temperature"]),
        ({"calibration": {"val": {"platt_a": 1.5}}}, ["calibration.val.platt_a"]),
        ({"extra": [torch.zeros(1)]}, ["extra"]),
        ({"a": np.array([torch.zeros(1)], dtype=object)}, ["a"]),
    ],
)
def test_what_may_be_a_parameter_stops_the_export_until_it_is_ignored(
    tmp_path: Path, cord: KeypointNet, beside: State, names: list[str]
) -> None:
    path = _saved(tmp_path / "c.pt", {"model": cord.state_dict(), "epoch": 3, **beside})
    with pytest.raises(CheckpointError, match="which are not read and may affect") as caught:
        _load(path)
    assert re.findall(r"--ignore-key (\S+)", str(caught.value)) == names
    assert torch.equal(_logits(_load(path, ignored=tuple(names)).network), _logits(cord))


def test_tensors_beside_the_weights_are_named_by_what_they_have_in_common(
    tmp_path: Path, cord: KeypointNet
) -> None:
    content = {f"model.net.{name}": value for name, value in cord.state_dict().items()}
    content |= {"model.aux.weight": torch.ones(1), "model.aux.bias": torch.ones(1), "head.w": torch.ones(1)}
    path = _saved(tmp_path / "c.pt", {"state_dict": content})
    with pytest.raises(
        CheckpointError, match=r"--ignore-key state_dict.model.aux --ignore-key state_dict.head.w$"
    ):
        _load(path)
    loaded = _load(path, ignored=("state_dict.model.aux", "state_dict.head.w"))
    assert torch.equal(_logits(loaded.network), _logits(cord))
    assert "model.aux.weight" in loaded.facts["not_read"]


def test_a_layer_more_than_the_network_has_may_be_ignored_by_name(tmp_path: Path, cord: KeypointNet) -> None:
    path = _saved(tmp_path / "c.pt", {**cord.state_dict(), "aux.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"nothing called aux.weight.*--ignore-key aux.weight$"):
        _load(path)
    assert torch.equal(_logits(_load(path, ignored=("aux",)).network), _logits(cord))


def test_a_name_to_ignore_that_is_not_there_is_told() -> None:
    ignored = IgnoredKeys(("aux", "head"))
    assert ignored.covers("aux.weight")
    assert not ignored.covers("auxiliary.weight")
    assert ignored.unused == ("head",)


def test_records_of_a_training_are_recognised(tmp_path: Path, cord: KeypointNet) -> None:
    network = KeypointNet(1, 4, 2)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.randn(1, 1, 64, 64)).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    content = {
        "state_dict": {
            **{f"model.{name}": value for name, value in cord.state_dict().items()},
            "criterion.weight": torch.ones(4),
            "train_metric.confmat": torch.zeros(4, 4),
            "n_averaged": torch.tensor(3),
        },
        "optimizer_states": [optimiser.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "scaler": {"scale": 65536.0},
        "rng_state": torch.get_rng_state(),
        "best_kappa": np.float64(0.913),
        "metric": 0.9,
        "loss_curve": np.arange(5.0),
        "history": {"train_loss": [0.5, 0.25]},
        "hyper_parameters": {"lr": 0.1, "momentum": 0.9},
        "args": argparse.Namespace(lr=0.1, weight_decay=1e-4),
    }
    loaded = _load(_saved(tmp_path / "c.ckpt", content))
    assert torch.equal(_logits(loaded.network), _logits(cord))


def test_another_copy_of_the_weights_is_recognised_with_all_that_is_its_own(
    tmp_path: Path, cord: KeypointNet
) -> None:
    averaged = {f"ema.{name}": value for name, value in TemperatureScaled(cord, 3.0).state_dict().items()}
    own = {f"model.{name}": value for name, value in cord.state_dict().items()}
    path = _saved(tmp_path / "c.pt", {**own, **averaged})
    with pytest.raises(CheckpointError, match=r"--set cord.checkpoint.weights=model$"):
        _load(path)
    assert torch.equal(_logits(_load(path, "cord.checkpoint.weights=model").network), _logits(cord))
    other = _load(path, "cord.checkpoint.weights=ema.network")
    assert torch.equal(_logits(other.network), _logits(cord) / 3)


# ------------------------------------------------------------------------------------------------ plain data


def test_plain_data_beside_weights_is_read_as_data(tmp_path: Path, cord: KeypointNet) -> None:
    content = {
        "state_dict": cord.state_dict(),
        "epoch": np.int64(7),
        "metric": np.float32(0.5),
        "loss": np.arange(6, dtype=">f4").reshape(2, 3),
        "classes": np.array(["mild", "severe"], dtype=object),
        "names": np.array(["a", "bc"]),
        "folder": pathlib.PurePosixPath("/data/x"),
        "where": pathlib.PureWindowsPath("C:/data"),
        "counts": collections.defaultdict(list, {"a": [1]}),
        "order": collections.OrderedDict(a=1),
        "saved": datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
        "took": datetime.timedelta(seconds=3),
        "labels": {"0", "1"},
        "kept": frozenset({1, 2}),
        "last": collections.deque([1, 2], maxlen=2),
        "dtype": np.float32,
    }
    read = read_checkpoint(_saved(tmp_path / "c.pt", content))
    assert (read["epoch"], read["metric"]) == (7, 0.5)
    assert isinstance(read["loss"], PickledArray)
    numbers = read["loss"].numbers()
    assert numbers is not None
    assert numbers.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert read["classes"].items == ("mild", "severe")
    assert str(read["folder"]) == "/data/x"
    assert (read["counts"], read["labels"], read["last"]) == ({"a": [1]}, {"0", "1"}, [1, 2])
    assert read["saved"] == content["saved"]
    assert torch.equal(_logits(_load(tmp_path / "c.pt").network), _logits(cord))


class _Pickled:
    """An object whose pickle calls `function` with `arguments`, and gives the outcome `state`."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


_MULTIARRAY = np._core.multiarray


@pytest.mark.parametrize(
    "hostile",
    [
        _Pickled(os.system, "touch ran"),
        _Pickled(exec, "open('ran', 'w')"),
        _Pickled(getattr, "x", "upper"),
        _Pickled(np.fromfile, "/etc/passwd"),
        _Pickled(int, "7"),
        _Pickled(list, "abc"),
        _Pickled(pathlib.PurePosixPath, b"x"),
        _Pickled(_MULTIARRAY.scalar, "f8", b"12345678"),
        _Pickled(_MULTIARRAY._reconstruct, np.ndarray, (0,), b"b", state=(1, (9,), np.dtype("f8"), False)),
        _Pickled(np.dtype, 8),
        _Pickled(_MULTIARRAY.scalar, np.dtype("f8"), b"123"),
    ],
)
def test_what_is_let_in_can_be_called_for_nothing_else(
    tmp_path: Path, cord: KeypointNet, hostile: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _saved(tmp_path / "c.pt", {"state_dict": cord.state_dict(), "x": hostile})
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_numpys_own_unpickling_is_never_reached(tmp_path: Path, cord: KeypointNet) -> None:
    """Arrays of objects, and dtypes that contradict themselves, stay what a pickle says: data."""
    array = _Pickled(
        _MULTIARRAY._reconstruct,
        np.ndarray,
        (0,),
        b"b",
        state=(1, (10**12,), np.dtype("O"), False, b"not a list"),
    )
    content = {"state_dict": cord.state_dict(), "history": array, "log": np.array([{"a": 1}], dtype=object)}
    read = read_checkpoint(_saved(tmp_path / "c.pt", content))
    assert read["history"].numbers() is None
    assert read["log"].items == ({"a": 1},)


def test_a_damaged_checkpoint_is_refused_with_its_own_error(tmp_path: Path) -> None:
    state = {"w": torch.arange(6.0), "n": np.float64(1.5), "a": np.arange(3)}
    torch.save(state, tmp_path / "new.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({"w": torch.arange(6.0)}, tmp_path / "safe.pt")
    draw, damaged = random.Random(0), tmp_path / "damaged.pt"
    for sound in [(tmp_path / f"{name}.pt").read_bytes() for name in ("new", "old", "safe")]:
        for _ in range(150):
            data = bytearray(sound)
            for _ in range(draw.randint(1, 5)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            damaged.write_bytes(bytes(data[: draw.randint(len(data) // 2, len(data))]))
            # Any other exception is a bug.
            with contextlib.suppress(CheckpointError):
                read_checkpoint(damaged)


def test_an_archive_of_files_says_how_to_unpack_it(tmp_path: Path, cord: KeypointNet) -> None:
    _saved(tmp_path / "c.pt", cord.state_dict())
    with tarfile.open(tmp_path / "c.pth.tar", "w") as archive:
        archive.add(tmp_path / "c.pt", "c.pt")
    with pytest.raises(CheckpointError, match=r"archive of files.*tar -xf"):
        read_checkpoint(tmp_path / "c.pth.tar")


# ------------------------------------------------------------------------------------------------ advice


class _Mode(enum.Enum):
    FAST = 1


class _Config:
    def __init__(self) -> None:
        self.lr = 0.1


def _advised(path: Path, folder: Path) -> Path:
    """Run the command that the refusal of a file advises, where the classes of the file are not there."""
    with pytest.raises(CheckpointError, match="wants to run code") as caught:
        read_checkpoint(path)
    command = str(caught.value).rpartition("runs nothing of the file: python ")[2]
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "weights.pt"


@pytest.mark.parametrize("beside", [_Mode.FAST, _Config(), lambda: _Pickled(os.system, "touch ran")])
def test_weights_are_taken_out_beside_what_is_refused_by_the_command_that_is_advised(
    tmp_path: Path, cord: KeypointNet, beside: Any
) -> None:
    kept = beside() if callable(beside) else beside
    scaled = TemperatureScaled(cord, 2.0)
    content = {"state_dict": scaled.state_dict(), "what": kept, "metric": np.float64(0.5)}
    weights = _advised(_saved(tmp_path / "c.pt", content), tmp_path)
    assert torch.equal(_logits(_load(weights).network), _logits(scaled))
    assert not (tmp_path / "ran").exists()


def test_a_pickled_network_gives_its_weights_by_the_command_that_is_advised(
    tmp_path: Path, cord: KeypointNet
) -> None:
    scaled = TemperatureScaled(cord, 2.0)
    weights = _advised(_saved(tmp_path / "c.pt", scaled), tmp_path)
    taken, expected = torch.load(weights, weights_only=True), scaled.state_dict()
    assert list(taken) == list(expected)
    assert all(torch.equal(taken[name], value) for name, value in expected.items())
    assert torch.equal(_logits(_load(weights).network), _logits(scaled))


def test_what_changes_probabilities_is_not_lost_when_weights_are_taken_out(
    tmp_path: Path, cord: KeypointNet
) -> None:
    config = _Config()
    vars(config).update(temperature=np.float64(1.5))
    content = read_inert(_saved(tmp_path / "c.pt", {"m": cord.state_dict(), "what": config, "b": np.ones(2)}))
    assert content["what"]["temperature"] == 1.5
    assert content["b"].tolist() == [1.0, 1.0]
    with pytest.raises(CheckpointError, match=r"what.temperature"):
        _load(_saved(tmp_path / "w.pt", content))


def test_what_cannot_be_taken_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(pickle.dumps([1])[:-1])
    with pytest.raises(ValueError, match="cannot be read"):
        read_inert(tmp_path / "c.pt")
