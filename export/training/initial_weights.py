"""Initial weights from a file, and freezing of parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from stenosis_trt.export.checkpoints.files import CheckpointError, read_checkpoint
from stenosis_trt.export.checkpoints.read import list_names

_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SUFFIX = ".safetensors"


def weights_record(path: Path) -> dict[str, str]:
    """Name and SHA-256 of a weights file, as stored in checkpoints."""
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def load_initial_weights(path: Path, network: nn.Module) -> None:
    """Load a .safetensors file of `write_checkpoint` into a network.

    Raises:
        CheckpointError: the file cannot be read; tensors are missing, unknown or of another shape; or values
            are not finite.
    """
    if path.suffix.lower() != _SUFFIX:
        raise CheckpointError(f"{path} is not {_SUFFIX}.", "Give a file that the recipe left for a network.")
    found: dict[str, torch.Tensor] = dict(read_checkpoint(path))
    expected = network.state_dict()
    shapes = {name: value.shape for name, value in expected.items()}
    faults = {
        "it lacks": [name for name in shapes if name not in found],
        "of another shape are": [
            name for name in shapes if name in found and found[name].shape != shapes[name]
        ],
        "the network has nothing called": [name for name in found if name not in shapes],
        "not finite are": [name for name, value in found.items() if not torch.isfinite(value).all()],
    }
    if any(faults.values()):
        told = "; ".join(f"{fault} {list_names(names)}" for fault, names in faults.items() if names)
        raise CheckpointError(
            f"{path} cannot be used as initial weights: {told}.", "Give the weights of the same network."
        )
    network.load_state_dict(found)


def freeze(network: nn.Module, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Exclude parameters from training.

    Args:
        network: all other parameters will be trained.
        frozen: names of modules or parameters, including everything below them.

    Returns:
        The parameters to train.

    Raises:
        ValueError: a name is unknown, or no parameter is left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for prefix in frozen:
        if not any(_is_below(name, (prefix,)) for name in names):
            parts = list_names([name for name, _ in network.named_children()])
            raise ValueError(
                f"The network has no parameters below {prefix!r} to leave as they are. Its parts are {parts}."
            )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not _is_below(name, frozen))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("No parameter of the network is left to train. Name less of it as frozen.")
    return trained


def set_training_mode(network: nn.Module, frozen: Sequence[str]) -> None:
    """Set training mode, except for frozen batch normalisations, which keep their statistics."""
    network.train()
    for name, module in network.named_modules():
        if isinstance(module, _NORMALISATIONS) and _is_below(name, frozen):
            module.eval()


def _is_below(name: str, prefixes: Sequence[str]) -> bool:
    """True if the name is one of the prefixes, or continues one after a dot."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
