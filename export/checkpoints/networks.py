"""Loading of a checkpoint into this project's networks, as its spec says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from stenosis_trt.engine.packs.models import MODEL_ROLES
from stenosis_trt.export.checkpoints.efficientnet_names import ANCHORS, NETWORKS, library_names
from stenosis_trt.export.checkpoints.files import CheckpointError, read_checkpoint
from stenosis_trt.export.checkpoints.read import (
    KEYPOINT_ANCHOR,
    FoundWeights,
    WeightsChoice,
    find_weights,
    list_names,
    match_weights,
)
from stenosis_trt.export.checkpoints.unread import IgnoredKeys
from stenosis_trt.export.models.efficientnet import EfficientNetB5, EfficientNetVariant
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.models.temperature import TemperatureScaled
from stenosis_trt.export.spec_file import CheckpointDeclaration, ModelDeclaration

_NAME_CLASSES = "name its classes in the spec"
_KEYPOINT = "stenosis-trt/keypoint"


@dataclass(frozen=True)
class LoadedNetwork:
    """Network in evaluation mode with logits in the pipeline's order, and where it was read from."""

    network: nn.Module
    facts: Mapping[str, str]


class _ReorderedOutputs(nn.Module):
    """Network with its outputs in another order."""

    def __init__(self, network: nn.Module, order: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.index_select(self.network(x), 1, self.get_buffer("order"))


def load_network(
    path: Path, declaration: ModelDeclaration, ignored: IgnoredKeys | None = None
) -> LoadedNetwork:
    """Read a checkpoint into the network it belongs to.

    Args:
        path: safetensors, or a file of `torch.save`.
        declaration: its part of the spec. Classes load EfficientNet-B5, heatmaps `KeypointNet`.
        ignored: from `--ignore-key`.

    Raises:
        CheckpointError: the file cannot be read, belongs to another network, needs an entry that the spec
            lacks, or contradicts the spec.
    """
    output = declaration.output
    if declaration.activation is not None:
        raise CheckpointError(
            f"{path} is a checkpoint, whose activation is known: remove `activation` from the spec."
        )
    content = read_checkpoint(path)
    left_out = ignored or IgnoredKeys()
    told = declaration.checkpoint
    choice = WeightsChoice(declaration.role, told.weights, told.temperature, left_out)
    if output.kind == "classes":
        weights = find_weights(path, content, tuple(ANCHORS.values()), choice)
        name, network, expected = _make_efficientnet(path, weights, declaration)
    else:
        weights = find_weights(path, content, (KEYPOINT_ANCHOR,), choice)
        name, network, expected = _make_keypoint(path, weights, declaration)
    state = network.state_dict()
    fitted = match_weights(
        path, weights, {expected[key]: value for key, value in state.items()}, name, left_out
    )
    network.load_state_dict({key: fitted[expected[key]] for key in state})
    network.eval()
    facts = {"network": name}
    if weights.location:
        facts["weights"] = weights.location
    if weights.beside:
        facts["not_read"] = list_names(weights.beside)
    if weights.temperature is not None:
        network = TemperatureScaled(network, weights.temperature).eval()
        facts["temperature"] = f"{weights.temperature:.6g}"
    in_order = declaration.order == tuple(range(len(output.names)))
    return LoadedNetwork(network if in_order else _ReorderedOutputs(network, declaration.order), facts)


def _make_efficientnet(
    path: Path, weights: FoundWeights, declaration: ModelDeclaration
) -> tuple[str, nn.Module, dict[str, str]]:
    """Name of the network, the network, and the checkpoint's name of each of its tensors."""
    library = next(name for name, anchor in ANCHORS.items() if anchor == weights.anchor)
    name, variant = _variant(path, library, weights, declaration.checkpoint)
    channels, classes = declaration.input.channels, len(declaration.output.names)
    network = EfficientNetB5(classes, channels=channels, variant=variant)
    names = library_names(network.state_dict(), library)
    last = names["classifier.1.weight"]
    _check_size(path, weights, last, 0, classes, "classes", "output.names", _classes_remedy(weights, last))
    _check_size(path, weights, weights.anchor, 1, channels, "input channels", "input.channels")
    return name, network, names


def _variant(
    path: Path, library: str, weights: FoundWeights, choice: CheckpointDeclaration
) -> tuple[str, EfficientNetVariant]:
    """The library's variant that a checkpoint belongs to, from the spec or from the file's texts."""
    own = [name for name, (of, _) in NETWORKS.items() if of == library]
    asked = choice.network
    if asked is not None and asked not in own:
        known = ", ".join(NETWORKS)
        if asked not in NETWORKS:
            raise CheckpointError(
                f"The network {asked!r} is not known.", f"Write one of {known}, in the spec."
            )
        raise CheckpointError(
            f"{path} has the names of {library}, and the spec says {asked}.", f"Write {' or '.join(own)}."
        )
    told = f"{library}/{weights.texts.get('arch', '')}"
    if asked is None and len(own) > 1 and told not in own:
        raise CheckpointError(
            (
                f"{path} may be of {' or '.join(own)}: their tensors are called the same, but they "
                "compute different things."
            ),
            (
                "Write which one as `network` in the spec's [grader.checkpoint], or so: --set "
                f"grader.checkpoint.network={own[0]}"
            ),
        )
    name = asked or (told if told in own else own[0])
    variant = NETWORKS[name][1]
    if choice.image_size is None:
        return name, variant
    if variant.padding_image_size is None:
        raise CheckpointError(
            f"{name} does not use image_size.", "Remove it from the spec's [grader.checkpoint]."
        )
    return name, replace(variant, padding_image_size=choice.image_size if all(choice.image_size) else None)


def _classes_remedy(weights: FoundWeights, last: str) -> str:
    """Advice for a grader with another number of classes."""
    tensor = weights.tensors.get(last)
    count = 0 if tensor is None or not tensor.dim() else tensor.shape[0]
    names = next((each for each in MODEL_ROLES["grader"].accepted_names if len(each) == count), None)
    if names is None:
        return f"{_NAME_CLASSES}: {MODEL_ROLES['grader'].accepted_names_text}"
    option = shlex.quote(f"grader.output.names={json.dumps(list(names))}")
    return f"{_NAME_CLASSES}: --set {option}"


def _make_keypoint(
    path: Path, weights: FoundWeights, declaration: ModelDeclaration
) -> tuple[str, nn.Module, dict[str, str]]:
    if declaration.checkpoint.network not in (None, _KEYPOINT):
        raise CheckpointError(
            f"{path} is of {_KEYPOINT}, and the spec says {declaration.checkpoint.network}.",
            "Correct the spec.",
        )
    spec, output = declaration.input, declaration.output
    _check_size(path, weights, "head.weight", 0, len(output.names), "points", "output.names")
    _check_size(path, weights, KEYPOINT_ANCHOR, 1, spec.channels, "input channels", "input.channels")
    laterals = sum(name.startswith("laterals.") and name.endswith(".weight") for name in weights.tensors)
    stride = {5: 2, 4: 4}.get(laterals)
    if stride != output.stride:
        raise CheckpointError(
            f"{path} has {laterals} tensors laterals.*.weight, as with a stride of {stride}, and the spec "
            f"says {output.stride}. Correct output.stride"
            + (f": --set {declaration.role}.output.stride={stride}" if stride else ".")
        )
    if spec.height % 32 or spec.width % 32:
        raise CheckpointError(
            f"{path} needs a height and width that are multiples of 32.", "Correct input.size."
        )
    network = KeypointNet(spec.channels, len(output.names), stride, weights.tensors["head.weight"].shape[1])
    return _KEYPOINT, network, {name: name for name in network.state_dict()}


def _check_size(
    path: Path,
    weights: FoundWeights,
    name: str,
    axis: int,
    wanted: int,
    what: str,
    entry: str,
    remedy: str = "correct the spec",
) -> None:
    """Report a wrong number of classes or channels with the spec's entry, before all shapes are compared."""
    tensor = weights.tensors.get(name)
    if tensor is not None and tensor.dim() > axis and tensor.shape[axis] != wanted:
        raise CheckpointError(
            (
                f"{path} has {tensor.shape[axis]} {what} ({name} is {'×'.join(map(str, tensor.shape))}), "
                f"and the spec's {entry} asks for {wanted}."
            ),
            f"Give a checkpoint that was trained so, or {remedy}.",
        )
