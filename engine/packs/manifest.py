"""The declared schema of pack.json, and what its entries become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from stenosis_trt.engine.packs.models import InputSpec, ModelSpec, ModelVariant, OutputSpec
from stenosis_trt.engine.support.json_schema import (
    STRICT_CONFIG,
    JsonObject,
    LongText,
    NumbersByName,
    Sha256,
    SingleLine,
    StrictModel,
    read_json,
)

_OPEN = ConfigDict(**{**STRICT_CONFIG, "extra": "ignore"})

_Pixels = Annotated[int, Field(ge=0, le=1 << 16)]
_Channels = Annotated[int, Field(ge=0, le=1 << 10)]
_PerChannel = Annotated[tuple[float, ...], Field(max_length=1 << 10)]
_Names = Annotated[tuple[SingleLine, ...], Field(max_length=1 << 10)]
_File = Annotated[SingleLine, Field(max_length=255)]


class InputEntry(StrictModel):
    """What a model's input is cut from; see `InputSpec`."""

    height: _Pixels
    width: _Pixels
    spacing_mm: float
    channels: _Channels
    channel_source: SingleLine
    plane: SingleLine
    window_percentiles: tuple[float, float]
    mean: _PerChannel
    std: _PerChannel
    centre_offset_mm: tuple[float, float]


class OutputEntry(StrictModel):
    """What comes out of a model; see `OutputSpec`."""

    kind: SingleLine
    names: _Names
    stride: _Pixels
    minimum_confidence: float
    maximum_other: float | None = None


class VariantEntry(StrictModel):
    """A model in another precision; see `Variant`."""

    file: _File
    sha256: Sha256
    metrics: NumbersByName = Field(default_factory=dict)
    gate: JsonObject


class ModelEntry(StrictModel):
    """One model; see `ModelSpec`."""

    file: _File
    sha256: Sha256
    precision: SingleLine
    input: InputEntry
    output: OutputEntry
    metrics: NumbersByName = Field(default_factory=dict)
    variants: Annotated[dict[SingleLine, VariantEntry], Field(max_length=16)] = Field(default_factory=dict)

    def to_spec(self, name: str) -> ModelSpec:
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
            variants={key: ModelVariant(**dict(entry)) for key, entry in self.variants.items()},
        )


class ModelEntries(StrictModel):
    """The models that the pipe uses; others may stand beside them."""

    model_config = _OPEN

    levels: ModelEntry
    grader: ModelEntry
    cord: ModelEntry


class Manifest(StrictModel):
    """pack.json. What else stands beside these entries is for people, and nothing reads it."""

    model_config = _OPEN

    name: SingleLine
    version: SingleLine
    licence: LongText
    intended_use: LongText
    card: JsonObject
    models: ModelEntries
    refused: JsonObject = Field(default_factory=dict)
    quantised: JsonObject | None = None


class _Outline(StrictModel):
    """What has to be known of a pack before the rest of it is looked at."""

    model_config = _OPEN

    schema_: Annotated[int, Field(alias="schema")]
    models: dict[str, Any]


_MANIFEST, _OUTLINE = TypeAdapter(Manifest), TypeAdapter(_Outline)


def read_schema_and_models(text: bytes) -> tuple[int, Mapping[str, Any]]:
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
