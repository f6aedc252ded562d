"""Spec of an exported pack: a TOML file, settings of the command line, or both.

`specs/reference.toml` shows every entry with a comment. Entries that decide what a network sees have no
default; missing and unknown entries are errors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.models import MODEL_ROLES, OTHER_CLASS, InputSpec, OutputSpec
from stenosis_trt.export.errors import ExportError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ACTIVATIONS = ("none", "sigmoid", "softmax", "clip")
STORAGES = ("fp16", "fp32")
REFERENCE_SPEC = "reference"
"""Value of `--spec` for the spec that comes with the package."""

_PACK = ("name", "version", "licence", "intended_use")
UNKNOWN = "unknown"
"""Text of a pack's fields that the spec does not set."""
_CARD = ("training_data", "limits", "not_for")
"""Entries of the model card that are always present."""
_INPUT = ("size", "channels", "channel_source", "window_percentiles", "mean", "std", "centre_offset_mm")
_CHECKPOINT = ("network", "weights", "image_size", "temperature")
_MAX_BYTES = 1 << 20
_MAX_LINE, _MAX_TEXT = 400, 20_000
"""Maximum number of characters of a pack's name and version, and of its other texts."""
_MAX_WHOLE = 1 << 31
_MAX_DEPTH = 50
"""Maximum nesting of tables and lists."""
_MAX_INTEGER = 1 << 63


class SpecError(ExportError):
    """A spec that cannot be used. The message says where, why, and what to write."""


@dataclass(frozen=True)
class CheckpointDeclaration:
    """What a checkpoint does not say about itself.

    Attributes:
        network: one of `efficientnet_names.NETWORKS`.
        weights: the set of weights to read, such as "state_dict_ema" or "ema.module".
        image_size: (height, width) an efficientnet-pytorch network was made for; (0, 0) for any size.
        temperature: divisor of the logits, if the weights do not contain one.
    """

    network: str | None = None
    weights: str | None = None
    image_size: tuple[int, int] | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class ModelDeclaration:
    """Input, output and checkpoint of one network.

    Attributes:
        input: input specification, as stored in the pack.
        output: output specification, as stored in the pack; names in the pipeline's order.
        order: index of each of `output`'s names in the network's own output.
        activation: one of `ACTIVATIONS`, for an ONNX file; None if the spec does not say.
        metrics: metrics stated by the author of the pack.
        checkpoint: see `CheckpointDeclaration`.
        role: "levels", "grader" or "cord", for messages.
    """

    input: InputSpec
    output: OutputSpec
    order: tuple[int, ...]
    activation: str | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    checkpoint: CheckpointDeclaration = field(default_factory=CheckpointDeclaration)
    role: str = "…"


@dataclass(frozen=True)
class ExportSpec:
    """Everything a pack contains besides the models.

    Attributes:
        half_weights: store weights as FP16.
        clinical_use: the pack is for clinical use; reports then do not say that it is not.
    """

    name: str
    version: str
    licence: str
    intended_use: str
    half_weights: bool
    card: Mapping[str, Any]
    models: Mapping[str, ModelDeclaration]
    clinical_use: bool = False


def reference_spec() -> Path:
    """Path of the spec that comes with the package, which is the reference pack's own."""
    return Path(__file__).parent / "specs" / f"{REFERENCE_SPEC}.toml"


def read_spec(path: Path | None, settings: Sequence[str] = ()) -> ExportSpec:
    """Read a spec and apply settings to it.

    Args:
        path: a TOML file; `REFERENCE_SPEC` for the one of the package; None if the settings are complete.
        settings: assignments such as "grader.input.size=[456, 456]". Values are TOML; other words are text.

    Raises:
        SpecError: the file cannot be read or is not TOML, or an entry is missing, unknown or wrong.
    """
    content = _read(path) if path is not None else {}
    for setting in settings:
        _put(content, setting)
    if path is None and not any(role in content for role in MODEL_ROLES):
        raise SpecError(
            "No spec describes the networks' inputs and outputs.",
            (
                f"Copy {reference_spec()}, change what differs, and give it: --spec FILE; or, for "
                f"networks with the reference pack's inputs and outputs: --spec {REFERENCE_SPEC}"
            ),
        )
    _known("the spec", content, ("pack", "card", *MODEL_ROLES))
    pack = _table(content, "pack", "the spec") if "pack" in content else {}
    _known("[pack]", pack, (*_PACK, "clinical_use", "weights"))
    texts = {key: _text(pack, key, "[pack]") if key in pack else UNKNOWN for key in _PACK}
    for key, text in texts.items():
        if key in ("name", "version") and not (text.isprintable() and len(text) <= _MAX_LINE):
            raise SpecError(f"[pack] {key} is not a line of at most {_MAX_LINE} characters.", "Write one.")
        if len(text) > _MAX_TEXT:
            raise SpecError(f"[pack] {key} has more than {_MAX_TEXT} characters.", "Write less.")
    if texts["name"].strip().casefold() == REFERENCE_SPEC:
        raise SpecError(
            (
                f"[pack] name is {texts['name']!r}, which is the name of the pack that comes with this "
                "package."
            ),
            "Give yours: --name site-1",
        )
    storage = pack.get("weights", STORAGES[0])
    if storage not in STORAGES:
        raise SpecError(f"[pack] weights is {storage!r}.", f"Write one of {', '.join(STORAGES)}.")
    clinical_use = pack.get("clinical_use", False)
    if not isinstance(clinical_use, bool):
        raise SpecError(f"[pack] clinical_use is {clinical_use!r}.", "Write true or false.")
    card = _jsonable(_table(content, "card", "the spec"), "[card]") if "card" in content else {}
    card = {**dict.fromkeys(_CARD, UNKNOWN), **card}
    models = {role: _model(role, _table(content, role, "the spec")) for role in MODEL_ROLES}
    return ExportSpec(
        **texts, half_weights=storage == STORAGES[0], card=card, models=models, clinical_use=clinical_use
    )


def _read(path: Path) -> dict[str, Any]:
    place = reference_spec() if str(path) == REFERENCE_SPEC and not path.exists() else path
    try:
        if place.stat().st_size > _MAX_BYTES:
            raise SpecError(f"{path} has more than {_MAX_BYTES} bytes.", "Give a spec in TOML.")
        content = dict(tomllib.loads(place.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(
            f"The spec {path} cannot be read ({error.strerror}).", f"Give a TOML file, or `{REFERENCE_SPEC}`."
        ) from error
    # Integers with very many digits raise ValueError too.
    except (ValueError, RecursionError) as error:
        raise SpecError(f"The spec {path} is not TOML ({error}).", f"See {reference_spec()}.") from error
    bounded: dict[str, Any] = _bounded(content, f"The spec {path}")
    return bounded


def _put(content: dict[str, Any], setting: str) -> None:
    # Bytes of the command line that are not UTF-8 become surrogates, which JSON cannot store.
    if any("\ud800" <= letter <= "\udfff" for letter in setting):
        raise SpecError(
            f"The setting {setting!r} is not UTF-8 text.", "Write it so, or into the spec's file."
        )
    key, found, value = setting.partition("=")
    *tables, last = key.strip().split(".")
    if not found or not last or not all(tables):
        raise SpecError(f"The setting {setting!r} is not KEY=VALUE, such as grader.input.size=[456, 456].")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise SpecError(f"The setting {setting!r} goes into {table}, which is not a table of the spec.")
    try:
        found = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        found = value.strip()
    content[last] = _bounded(found, f"The setting {key.strip()}")


def _model(role: str, content: Mapping[str, Any]) -> ModelDeclaration:
    _known(f"[{role}]", content, ("input", "output", "checkpoint", "metrics"))
    output, order, activation = _output(role, _table(content, "output", f"[{role}]"))
    place = f"[{role}.checkpoint]"
    choice = _table(content, "checkpoint", f"[{role}]") if "checkpoint" in content else {}
    _known(place, choice, _CHECKPOINT)
    metrics = _table(content, "metrics", f"[{role}]") if "metrics" in content else {}
    wrong = [name for name, value in metrics.items() if not (_is_number(value) and math.isfinite(value))]
    if wrong:
        raise SpecError(f"[{role}.metrics] {', '.join(wrong)}: write numbers.")
    return ModelDeclaration(
        input=_input(role, _table(content, "input", f"[{role}]")),
        output=output,
        order=order,
        activation=activation,
        metrics={name: float(value) for name, value in metrics.items()},
        checkpoint=CheckpointDeclaration(
            network=_text(choice, "network", place) if "network" in choice else None,
            weights=_text(choice, "weights", place) if "weights" in choice else None,
            image_size=_size(choice, "image_size", place) if "image_size" in choice else None,
            temperature=_positive(choice, "temperature", place) if "temperature" in choice else None,
        ),
        role=role,
    )


def _input(role: str, content: Mapping[str, Any]) -> InputSpec:
    place = f"[{role}.input]"
    _known(place, content, (*_INPUT, "spacing_mm", "roi_mm"))
    height, width = _size(content, "size", place)
    low, high = _numbers(content, "window_percentiles", place, 2)
    across, down = _numbers(content, "centre_offset_mm", place, 2)
    channels = _whole(content, "channels", place)
    try:
        return InputSpec(
            height=height,
            width=width,
            spacing_mm=_spacing(content, place, (height, width)),
            channels=channels,
            channel_source=_text(content, "channel_source", place),
            plane=MODEL_ROLES[role].plane,
            window_percentiles=(low, high),
            mean=_numbers(content, "mean", place, channels),
            std=_numbers(content, "std", place, channels),
            centre_offset_mm=(across, down),
        )
    except PackError as error:
        raise SpecError(f"{place} {error.reason}") from error


def _spacing(content: Mapping[str, Any], place: str, size: tuple[int, int]) -> float:
    """Pixel spacing in mm, from spacing_mm or from the extent of the region."""
    if ("spacing_mm" in content) == ("roi_mm" in content):
        raise SpecError(f"{place} needs either spacing_mm or roi_mm, and not both.")
    if "spacing_mm" in content:
        return _number(content, "spacing_mm", place)
    roi = _numbers(content, "roi_mm", place, 2)
    down, across = roi[0] / max(size[0], 1), roi[1] / max(size[1], 1)
    if abs(down - across) > 1e-6 * abs(down):
        raise SpecError(
            (
                f"{place} roi_mm {list(roi)} and size {list(size)} give {down:g} mm a pixel down and "
                f"{across:g} across."
            ),
            "Pixels have to be square: change one of them.",
        )
    return down


def _output(role: str, content: Mapping[str, Any]) -> tuple[OutputSpec, tuple[int, ...], str | None]:
    place, wanted = f"[{role}.output]", MODEL_ROLES[role]
    known = ["kind", "names", "stride", "minimum_confidence", "activation"]
    if OTHER_CLASS in wanted.optional_names:
        known.append("maximum_other")
    if role == "levels":
        known.append("minimum_mean_confidence")
    _known(place, content, known)
    kind = _text(content, "kind", place)
    if kind == "coordinates":
        raise SpecError(
            (
                f"{place} kind is coordinates, which the run-time cannot use yet: a point's confidence is "
                "the height of its heatmap's peak."
            ),
            "Export the network with its heatmaps as output.",
        )
    if kind != wanted.kind:
        raise SpecError(f"{place} kind is {kind!r}, and has to be {wanted.kind!r}.")
    names = content.get("names")
    told = list(map(str, names)) if isinstance(names, list) else []
    taken = next((each for each in wanted.accepted_names if sorted(each) == sorted(told)), None)
    if taken is None:
        raise SpecError(
            f"{place} names {names!r} are not those of {role}.",
            f"Write {wanted.accepted_names_text}, in the order of the network's output.",
        )
    order = tuple(told.index(name) for name in taken)
    stride = _whole(content, "stride", place) if kind == "heatmaps" or "stride" in content else 1
    activation = _text(content, "activation", place) if "activation" in content else None
    if activation is not None and activation not in ACTIVATIONS:
        raise SpecError(f"{place} activation is {activation!r}.", f"Write one of {', '.join(ACTIVATIONS)}.")
    confidence = _number(content, "minimum_confidence", place)
    limit, mean = (
        _number(content, name, place) if name in content else None
        for name in ("maximum_other", "minimum_mean_confidence")
    )
    try:
        return OutputSpec(kind, taken, stride, confidence, limit, mean), order, activation
    except PackError as error:
        raise SpecError(f"{place} {error.reason}") from error


def _known(place: str, content: Mapping[str, Any], names: Sequence[str]) -> None:
    unknown = [name for name in content if name not in names]
    if unknown:
        raise SpecError(f"{place} has unknown entries: {', '.join(unknown)}.", f"Known: {', '.join(names)}.")


def _given(content: Mapping[str, Any], key: str, place: str) -> Any:
    if key not in content:
        table = place.strip("[]") if place.startswith("[") else ""
        raise SpecError(
            f"{place} lacks {key}.",
            f"{reference_spec()} shows every entry. Write it into the spec, or give "
            f"--set {table}{('.' if table else '')}{key}=VALUE",
        )
    return content[key]


def _table(content: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    value = _given(content, key, place)
    if not isinstance(value, dict):
        raise SpecError(f"{place} {key} is {value!r}, and has to be a table.")
    return value


def _text(content: Mapping[str, Any], key: str, place: str) -> str:
    value = _given(content, key, place)
    if not isinstance(value, str) or not value.strip():
        raise SpecError(f"{place} {key} is {value!r}, and has to be a text.")
    return value


def _whole(content: Mapping[str, Any], key: str, place: str) -> int:
    value = _given(content, key, place)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_WHOLE:
        raise SpecError(f"{place} {key} is {value!r}, and has to be a whole number of at least 1.")
    return value


def _bounded(value: Any, place: str, depth: int = _MAX_DEPTH) -> Any:
    """Check that a TOML value is within TOML's range of integers and pack.json's maximum nesting."""
    if depth == 0:
        raise SpecError(f"{place} nests tables and lists more than {_MAX_DEPTH} deep.", "Write it flat.")
    if isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise SpecError(f"{place} has an integer of more than 64 bits.", "Write a smaller one.")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _bounded(item, place, depth - 1)
    return value


def _jsonable(value: Any, place: str) -> Any:
    """TOML value as JSON data; dates and times become their TOML text."""
    if isinstance(value, dict):
        return {key: _jsonable(item, f"{place} {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item, place) for item in value]
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{place} is {value}, which pack.json cannot hold.", "Write a number or a text.")
    return value


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _MAX_WHOLE
    return isinstance(value, float)


def _numbers(content: Mapping[str, Any], key: str, place: str, count: int) -> tuple[float, ...]:
    value = _given(content, key, place)
    if not isinstance(value, list) or len(value) != count or not all(map(_is_number, value)):
        raise SpecError(f"{place} {key} is {value!r}, and has to be {count} number{'s' * (count > 1)}.")
    return tuple(float(item) for item in value)


def _number(content: Mapping[str, Any], key: str, place: str) -> float:
    return _numbers({key: [_given(content, key, place)]}, key, place, 1)[0]


def _positive(content: Mapping[str, Any], key: str, place: str) -> float:
    value = _number(content, key, place)
    if not 0.0 < value < math.inf:
        raise SpecError(f"{place} {key} is {value}, and has to be a number above 0.")
    return value


def _size(content: Mapping[str, Any], key: str, place: str) -> tuple[int, int]:
    value = _given(content, key, place)
    pair = isinstance(value, list) and len(value) == 2
    if not pair or not all(type(item) is int and 0 <= item <= _MAX_WHOLE for item in value):
        raise SpecError(f"{place} {key} is {value!r}, and has to be [height, width] in pixels.")
    return value[0], value[1]
