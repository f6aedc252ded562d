"""A checkpoint file to one set of named weights, whatever it was wrapped in. No file gets to run code.

Training scripts store weights under "state_dict" or "model", beside optimisers and averaged copies, and put
"module." or "net." in front of every name. What is looked for is a name that the network is known to have:
the sets that hold it are the candidates, and what stands in front of it is the wrappers'.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from stenosis_trt.engine.whole_files import write_whole_bytes
from stenosis_trt.export.onnx_export import ExportError
from stenosis_trt.export.training.confidence import TEMPERATURE

SUFFIXES = (".safetensors", ".pt", ".pth")
"""Of checkpoints with weights alone. An ONNX file brings its network along."""

_SHOWN = 5
"""Tensors that a message names before it counts the others."""
_DEPTH = 4
"""Levels of mappings in a checkpoint that are searched."""
_COUNTER = "num_batches_tracked"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


class CheckpointError(ExportError):
    """A checkpoint that cannot be used. The message names the file, what is wrong, and how to mend it."""


@dataclass(frozen=True)
class Weights:
    """One set of weights, found in a file.

    Attributes:
        tensors: by name, wrappers removed.
        anchor: which of the names looked for it was recognised by.
        where: what stood around the names, such as "state_dict" or "ema.module"; "" for nothing.
        beside: names in the same set without the wrapper's prefix, which nothing will read.
        notes: texts that lay in the file itself and may tell of the network, such as timm's "arch".
        temperature: what the logits are to be divided by: a wrapper's tensor of that name, as `Calibrated`
            and other implementations of temperature scaling have it; None where there is none.
    """

    tensors: Mapping[str, torch.Tensor]
    anchor: str
    where: str
    beside: tuple[str, ...]
    notes: Mapping[str, str]
    temperature: float | None = None


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """What a file holds, with tensors on the CPU.

    Args:
        path: .safetensors, or .pt and .pth, which are read with `weights_only`.

    Raises:
        CheckpointError: not there, not such a file, or a pickle that wants to run code.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CheckpointError(
            f"{path} is no checkpoint that is known. Give one of {', '.join(SUFFIXES)}, or an .onnx file."
        )
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}. Give a file.")
    if suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} cannot be read as safetensors ({error}). Save it again."
            ) from error
    try:
        # timm keeps its command line in the checkpoint; a Namespace holds values and does nothing. PyTorch
        # remarks on a pickle's age before it says what is wrong, or before all is well.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is TorchScript, which is a program. Save the weights: "
                "torch.save(torch.jit.load(file).state_dict(), 'weights.pt')."
            ) from error
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint ({type(error).__name__}). Save it again."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__} and no weights by name. "
            "Save them: torch.save(network.state_dict(), 'weights.pt')."
        )
    return content


def write_checkpoint(path: Path, network: nn.Module) -> None:
    """A network's weights as .safetensors, whole or not at all, for `read_checkpoint`."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_whole_bytes(path, save(tensors))


def _refused(path: Path, error: Exception) -> CheckpointError:
    wanted = _GLOBAL.search(str(error))
    if wanted is None:
        return CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint: it is damaged, or a pickle of other "
            "things than weights. Save the weights alone: torch.save(network.state_dict(), 'weights.pt')."
        )
    return CheckpointError(
        f"{path} is a pickle that wants to run code (it calls for {wanted[1]}), and was not "
        "loaded. Where it was trained, save the weights alone: "
        "torch.save(network.state_dict(), 'weights.pt'), or as .safetensors."
    )


def find_weights(
    path: Path, content: Mapping[str, Any], anchors: Sequence[str], chosen: str | None
) -> Weights:
    """The set of weights in a checkpoint that has a tensor called by one of `anchors`.

    Args:
        path: for messages.
        content: of the file.
        anchors: names, each of one kind of network.
        chosen: which set to take where there are several, by what stands around its names.

    Raises:
        CheckpointError: there is none, or several and none was chosen, or values that are no numbers.
    """
    sets = {
        (place, prefix): (names, anchor)
        for place, names in _mappings(content)
        for anchor, prefix in _prefixes(names, anchors)
    }
    if not sets:
        seen = [name for _, names in _mappings(content) for name in names]
        what = f"Its tensors are called {named(seen)}." if seen else "It holds no tensors."
        raise CheckpointError(
            f"{path} is of no network that is known: none of {', '.join(anchors)} is in it. {what} "
            "Give another network as an .onnx file."
        )
    shown = {key: ".".join(part for part in (key[0], key[1].rstrip(".")) if part) for key in sets}
    keys = [key for key in sets if chosen is None or shown[key] == chosen or key[0] == chosen]
    if len(keys) != 1:
        choices = ", ".join(repr(shown[key]) for key in sets)
        fault = f"has no weights {chosen!r}" if chosen and not keys else "holds several sets of weights"
        raise CheckpointError(f"{path} {fault}. Name one in the spec's [….checkpoint] weights: {choices}.")
    names, anchor = sets[keys[0]]
    prefix = keys[0][1]
    tensors = {name.removeprefix(prefix): names[name] for name in names if name.startswith(prefix)}
    around = {name: names[name] for name in names if not name.startswith(prefix)}
    temperature = None
    if TEMPERATURE in around:
        value = {TEMPERATURE: around.pop(TEMPERATURE)}
        temperature = _temperature(path, _as_numbers(path, value)[TEMPERATURE])
    return Weights(
        tensors=_as_numbers(path, tensors),
        anchor=anchor,
        where=shown[keys[0]],
        beside=tuple(around),
        notes={str(key): value for key, value in content.items() if isinstance(value, str)},
        temperature=temperature,
    )


def fit(
    path: Path, weights: Weights, expected: Mapping[str, torch.Tensor], network: str
) -> dict[str, torch.Tensor]:
    """The weights by the names of `expected`, all of them there and of its shapes.

    Args:
        path: for messages.
        weights: what was found.
        expected: a state dict under the checkpoint's names.
        network: what it is called in messages.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or nothing in the network is called so.
    """
    found = weights.tensors
    faults = []
    # Counters of batches matter to training alone, and old checkpoints lack them.
    missing = [name for name in expected if name not in found and not name.endswith(_COUNTER)]
    if missing:
        faults.append(f"it lacks {named(missing)}")
    wrong = [
        f"{name} ({_shape(found[name])}, not {_shape(value)})"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if wrong:
        faults.append(f"of another shape are {named(wrong)}")
    unknown = [name for name in found if name not in expected]
    if unknown:
        faults.append(f"the network has nothing called {named(unknown)}")
    if faults:
        beside = f" Beside it lie {named(weights.beside)}." if weights.beside else ""
        raise CheckpointError(
            f"{path} does not fit {network}: {'; '.join(faults)}.{beside} "
            "Give a checkpoint of that network, or another network as an .onnx file."
        )
    return {name: found.get(name, value) for name, value in expected.items()}


def _temperature(path: Path, tensor: torch.Tensor) -> float:
    value = float(tensor) if tensor.numel() == 1 else 0.0
    if not value > 0.0:
        raise CheckpointError(
            f"{path} has a {TEMPERATURE} that is no positive number. Remove it, or fit it again."
        )
    return value


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _mappings(
    content: Mapping[str, Any], place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping from names to tensors in a checkpoint, with the keys that lead there."""
    tensors = {key: value for key, value in content.items() if _is_tensor(key, value)}
    if tensors:
        yield place, tensors
    if depth == _DEPTH:
        return
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping):
            yield from _mappings(value, f"{place}.{key}" if place else key, depth + 1)


def _is_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor)


def _prefixes(names: Mapping[str, Any], anchors: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(anchor, what stands in front of it) for each name that ends with an anchor."""
    for name in names:
        for anchor in anchors:
            prefix = name.removesuffix(anchor)
            if prefix != name and (not prefix or prefix.endswith(".")):
                yield anchor, prefix


def _as_numbers(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as float32, counters as they are."""
    empty = [name for name, value in tensors.items() if value.is_meta]
    if empty:
        raise CheckpointError(
            f"{path} has weights without values: {named(empty)}. Save it again, once loaded."
        )
    result = {
        name: value if name.endswith(_COUNTER) else value.detach().to(torch.float32)
        for name, value in tensors.items()
        if name.endswith(_COUNTER) or value.is_floating_point()
    }
    other = [name for name in tensors if name not in result]
    if other:
        raise CheckpointError(
            f"{path} has weights that are no floating-point numbers: {named(other)}. "
            "Give the checkpoint before it was quantised."
        )
    broken = [name for name, value in result.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(
            f"{path} has weights that are not finite: {named(broken)}. Give one from before that."
        )
    return result
