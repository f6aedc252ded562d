"""Recovery of checkpoints from a pack made of this project's networks.

    python -m stenosis_trt.export.packs.recover PACK OUT [--other] [--landmarks]

For packs whose checkpoints were not kept: to export again, or to continue training. Batch normalisations were
folded into the convolutions and come back as identities; weights stored as FP16 stay rounded; a temperature
is recovered too. `--other` adds the untrained class "other" to a grader of four grades, `--landmarks` the
untrained maps of the landmarks to a levels network of six discs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights
from stenosis_trt.bench.statistics.confusion import GRADE_COUNT
from stenosis_trt.engine.errors import StenosisError
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.packs.pack import Pack, open_pack
from stenosis_trt.engine.records import LANDMARKS, LEVELS
from stenosis_trt.export.checkpoints.files import write_checkpoint
from stenosis_trt.export.errors import ExportError
from stenosis_trt.export.models.efficientnet import EfficientNetB5
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.models.temperature import TEMPERATURE, TemperatureScaled
from stenosis_trt.export.onnx.from_torch import torch_inference
from stenosis_trt.export.onnx.graphs import run_model
from stenosis_trt.export.packs.check_inputs import random_inputs

TOLERANCE = 1e-4
"""Largest output error of a network with recovered weights; ONNX Runtime and PyTorch sum in different orders.
"""

Array = npt.NDArray[Any]

_FIRST_WEIGHT = "features.0.0.weight"
_LAST_WEIGHT, _LAST_BIAS = "classifier.1.weight", "classifier.1.bias"
_OTHER_LOGIT = -1.0
"""Bias of the added class; the largest logit of a grade is well above."""

_FIRST_KEYPOINT_WEIGHT = "stages.0.0.0.weight"

_PREFIX = "network."
"""Prefix of every name, from the exporter's wrapper and once more from `TemperatureScaled`. A temperature of
1 is not stored."""


def recover_network(pack: Pack, name: str) -> tuple[nn.Module, float]:
    """Rebuild one network of a pack with its weights, in evaluation mode, returning logits.

    Args:
        pack: made of this project's `KeypointNet` and torchvision's EfficientNet-B5.
        name: "levels", "grader" or "cord".

    Returns:
        The network, and its largest difference to the pack's model on random input.

    Raises:
        ExportError: the model is a different network, or its outputs differ.
    """
    model, data = pack.models[name], pack.read_model(name)
    graph = fold_fp16_weights(onnx.load_model_from_string(data)).graph
    stored: dict[str, Array] = {
        item.name.removeprefix(_PREFIX).removeprefix(_PREFIX): numpy_helper.to_array(item)
        for item in graph.initializer
    }
    temperature = stored.pop(TEMPERATURE, None)
    network: nn.Module = _empty_network(model, stored).eval()
    state = network.state_dict()
    norms = {place: part for place, part in network.named_modules() if isinstance(part, nn.BatchNorm2d)}
    for key, value in state.items():
        place, _, part = key.rpartition(".")
        found = stored.get(key)
        if found is None and place in norms:
            found = _norm_value(place, part, norms[place], stored)
        if found is None or tuple(found.shape) != tuple(value.shape):
            raise _not_ours(name, f"{key} of {' × '.join(map(str, value.shape))}")
        state[key] = torch.from_numpy(found.copy())
    network.load_state_dict(state)
    if temperature is not None:
        network = TemperatureScaled(network, float(temperature)).eval()
    batch = random_inputs(model.input)
    error = float(np.abs(torch_inference(network, model.output.kind)(batch) - run_model(data, batch)).max())
    if not error <= TOLERANCE:
        raise ExportError(
            (
                f"The model {name} differs by {error:.2g} from this project's network with its weights: "
                "it is another variant of it."
            ),
            "Ask the pack's maker for the checkpoint.",
        )
    return network, error


def add_other_class(grader: nn.Module) -> EfficientNetB5:
    """Add the class "other" to a grader of four grades; it is rarely predicted before training.

    Raises:
        ExportError: the grader has other classes, or a temperature.
    """
    classes = grader.classifier[-1].out_features if isinstance(grader, EfficientNetB5) else 0
    if classes != GRADE_COUNT:
        raise ExportError(
            f'The grader does not have exactly {GRADE_COUNT} grades, so "other" cannot be added.'
        )
    weights = grader.state_dict()
    for name, value in ((_LAST_WEIGHT, 0.0), (_LAST_BIAS, _OTHER_LOGIT)):
        row = torch.full_like(weights[name][:1], value)
        weights[name] = torch.cat([weights[name], row])
    wider = EfficientNetB5(GRADE_COUNT + 1, channels=weights[_FIRST_WEIGHT].shape[1])
    wider.load_state_dict(weights)
    return wider.eval()


def add_landmarks(levels: nn.Module) -> KeypointNet:
    """Add the maps of the landmarks to a levels network of six discs; they are empty before training.

    Raises:
        ExportError: the network has other maps.
    """
    maps = levels.head.out_channels if isinstance(levels, KeypointNet) else 0
    if maps != len(LEVELS):
        raise ExportError(
            f"The levels network does not have exactly {len(LEVELS)} maps, so landmarks cannot be added."
        )
    weights = levels.state_dict()
    wider = KeypointNet(
        weights[_FIRST_KEYPOINT_WEIGHT].shape[1],
        len(LEVELS) + len(LANDMARKS),
        stride=4,
        decoder=weights["head.weight"].shape[1],
    )
    for name, value in wider.state_dict().items():
        if name.startswith("head."):
            weights[name] = torch.cat([weights[name], value[len(LEVELS) :]])
    wider.load_state_dict(weights)
    return wider.eval()


def recover_checkpoints(
    pack: Pack, out: Path, other: bool = False, landmarks: bool = False
) -> dict[str, float]:
    """Write `<name>.safetensors` for every model of a pack; returns the largest error of each.

    Args:
        pack: made of this project's networks.
        out: folder of the files.
        other: add the class "other" to the grader.
        landmarks: add the maps of the landmarks to the levels network.

    Raises:
        ExportError: see `recover_network`, `add_other_class` and `add_landmarks`; nothing is written then.
        OSError: `out` cannot be written.
    """
    found = {name: recover_network(pack, name) for name in pack.models}
    if other:
        grader, error = found["grader"]
        found["grader"] = add_other_class(grader), error
    if landmarks:
        levels, error = found["levels"]
        found["levels"] = add_landmarks(levels), error
    out.mkdir(parents=True, exist_ok=True)
    for name, (network, _) in found.items():
        write_checkpoint(out / f"{name}.safetensors", network)
    return {name: error for name, (_, error) in found.items()}


def _empty_network(model: ModelSpec, stored: Mapping[str, Array]) -> nn.Module:
    channels, outputs, stride = model.input.channels, len(model.output.names), model.output.stride
    if model.output.kind == "classes":
        return EfficientNetB5(outputs, channels=channels)
    if stride not in (2, 4) or "head.weight" not in stored:
        raise _not_ours(model.name, "head.weight, or a stride of 2 or 4")
    return KeypointNet(channels, outputs, stride, stored["head.weight"].shape[1])


def _norm_value(place: str, part: str, norm: nn.BatchNorm2d, stored: Mapping[str, Array]) -> Array | None:
    """Tensor of a folded batch normalisation that adds the bias and is otherwise an identity."""
    if part == "bias":
        row, _, index = place.rpartition(".")
        return stored.get(f"{row}.{int(index) - 1}.weight_bias")
    # The normalisation divides by √(variance + ε).
    values = {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - norm.eps}
    return np.full(norm.num_features, values[part], np.float32) if part in values else np.array(0)


def _not_ours(name: str, lacks: str) -> ExportError:
    return ExportError(
        f"The model {name} is not this project's network: it has no {lacks}.",
        "Ask the pack's maker for the checkpoint.",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Recover the checkpoints of a pack. Exit code 0: written; 2: not possible."""
    parser = argparse.ArgumentParser(description="The trained weights of a pack back into checkpoints.")
    parser.add_argument("pack", type=Path, help="a folder or a zip; `reference` takes the reference pack")
    parser.add_argument("out", type=Path, help="folder for levels, grader and cord.safetensors")
    parser.add_argument("--other", action="store_true", help='give a grader of four grades the class "other"')
    parser.add_argument(
        "--landmarks",
        action="store_true",
        help="give a levels network of six discs the maps of the landmarks",
    )
    asked = parser.parse_args(arguments)
    try:
        errors = recover_checkpoints(open_pack(asked.pack), asked.out, asked.other, asked.landmarks)
    except StenosisError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or asked.out} cannot be written ({error.strerror}).", file=sys.stderr)
        return 2
    for name, largest in errors.items():
        print(f"{asked.out / name}.safetensors: differs from the pack's model by at most {largest:.2g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
