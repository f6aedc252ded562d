"""Search for a network's weights in a checkpoint, whatever they are wrapped in.

Training scripts store weights under "state_dict" or "model", beside optimisers and averaged copies, and
prefix names with "module." or "net.". Weights are found by a tensor name that the network is known to have
(the anchor); what precedes it is the wrappers' prefix.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stenosis_trt.export.checkpoints.efficientnet_names import ANCHORS
from stenosis_trt.export.checkpoints.files import CheckpointError
from stenosis_trt.export.checkpoints.unread import (
    IgnoredKeys,
    ignore_options,
    is_training_state,
    possible_parameters,
)
from stenosis_trt.export.models.temperature import TEMPERATURE

KEYPOINT_ANCHOR = "stages.0.0.0.weight"
"""Tensor name that identifies this project's keypoint network."""

_NAMES_SHOWN = 5
"""Number of tensors a message names before it counts the others."""
_MAX_DIMENSIONS = 64
"""PyTorch's maximum number of dimensions."""
_MAX_DEPTH = 4
"""Maximum nesting of mappings that is searched."""
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class FoundWeights:
    """A set of weights in a checkpoint.

    Attributes:
        tensors: by name, without the wrappers' prefix.
        anchor: the anchor found.
        location: keys and prefix around the names, such as "state_dict" or "ema.module"; "" for none.
        beside: names in the same mapping without the prefix, which are not read.
        texts: top-level texts of the file, which may identify the network, such as timm's "arch".
        temperature: divisor of the logits, from a wrapper's tensor of that name; None if there is none.
    """

    tensors: Mapping[str, torch.Tensor]
    anchor: str
    location: str
    beside: tuple[str, ...]
    texts: Mapping[str, str]
    temperature: float | None = None


def list_names(names: Sequence[str]) -> str:
    """The first names, and the number of further ones."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class WeightsChoice:
    """What the user says about a checkpoint.

    Attributes:
        role: the model, for options in messages.
        weights: location of the weights to take if there are several.
        temperature: divisor of the logits; None for the checkpoint's own.
        ignored_keys: from `--ignore-key`.
    """

    role: str = "…"
    weights: str | None = None
    temperature: float | None = None
    ignored_keys: IgnoredKeys = field(default_factory=IgnoredKeys)


def find_weights(
    path: Path, content: Mapping[str, Any], anchors: Sequence[str], chosen: WeightsChoice | str | None = None
) -> FoundWeights:
    """Find the weights in a checkpoint that contain one of `anchors`.

    Args:
        path: for messages.
        content: content of the file.
        anchors: tensor names, each identifying a network.
        chosen: what the user says; a text is the location of the weights.

    Raises:
        CheckpointError: there are no such weights, or several and none was chosen; values are not numbers; or
            an unread value may be a parameter of the network.
    """
    choice = chosen if isinstance(chosen, WeightsChoice) else WeightsChoice(weights=chosen)
    mappings = dict(_mappings(content))
    sets = _sets(mappings, anchors)
    if not sets:
        seen = [name for names in mappings.values() for name in names]
        what = f"Its tensors are called {list_names(seen)}." if seen else "It holds no tensors."
        raise CheckpointError(
            f"{path} belongs to no known network: it has none of {', '.join(anchors)}.",
            f"{what} Give another network as an .onnx file.",
        )
    shown = {key: ".".join(part for part in (key[0], key[1].rstrip(".")) if part) for key in sets}
    keys = [key for key in sets if choice.weights in (None, shown[key], key[0])]
    if len(keys) != 1:
        choices = ", ".join(repr(shown[key]) for key in sets)
        missing = choice.weights and not keys
        fault = f"has no weights {choice.weights!r}" if missing else "holds several sets of weights"
        paste = shlex.quote(f"{choice.role}.checkpoint.weights={next(iter(shown.values()))}")
        raise CheckpointError(
            f"{path} {fault}.",
            f"Name one in the spec's [….checkpoint] weights: {choices}; or so: --set {paste}",
        )
    place, prefix = keys[0]
    names = mappings[place]
    known = (*ANCHORS.values(), KEYPOINT_ANCHOR)
    own = _WeightsLocation(place, prefix, tuple(other for at, other in _sets(mappings, known) if at == place))
    temperatures = [
        name
        for name in names
        if own.is_temperature(name) and not choice.ignored_keys.covers(own.full(name), name)
    ]
    if len(temperatures) > 1:
        raise CheckpointError(
            f"{path} has several temperatures: {list_names(temperatures)}.",
            (
                "Leave out what the logits are not divided by: "
                f"{ignore_options([own.full(name) for name in temperatures[1:]], shown[keys[0]])}"
            ),
        )
    tensors = {
        name.removeprefix(prefix): value
        for name, value in names.items()
        if name.startswith(prefix) and not own.is_temperature(name)
    }
    around = {name: value for name, value in names.items() if not name.startswith(prefix)}
    around = {name: value for name, value in around.items() if name not in temperatures}
    copies = [at for at, _ in _sets(mappings, known)]
    beside = [own.full(name) for name in around if not own.is_no_parameter(name, around[name])]
    numbers = dict(possible_parameters(content, copies))
    if choice.temperature is not None:
        numbers = {name: value for name, value in numbers.items() if _last_part(name) != TEMPERATURE}
    unread = [name for name in (*beside, *numbers) if not choice.ignored_keys.covers(name)]
    if unread:
        raise _unread_error(path, choice.role, unread, numbers, shown[keys[0]])
    temperature = choice.temperature
    for name in temperatures:
        found = _read_temperature(path, _check_values(path, {name: names[name]})[name])
        if temperature not in (None, found):
            raise CheckpointError(
                f"{path} has the temperature {found:.6g} as {name}, and the spec says {temperature:.6g}.",
                "Remove it from the spec's [….checkpoint].",
            )
        temperature = found
    return FoundWeights(
        tensors=_check_values(path, tensors),
        anchor=sets[keys[0]],
        location=shown[keys[0]],
        beside=tuple(around),
        texts={str(key): value for key, value in content.items() if isinstance(value, str)},
        temperature=temperature,
    )


@dataclass(frozen=True)
class _WeightsLocation:
    """Location of the chosen weights: their mapping, prefix, and the prefixes of all sets in that mapping."""

    place: str
    prefix: str
    prefixes: tuple[str, ...]

    def full(self, name: str) -> str:
        """Name with the path of the mapping."""
        return f"{self.place}.{name}" if self.place else name

    def is_temperature(self, name: str) -> bool:
        """True for the temperature of the network or of a wrapper around it."""
        return _last_part(name) == TEMPERATURE and self.prefix.startswith(name.removesuffix(TEMPERATURE))

    def is_no_parameter(self, name: str, value: torch.Tensor) -> bool:
        """True if a tensor beside the weights is a counter, a record, or belongs to another set."""
        above = name.removesuffix(_last_part(name))
        of_another = any(
            name.startswith(other) or (above and other.startswith(above))
            for other in self.prefixes
            if other and other != self.prefix and not self.prefix.startswith(other)
        )
        return of_another or not value.is_floating_point() or is_training_state(name)


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _sets(mappings: Mapping[str, Mapping[str, Any]], anchors: Sequence[str]) -> dict[tuple[str, str], str]:
    """Anchors by (path of the mapping, prefix)."""
    return {
        (place, prefix): anchor
        for place, names in mappings.items()
        for anchor, prefix in _anchor_prefixes(names, anchors)
    }


def _unread_error(
    path: Path, role: str, unread: Sequence[str], numbers: Mapping[str, Any], weights: str
) -> CheckpointError:
    """Error about possible parameters, with the options that resolve it."""
    divides = ""
    for name in unread:
        value = numbers.get(name)
        number = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if _last_part(name) == TEMPERATURE and isinstance(number, float) and number > 0:
            divides = (
                f" If the logits are to be divided by it: --set {role}.checkpoint.temperature={number:.6g}."
            )
            break
    return CheckpointError(
        f"{path} holds {list_names(unread)} beside the weights, which are not read and may affect the "
        f"network's output.{divides} If they do not: {ignore_options(unread, weights)}"
    )


def match_weights(
    path: Path,
    weights: FoundWeights,
    expected: Mapping[str, torch.Tensor],
    network: str,
    ignored: IgnoredKeys | None = None,
) -> dict[str, torch.Tensor]:
    """Return the weights under the names of `expected`; all must be present with the expected shapes.

    Args:
        path: for messages.
        weights: the weights found.
        expected: a state dict under the checkpoint's names.
        network: name of the network in messages.
        ignored: from `--ignore-key`.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or is unknown to the network.
    """
    found = weights.tensors
    faults = []
    # Batch counters matter only in training, and old checkpoints lack them.
    missing = [name for name in expected if name not in found and not name.endswith(_COUNTER)]
    if missing:
        faults.append(f"it lacks {list_names(missing)}")
    wrong = [
        f"{name} ({_shape_text(found[name])}, not {_shape_text(value)})"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if wrong:
        faults.append(f"of another shape are {list_names(wrong)}")
    around, left_out = weights.location, ignored or IgnoredKeys()
    unknown = [
        name
        for name in found
        if name not in expected
        and not is_training_state(name)
        and not left_out.covers(name, f"{around}.{name}" if around else name)
    ]
    if unknown:
        faults.append(f"the network has nothing called {list_names(unknown)}")
    if faults:
        beside = f" Beside it lie {list_names(weights.beside)}." if weights.beside else ""
        only_more = not missing and not wrong
        without = (
            f" If the output does not depend on them: {ignore_options(unknown, '')}" if only_more else ""
        )
        raise CheckpointError(
            f"{path} does not fit {network}: {'; '.join(faults)}.{beside} "
            f"Give a checkpoint of that network, or another network as an .onnx file.{without}"
        )
    return {name: found.get(name, value) for name, value in expected.items()}


def _read_temperature(path: Path, tensor: torch.Tensor) -> float:
    value = float(tensor) if tensor.numel() == 1 else 0.0
    if not 0.0 < value < math.inf:
        raise CheckpointError(
            f"{path} has a {TEMPERATURE} that is not a positive number.", "Remove it, or fit it again."
        )
    return value


def _shape_text(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _mappings(
    content: Mapping[str, Any], place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping from names to tensors in a checkpoint, with its path."""
    tensors = {key: value for key, value in content.items() if _is_tensor(key, value)}
    if tensors:
        yield place, tensors
    if depth == _MAX_DEPTH:
        return
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping):
            yield from _mappings(value, f"{place}.{key}" if place else key, depth + 1)


def _is_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor)


def _anchor_prefixes(names: Mapping[str, Any], anchors: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(anchor, prefix) of each name that ends with an anchor."""
    for name in names:
        for anchor in anchors:
            prefix = name.removesuffix(anchor)
            if prefix != name and (not prefix or prefix.endswith(".")):
                yield anchor, prefix


def _check_values(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as float32; counters unchanged."""
    empty = [name for name, value in tensors.items() if value.is_meta]
    if empty:
        raise CheckpointError(
            f"{path} has weights without values: {list_names(empty)}.", "Save it again, once loaded."
        )
    deep = [name for name, value in tensors.items() if value.dim() > _MAX_DIMENSIONS]
    if deep:
        raise CheckpointError(
            f"{path} has weights of more than {_MAX_DIMENSIONS} dimensions: {list_names(deep)}.",
            "It is damaged: save it again.",
        )
    result = {
        name: value if name.endswith(_COUNTER) else value.detach().to(torch.float32)
        for name, value in tensors.items()
        if name.endswith(_COUNTER) or value.is_floating_point()
    }
    other = [name for name in tensors if name not in result]
    if other:
        raise CheckpointError(
            f"{path} has weights that are not floating-point numbers: {list_names(other)}.",
            "Give the checkpoint before it was quantised.",
        )
    broken = [name for name, value in result.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(
            f"{path} has weights that are not finite: {list_names(broken)}.", "Give one from before that."
        )
    return result
