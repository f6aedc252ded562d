"""What a pack says of its models: what each is for, what goes in and what comes out, and its variants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.records import LEVELS

PLANES = ("sagittal", "axial")
CHANNEL_SOURCES = ("slice", "neighbours")
OUTPUT_KINDS = ("classes", "heatmaps")

OTHER_CLASS = "other"
"""The class of a grader whose probability says that a region is unlike all that it was trained to grade: a
background class, learnt from outliers (Hendrycks et al., ICLR 2019; Mohseni et al., AAAI 2020)."""

DEFAULT_MAXIMUM_OTHER = 0.5
"""The limit of a pack that has the class and says nothing: from there on it is likelier than all grades
together."""


@dataclass(frozen=True)
class ModelRole:
    """What the pipe takes a model for. Its outputs are used by their place, so their names must be these.

    `channel_sources` are those that the pipe can cut for it; `optional_names` may follow, all or none.
    """

    kind: str
    plane: str
    names: tuple[str, ...]
    channel_sources: tuple[str, ...]
    optional_names: tuple[str, ...] = ()

    @property
    def accepted_names(self) -> tuple[tuple[str, ...], ...]:
        """The names that a model's outputs may have, in their order."""
        further = ((*self.names, *self.optional_names),) if self.optional_names else ()
        return (self.names, *further)

    @property
    def accepted_names_text(self) -> str:
        """`accepted_names` for a person."""
        return ", or ".join(", ".join(names) for names in self.accepted_names)


MODEL_ROLES: Mapping[str, ModelRole] = {
    "levels": ModelRole("heatmaps", "sagittal", LEVELS, ("slice",)),
    "grader": ModelRole("classes", "sagittal", ("0", "1", "2", "3"), CHANNEL_SOURCES, (OTHER_CLASS,)),
    "cord": ModelRole("heatmaps", "axial", ("anterior", "posterior", "left", "right"), ("slice",)),
}
MODEL_NAMES = tuple(MODEL_ROLES)


@dataclass(frozen=True)
class InputSpec:
    """What a network's input is cut from and how. Shared by training, calibration, CPU and GPU.

    Attributes:
        height, width: pixels.
        spacing_mm: mm a pixel, the same along both axes; the region is size × spacing.
        channels: 1 or more.
        channel_source: "slice" (each channel the same slice) or "neighbours" (an odd number of slices
            around the level).
        plane: "sagittal" or "axial".
        window_percentiles: of the source pixels in the region, mapped to 0 and 1.
        mean, std: one a channel, applied after the window.
        centre_offset_mm: from the point that a region belongs to, to the region's centre, along the
            output's x and y.
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
        checks = (
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
        for holds, rule in checks:
            if not holds:
                raise PackError(f"An input specification is not valid: {rule}.", "Correct it in pack.json.")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class OutputSpec:
    """What comes out of a network.

    Attributes:
        kind: "classes" (probabilities, (N, len(names))) or "heatmaps" ((N, len(names), H / stride,
            W / stride), values in [0, 1]).
        names: classes or points, in the order of the output.
        stride: input pixels for one heatmap pixel; 1 for classes.
        minimum_confidence: a peak below it is no point; a probability below it earns a warning.
        maximum_other: of the class `OTHER_CLASS`: from this probability on there is no grade.
            `DEFAULT_MAXIMUM_OTHER`
            where it is not given; None where there is no such class.
    """

    kind: str
    names: tuple[str, ...]
    stride: int
    minimum_confidence: float
    maximum_other: float | None = None

    def __post_init__(self) -> None:
        if self.maximum_other is None and OTHER_CLASS in self.names:
            object.__setattr__(self, "maximum_other", DEFAULT_MAXIMUM_OTHER)
        checks = (
            (self.kind in OUTPUT_KINDS, f"kind must be one of {OUTPUT_KINDS}"),
            (len(self.names) > 0, "names must not be empty"),
            (self.stride >= 1, "stride must be at least 1"),
            (0 <= self.minimum_confidence <= 1, "minimum_confidence must lie in 0 to 1"),
            (
                self.maximum_other is None or OTHER_CLASS in self.names,
                f"maximum_other needs a class named {OTHER_CLASS}",
            ),
            (
                self.maximum_other is None or 0 < self.maximum_other <= 1,
                "maximum_other must be above 0 and at most 1",
            ),
        )
        for holds, rule in checks:
            if not holds:
                raise PackError(f"An output specification is not valid: {rule}.", "Correct it in pack.json.")

    def to_dict(self) -> dict[str, Any]:
        """What pack.json keeps of it. Nothing is said of a class that there is not: hashes of packs without
        it stay what they were."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ModelVariant:
    """A model in another precision. `gate` is what it was measured against and the outcome, as data."""

    file: str
    sha256: str
    metrics: Mapping[str, float]
    gate: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the gate found that it grades as the model itself does."""
        return self.gate.get("passed") is True


@dataclass(frozen=True)
class ModelSpec:
    """One model of a pack. `file` is relative to the pack; `metrics` are those of the pack's maker.

    `variants` holds the same model in other precisions, by their names.

    Raises:
        PackError: the pipe cannot use such a model as `name`; see `MODEL_ROLES`.
    """

    name: str
    file: str
    sha256: str
    precision: str
    input: InputSpec
    output: OutputSpec
    metrics: Mapping[str, float] = field(default_factory=dict)
    variants: Mapping[str, ModelVariant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        role, source, result = MODEL_ROLES[self.name], self.input, self.output
        stride = result.stride
        checks = (
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
        for holds, rule in checks:
            if not holds:
                raise PackError(
                    f"The model {self.name} is not one that can be used: {rule}.",
                    "Export it with such outputs and inputs, and say so in pack.json.",
                )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one input."""
        return self.input.channels, self.input.height, self.input.width

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one output: (classes,), or (points, H / stride, W / stride)."""
        count, stride = len(self.output.names), self.output.stride
        if self.output.kind == "classes":
            return (count,)
        return count, self.input.height // stride, self.input.width // stride
