"""Training tasks of the three networks: samples, losses and validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from stenosis_trt.bench.statistics.confusion import GRADE_COUNT
from stenosis_trt.engine.packs.models import InputSpec, OutputSpec
from stenosis_trt.export.models.efficientnet import EfficientNetB5
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.training.loops import SampleSource, TrainingSchedule, TrainingTask
from stenosis_trt.export.training.recipe import (
    CORD_INPUT,
    CORD_NAMES,
    CORD_STRIDE,
    GRADE_NAMES,
    GRADER_INPUT,
    LEVEL_NAMES,
    LEVELS_INPUT,
    LEVELS_STRIDE,
    MAXIMUM_OTHER,
    MINIMUM_MEAN_CONFIDENCE,
    MINIMUM_PEAK,
    MINIMUM_PROBABILITY,
)
from stenosis_trt.export.training.samples import CordSamples, GraderSamples, LevelSamples, StudyStore
from stenosis_trt.export.training.validation import GraderValidation, KeypointValidation

_SHORT_RUN_MOMENTUM = 0.05
_POINT_WEIGHT = 30.0
"""Additional weight of pixels at a heatmap's peak, because points cover little of the image."""

NETWORKS = ("levels", "cord", "grader")
_SELECTION_METRICS: dict[str, str | None] = {"levels": "p95_mm", "cord": "ratio_error", "grader": None}
"""Figure by which the best network of a run is chosen; the lowest is the best. The last grader is taken: few
of the 258 validation levels decide about its kappa, and its rate has fallen to zero by then."""
SPECIFICATIONS: dict[str, tuple[InputSpec, OutputSpec]] = {
    "levels": (
        LEVELS_INPUT,
        OutputSpec(
            "heatmaps",
            LEVEL_NAMES,
            LEVELS_STRIDE,
            MINIMUM_PEAK,
            minimum_mean_confidence=MINIMUM_MEAN_CONFIDENCE,
        ),
    ),
    "cord": (CORD_INPUT, OutputSpec("heatmaps", CORD_NAMES, CORD_STRIDE, MINIMUM_PEAK)),
    "grader": (GRADER_INPUT, OutputSpec("classes", GRADE_NAMES, 1, MINIMUM_PROBABILITY, MAXIMUM_OTHER)),
}


def heatmap_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy with soft targets, weighted towards the points."""
    weight = 1.0 + _POINT_WEIGHT * target
    return nn.functional.binary_cross_entropy_with_logits(logits, target, weight=weight)


def grade_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus the squared error of the expected grade, so that far misses cost more.

    The class "other" has no rank and only counts in the cross entropy.
    """
    grades = torch.arange(GRADE_COUNT, device=logits.device, dtype=logits.dtype)
    expected = (logits[:, :GRADE_COUNT].softmax(dim=1) * grades).sum(dim=1)
    graded = (target < GRADE_COUNT).to(logits.dtype)
    distance = (graded * (expected - target.to(logits.dtype)) ** 2).sum() / graded.sum().clamp(min=1.0)
    return nn.functional.cross_entropy(logits, target, label_smoothing=0.03) + 0.25 * distance


def make_network(name: str) -> nn.Module:
    """Network by name, with initial weights."""
    if name == "grader":
        network = EfficientNetB5(len(GRADE_NAMES), dropout=0.2, stochastic_depth=0.05)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # A momentum of 0.01 is too slow for a thousand steps.
                module.momentum = _SHORT_RUN_MOMENTUM
        return network
    source, result = SPECIFICATIONS[name]
    return KeypointNet(source.channels, len(result.names), result.stride)


def make_source(name: str, store: StudyStore, source: InputSpec, stride: int) -> SampleSource:
    """Samples for a network by name, for an input specification and a stride of the heatmaps."""
    if name == "grader":
        return GraderSamples(store, source)
    return (LevelSamples if name == "levels" else CordSamples)(store, source, stride)


def make_validation(
    name: str, store: StudyStore, source: InputSpec, stride: int
) -> Callable[[nn.Module], dict[str, float]]:
    """Validation of a network by name; arguments as in `make_source`."""
    if name == "grader":
        return GraderValidation(store, source)
    return KeypointValidation(store, source, stride)


@dataclass(frozen=True)
class TrainingOptions:
    """Schedule, initial weights and arithmetic of one network's training.

    `bfloat16` only affects keypoint networks: EfficientNet's depthwise convolutions are slower with it.
    """

    schedule: TrainingSchedule
    initial_weights: Path | None = None
    quantise_from_step: int | None = None
    bfloat16: bool = False


def make_task(
    name: str, course: TrainingOptions, training: StudyStore, validation: StudyStore
) -> TrainingTask:
    """Training task of a network by name."""
    source, result = SPECIFICATIONS[name]
    return TrainingTask(
        name=name,
        network=make_network(name),
        source=make_source(name, training, source, result.stride),
        loss=grade_loss if name == "grader" else heatmap_loss,
        validate=make_validation(name, validation, source, result.stride),
        schedule=course.schedule,
        selection_metric=_SELECTION_METRICS[name],
        higher_is_better=False,
        initial_weights=course.initial_weights,
        quantise_from_step=course.quantise_from_step,
        bfloat16=course.bfloat16 and name != "grader",
    )
