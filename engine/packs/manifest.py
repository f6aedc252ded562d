"""The schema of pack.json, and the conversion of its entries to specifications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from stenosis_trt.engine.packs.models import InputSpec, ModelSpec, ModelVariant, OutputSpec, WeightsFile
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
    """Input of a model; see `InputSpec`."""

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
    """Output of a model; see `OutputSpec`."""

    kind: SingleLine
    names: _Names
    stride: _Pixels
    minimum_confidence: float
    maximum_other: float | None = None
    minimum_mean_confidence: float | None = None


class WeightsEntry(StrictModel):
    """Weights that several files of a model share; see `shared_weights`. Needs layout 2.

    Attributes:
        file: relative to the pack, in the folder of the model's files.
        sha256: SHA-256 of the file.
    """

    file: _File
    sha256: Sha256


class VariantEntry(StrictModel):
    """A model in another precision; see `ModelVariant`.

    Attributes:
        file: relative to the pack.
        sha256: SHA-256 of the model with its weights in it.
        metrics: of the conversion.
        gate: record of the gate: studies, limits, figures, outcome.
    """

    file: _File
    sha256: Sha256
    metrics: NumbersByName = Field(default_factory=dict)
    gate: JsonObject


class ModelEntry(StrictModel):
    """A model; see `ModelSpec`.

    Attributes:
        file: relative to the pack.
        sha256: SHA-256 of the model with its weights in it: of the file, unless weights are shared.
        precision: of the file, "fp32".
        input: how the input is cut from slices.
        output: meaning of the output.
        metrics: reported by the maker of the pack.
        variants: the same model in other precisions, by precision.
        weights: weights that the files of the model and its variants refer to.
    """

    file: _File
    sha256: Sha256
    precision: SingleLine
    input: InputEntry
    output: OutputEntry
    metrics: NumbersByName = Field(default_factory=dict)
    variants: Annotated[dict[SingleLine, VariantEntry], Field(max_length=16)] = Field(default_factory=dict)
    weights: WeightsEntry | None = None

    def to_spec(self, name: str) -> ModelSpec:
        """Convert the entry to the specification of the model `name`.

        Raises:
            PackError: the pipeline cannot use the model; see `ModelSpec`.
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
            weights=None if self.weights is None else WeightsFile(**dict(self.weights)),
        )


class ModelEntries(StrictModel):
    """The models that the pipeline uses. A pack may contain others.

    Attributes:
        levels: finds the disc levels on sagittal slices.
        grader: grades a level.
        cord: finds the points of the cord on axial slices.
    """

    model_config = _OPEN

    levels: ModelEntry
    grader: ModelEntry
    cord: ModelEntry


class Manifest(StrictModel):
    """Content of pack.json. Other entries are allowed, and ignored.

    Attributes:
        name, version: of the pack.
        licence: licence of the models.
        intended_use: what the pack is for.
        card: model card: training data, figures, limits; not interpreted.
        models: the models, by their role.
        clinical_use: the pack declares that it is for clinical use. Otherwise every report says that it is
            not.
        refused: variants that failed the gate, with its record.
        quantised: how the variants were made.
    """

    model_config = _OPEN

    name: SingleLine
    version: SingleLine
    licence: LongText
    intended_use: LongText
    card: JsonObject
    models: ModelEntries
    clinical_use: bool = False
    refused: JsonObject = Field(default_factory=dict)
    quantised: JsonObject | None = None


class _Outline(StrictModel):
    """The part of pack.json that is checked first, for messages that name the schema or a missing model."""

    model_config = _OPEN

    schema_: Annotated[int, Field(alias="schema")]
    models: dict[str, Any]


_MANIFEST, _OUTLINE = TypeAdapter(Manifest), TypeAdapter(_Outline)


def read_schema_and_models(text: bytes) -> tuple[int, Mapping[str, Any]]:
    """Return the schema version of a manifest, and its models by name, which are not validated.

    Raises:
        JsonError: the text is not JSON, or lacks one of them.
    """
    outline = read_json(_OUTLINE, text)
    return outline.schema_, outline.models


def read_manifest(text: bytes) -> Manifest:
    """Parse and validate the content of pack.json.

    Raises:
        JsonError: the text is not JSON, or an entry is missing, of a wrong type or not finite.
    """
    return read_json(_MANIFEST, text)
