"""The reference pack's numbers: what each network sees, how long it learns, from how many studies."""

from __future__ import annotations

from dataclasses import dataclass

from stenosis_trt.engine.pack import InputSpec
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.export.training.loops import Schedule

LEVELS_INPUT = InputSpec(
    height=256,
    width=256,
    spacing_mm=1.0,
    channels=1,
    channel_source="slice",
    plane="sagittal",
    window_percentiles=(1.0, 99.5),
    mean=(0.5,),
    std=(0.25,),
    centre_offset_mm=(0.0, 0.0),
)
CORD_INPUT = InputSpec(
    height=128,
    width=128,
    spacing_mm=0.5,
    channels=1,
    channel_source="slice",
    plane="axial",
    window_percentiles=(1.0, 99.5),
    mean=(0.5,),
    std=(0.25,),
    centre_offset_mm=(0.0, 0.0),
)
# 48 mm hold two neighbouring discs; 0.375 mm is finer than any sagittal protocol's pixels.
GRADER_INPUT = InputSpec(
    height=128,
    width=128,
    spacing_mm=0.375,
    channels=3,
    channel_source="neighbours",
    plane="sagittal",
    window_percentiles=(1.0, 99.5),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    centre_offset_mm=(6.0, 0.0),
)
LEVELS_STRIDE = 4
CORD_STRIDE = 2
LEVEL_NAMES = LEVELS
CORD_NAMES = ("anterior", "posterior", "left", "right")
GRADE_NAMES = ("0", "1", "2", "3")

MINIMUM_PEAK = 0.3
"""A heatmap's peak below this is no point; peaks of phantoms lie near 0.9, of noise near 0."""

MINIMUM_PROBABILITY = 0.5
"""A grade of lower probability is flagged."""

EXPORT_CHECK_SEED = 3
TRAINING_SEED = 1
VALIDATION_SEED = 2
"""Seeds of the rendered sets. Phantoms for tests and benchmarks use other seeds."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out.

    The two keypoint networks learn from the first `keypoint_studies` rendered studies, the grader, which
    gets only six regions from each, from the first `grader_studies`.
    """

    keypoint_studies: int
    grader_studies: int
    validation_studies: int
    levels: Schedule
    cord: Schedule
    grader: Schedule


REFERENCE = Recipe(
    keypoint_studies=700,
    grader_studies=1000,
    validation_studies=60,
    levels=Schedule(steps=1600, batch=12, learning_rate=2e-3, warm_up=60),
    cord=Schedule(steps=1600, batch=24, learning_rate=2e-3, warm_up=60),
    grader=Schedule(
        steps=1000,
        batch=24,
        learning_rate=1e-3,
        weight_decay=1e-2,
        warm_up=60,
        average_decay=0.0,
        validate_every=125,
    ),
)
"""The reference pack's recipe: about an hour on two cores."""

SHORT = Recipe(
    keypoint_studies=3,
    grader_studies=4,
    validation_studies=2,
    levels=Schedule(steps=4, batch=2, learning_rate=1e-3, warm_up=2, checkpoint_every=2, validate_every=4),
    cord=Schedule(steps=4, batch=2, learning_rate=1e-3, warm_up=2, checkpoint_every=2, validate_every=4),
    grader=Schedule(steps=4, batch=2, learning_rate=1e-3, warm_up=2, checkpoint_every=2, validate_every=4),
)
"""The same path in a minute, to test it; its networks have learnt nothing."""
