"""The declared schema of pack.json, and what its entries become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from stenosis_trt.engine.packs.models import InputSpec, ModelSpec, OutputSpec, Variant
from stenosis_trt.engine.support.json_schema import (
    STRICT,
    Free,
    Line,
    Numbers,
    Sha256,
    Strict,
    Text,
    read_json,
)

_OPEN = ConfigDict(**{**STRICT, "extra": "ignore"})

_Pixels = Annotated[int, Field(ge=0, le=1 << 16)]
_Channels = Annotated[int, Field(ge=0, le=1 << 10)]
_PerChannel = Annotated[tuple[float, ...], Field(max_length=1 << 10)]
_Names = Annotated[tuple[Line, ...], Field(max_length=1 << 10)]
_File = Annotated[Line, Field(max_length=255)]


class InputEntry(Strict):
    """What a model's input is cut from; see `InputSpec`."""

    height: _Pixels
    width: _Pixels
    spacing_mm: float
    channels: _Channels
    channel_source: Line
    plane: Line
    window_percentiles: tuple[float, float]
    mean: _PerChannel
    std: _PerChannel
    centre_offset_mm: tuple[float, float]


class OutputEntry(Strict):
    """What comes out of a model; see `OutputSpec`."""

    kind: Line
    names: _Names
    stride: _Pixels
    minimum_confidence: float
    maximum_other: float | None = None


class VariantEntry(Strict):
    """A model in another precision; see `Variant`."""

    file: _File
    sha256: Sha256
    metrics: Numbers = Field(default_factory=dict)
    gate: Free


class ModelEntry(Strict):
    """One model; see `ModelSpec`."""

    file: _File
    sha256: Sha256
    precision: Line
    input: InputEntry
    output: OutputEntry
    metrics: Numbers = Field(default_factory=dict)
    variants: Annotated[dict[Line, VariantEntry], Field(max_length=16)] = Field(default_factory=dict)

    def specification(self, name: str) -> ModelSpec:
        """The entry as the model `name`.

        Raises:
            PackError: the pipe cannot use such a model.
        """
        return ModelSpec(
            name=name,
            file=self.file,
            sha256=self.sha256,
            precision=self.precision,
            input=InputSpec(**dict(self.input)),
            output=OutputSpec(**dict(self.output)),
            metrics=self.metrics,
            variants={key: Variant(**dict(entry)) for key, entry in self.variants.items()},
        )


class Models(Strict):
    """The models that the pipe uses; others may stand beside them."""

    model_config = _OPEN

    levels: ModelEntry
    grader: ModelEntry
    cord: ModelEntry


class Manifest(Strict):
    """pack.json. What else stands beside these entries is for people, and nothing reads it."""

    model_config = _OPEN

    name: Line
    version: Line
    licence: Text
    intended_use: Text
    card: Free
    models: Models
    refused: Free = Field(default_factory=dict)
    quantised: Free | None = None


class _Outline(Strict):
    """What has to be known of a pack before the rest of it is looked at."""

    model_config = _OPEN

    schema_: Annotated[int, Field(alias="schema")]
    models: dict[str, Any]


_MANIFEST, _OUTLINE = TypeAdapter(Manifest), TypeAdapter(_Outline)


def read_outline(text: bytes) -> tuple[int, Mapping[str, Any]]:
    """The schema that a manifest is of, and its models by name, unchecked.

    Raises:
        JsonError: it is no JSON, or has neither.
    """
    outline = read_json(_OUTLINE, text)
    return outline.schema_, outline.models


def read_manifest(text: bytes) -> Manifest:
    """The content of pack.json.

    Raises:
        JsonError: it is no JSON, or an entry is missing, of another type or not finite.
    """
    return read_json(_MANIFEST, text)
