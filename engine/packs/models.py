"""Specifications of the models of a pack: role, input, output and variants in other precisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.records import LANDMARKS, LEVELS

PLANES = ("sagittal", "axial")
CHANNEL_SOURCES = ("slice", "neighbours")
OUTPUT_KINDS = ("classes", "heatmaps")

OTHER_CLASS = "other"
"""Optional class of a grader for regions unlike its training data: a background class trained on outliers
(Hendrycks et al., ICLR 2019; Mohseni et al., AAAI 2020)."""

DEFAULT_MAXIMUM_OTHER = 0.5
"""Limit where a pack has the class and sets none: from 0.5 on it is likelier than all grades together."""


@dataclass(frozen=True)
class ModelRole:
    """What the pipeline requires of a model.

    Attributes:
        kind, plane, channel_sources: accepted values of `OutputSpec.kind`, `InputSpec.plane` and
            `InputSpec.channel_source`.
        names: names of the outputs. The pipeline uses outputs by their position.
        optional_names: names that may follow, all or none of them.
    """

    kind: str
    plane: str
    names: tuple[str, ...]
    channel_sources: tuple[str, ...]
    optional_names: tuple[str, ...] = ()

    @property
    def accepted_names(self) -> tuple[tuple[str, ...], ...]:
        """Accepted values of `OutputSpec.names`."""
        further = ((*self.names, *self.optional_names),) if self.optional_names else ()
        return (self.names, *further)

    @property
    def accepted_names_text(self) -> str:
        """`accepted_names` as text for messages."""
        return ", or ".join(", ".join(names) for names in self.accepted_names)


MODEL_ROLES: Mapping[str, ModelRole] = {
    "levels": ModelRole("heatmaps", "sagittal", LEVELS, ("slice",), LANDMARKS),
    "grader": ModelRole("classes", "sagittal", ("0", "1", "2", "3"), CHANNEL_SOURCES, (OTHER_CLASS,)),
    "cord": ModelRole("heatmaps", "axial", ("anterior", "posterior", "left", "right"), ("slice",)),
}
MODEL_NAMES = tuple(MODEL_ROLES)


def _require(reason: str, advice: str, *rules: tuple[bool, str]) -> None:
    """Raise PackError with the first of (holds, rule) that does not hold."""
    for holds, rule in rules:
        if not holds:
            raise PackError(f"{reason}: {rule}.", advice)


@dataclass(frozen=True)
class InputSpec:
    """How the input of a network is cut from slices, in training, calibration and on both devices.

    Attributes:
        height, width: pixels.
        spacing_mm: mm per pixel along both axes; the region measures size × spacing.
        channels: 1 or more.
        channel_source: "slice" (each channel the same slice) or "neighbours" (an odd number of slices
            around the level).
        plane: "sagittal" or "axial".
        window_percentiles: percentiles of the source pixels in the region that map to 0 and 1.
        mean, std: one value per channel; (value - mean) / std is applied after the window.
        centre_offset_mm: offset (x, y) of the region's centre from its point, along the axes of the input.

    Raises:
        PackError: a value is out of range; the reason has the rule.
    """

    height: int
    width: int
    spacing_mm: float
    channels: int
    channel_source: str
    plane: str
    window_percentiles: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    centre_offset_mm: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.window_percentiles
        numbers = (self.spacing_mm, *self.mean, *self.std, *self.centre_offset_mm)
        _require(
            "An input specification is not valid",
            "Correct it in pack.json.",
            (all(map(math.isfinite, numbers)), "every number must be finite"),
            (self.height > 0 and self.width > 0, "size must be positive"),
            (self.spacing_mm > 0, "spacing_mm must be positive"),
            (self.channels > 0, "channels must be positive"),
            (self.channel_source in CHANNEL_SOURCES, f"channel_source must be one of {CHANNEL_SOURCES}"),
            (self.channel_source != "neighbours" or self.channels % 2 == 1, "neighbours need odd channels"),
            (self.plane in PLANES, f"plane must be one of {PLANES}"),
            (0 <= low < high <= 100, "window_percentiles must rise within 0 to 100"),
            (len(self.mean) == len(self.std) == self.channels, "mean and std need one value a channel"),
            (all(value > 0 for value in self.std), "std must be positive"),
        )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class OutputSpec:
    """Meaning of the output of a network.

    Attributes:
        kind: "classes" (probabilities, (N, len(names))) or "heatmaps" ((N, len(names), H / stride,
            W / stride), values in [0, 1]).
        names: classes or points, in the order of the output.
        stride: input pixels per heatmap pixel; 1 for classes.
        minimum_confidence: heatmap peaks below it are discarded; grades below it get a warning.
        minimum_mean_confidence: levels model: with a lower mean confidence of the discs found, no neck was
            recognised. None for no such limit.
        maximum_other: no grade is given from this probability of `OTHER_CLASS` on. None without that class;
            with it, `DEFAULT_MAXIMUM_OTHER` by default.

    Raises:
        PackError: a value is out of range; the reason has the rule.
    """

    kind: str
    names: tuple[str, ...]
    stride: int
    minimum_confidence: float
    maximum_other: float | None = None
    minimum_mean_confidence: float | None = None

    def __post_init__(self) -> None:
        if self.maximum_other is None and OTHER_CLASS in self.names:
            object.__setattr__(self, "maximum_other", DEFAULT_MAXIMUM_OTHER)
        limit, mean = self.maximum_other, self.minimum_mean_confidence
        _require(
            "An output specification is not valid",
            "Correct it in pack.json.",
            (self.kind in OUTPUT_KINDS, f"kind must be one of {OUTPUT_KINDS}"),
            (len(self.names) > 0, "names must not be empty"),
            (self.stride >= 1, "stride must be at least 1"),
            (0 <= self.minimum_confidence <= 1, "minimum_confidence must lie in 0 to 1"),
            (mean is None or self.kind == "heatmaps", "minimum_mean_confidence needs heatmaps"),
            (mean is None or 0 <= mean <= 1, "minimum_mean_confidence must lie in 0 to 1"),
            (limit is None or OTHER_CLASS in self.names, f"maximum_other needs a class named {OTHER_CLASS}"),
            (limit is None or 0 < limit <= 1, "maximum_other must be above 0 and at most 1"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of pack.json. Limits that are None are left out, so that hashes of packs without
        them do not change."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class WeightsFile:
    """A file with the weights that a model and its variants share, and its SHA-256. See `shared_weights`."""

    file: str
    sha256: str


@dataclass(frozen=True)
class ModelVariant:
    """A model in another precision. `gate` is the record of the gate: studies, limits, figures, outcome.

    `sha256` is of the model with its weights in it, as `ModelSpec.sha256`.
    """

    file: str
    sha256: str
    metrics: Mapping[str, float]
    gate: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """True if the variant passed the gate: its results agree with those of the model in FP32."""
        return self.gate.get("passed") is True


@dataclass(frozen=True)
class ModelSpec:
    """A model of a pack.

    Attributes:
        name: its role, one of `MODEL_NAMES`.
        file: relative to the pack.
        sha256: of the model with its weights in it, which is what is opened: of the file itself, unless its
            weights lie in `weights`. It identifies the model.
        metrics: reported by the maker of the pack.
        variants: the same model in other precisions, by precision.
        weights: weights that the files of the model and of its variants refer to; None if each holds its own.
        variant_of: SHA-256 of the FP32 model that this is a variant of; "" for the FP32 model itself.

    Raises:
        PackError: the pipeline cannot use the model as `name`; see `MODEL_ROLES`.
    """

    name: str
    file: str
    sha256: str
    precision: str
    input: InputSpec
    output: OutputSpec
    metrics: Mapping[str, float] = field(default_factory=dict)
    variants: Mapping[str, ModelVariant] = field(default_factory=dict)
    weights: WeightsFile | None = None
    variant_of: str = ""

    @property
    def fp32_sha256(self) -> str:
        """SHA-256 of the model in FP32, whichever precision this is."""
        return self.variant_of or self.sha256

    def __post_init__(self) -> None:
        role, source, result = MODEL_ROLES[self.name], self.input, self.output
        stride = result.stride
        _require(
            f"The model {self.name} is not one that can be used",
            "Export it with such outputs and inputs, and say so in pack.json.",
            (result.kind == role.kind, f"its output's kind must be {role.kind}, not {result.kind}"),
            (source.plane == role.plane, f"its input's plane must be {role.plane}, not {source.plane}"),
            (
                result.names in role.accepted_names,
                f"its output's names must be {role.accepted_names_text}, in this order",
            ),
            (
                source.channel_source in role.channel_sources,
                f"its input's channel_source must be {' or '.join(role.channel_sources)}",
            ),
            (stride == 1 or result.kind == "heatmaps", "the stride of classes must be 1"),
            (source.height % stride == source.width % stride == 0, "its stride must divide its input's size"),
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input: (C, H, W)."""
        return self.input.channels, self.input.height, self.input.width

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one output: (classes,), or (points, H / stride, W / stride)."""
        count, stride = len(self.output.names), self.output.stride
        if self.output.kind == "classes":
            return (count,)
        return count, self.input.height // stride, self.input.width // stride
