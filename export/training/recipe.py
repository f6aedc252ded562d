"""Parameters of the reference pack: network inputs, schedules and numbers of studies."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.records import LANDMARKS, LEVELS
from stenosis_trt.export.training.loops import TrainingSchedule

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
CORD_INPUT = replace(LEVELS_INPUT, height=128, width=128, spacing_mm=0.5, plane="axial")
# 48 mm contain two neighbouring discs; 0.375 mm is finer than the pixels of sagittal protocols.
GRADER_INPUT = replace(
    LEVELS_INPUT,
    height=128,
    width=128,
    spacing_mm=0.375,
    channels=3,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    centre_offset_mm=(6.0, 0.0),
)
LEVELS_STRIDE = 4
CORD_STRIDE = 2
LEVEL_NAMES = (*LEVELS, *LANDMARKS)
CORD_NAMES = ("anterior", "posterior", "left", "right")
GRADE_NAMES = ("0", "1", "2", "3", "other")

MINIMUM_PEAK = 0.3
"""Peaks below this are no points; phantoms have peaks near 0.9, noise near 0."""

MINIMUM_MEAN_CONFIDENCE = 0.6
"""Discs with a lower mean are no neck: those of lumbar spines have 0.5 at most, of necks 0.65 or more."""

MINIMUM_PROBABILITY = 0.5
"""Grades with lower probability are flagged."""

MAXIMUM_OTHER = 0.2
"""From this probability of "other" on there is no grade. Levels of ordinary studies have 0.2 at most, of a
subject left out as of phantoms; half of the levels with a void of 5 mm about their metal have more."""

EXPORT_CHECK_SEED = 3
TRAINING_SEED = 1
VALIDATION_SEED = 2
"""Seeds of the rendered sets; tests and benchmarks use others."""


HELD_OUT_SEED = 4
"""Seed of the studies on which folds are evaluated."""


@dataclass(frozen=True)
class TrainingStage:
    """One stage of training. Each network starts from the weights of the stage before.

    Attributes:
        phantoms: number of phantoms. Keypoint networks use the first `keypoint_phantoms`; the grader, which
            gets only six regions from each, uses all.
        anatomies: studies made from each subject's volume; half as many from the template.
        varied: studies have drawn conditions (`bench.phantom.conditions`): positions, scans and findings.
    """

    phantoms: int
    keypoint_phantoms: int
    anatomies: int
    levels: TrainingSchedule
    cord: TrainingSchedule
    grader: TrainingSchedule
    varied: bool = False

    def schedule(self, network: str) -> TrainingSchedule:
        """Schedule of a network by name."""
        return {"levels": self.levels, "cord": self.cord, "grader": self.grader}[network]


@dataclass(frozen=True)
class Recipe:
    """All parameters that determine the result.

    Attributes:
        subjects: volumes of single persons; each is left out once.
        template: volume averaged over many persons, used for training only; "" for none.
        phantoms_only: the first stage, common to all folds.
        varied_phantoms: the second stage, common to all folds.
        mixed: the third stage, with studies made from the subjects.
        grader_again: a second run of the grader in the third stage, begun with the weights of the first. The
            grader has the mean weights of both.
        validation_phantoms, validation_anatomies: validation studies; the latter for each subject.
        held_out: studies made from the left-out subject, on which the fold's pack is evaluated.
    """

    subjects: tuple[str, ...]
    template: str
    phantoms_only: TrainingStage
    varied_phantoms: TrainingStage
    mixed: TrainingStage
    grader_again: TrainingSchedule
    validation_phantoms: int
    validation_anatomies: int
    held_out: int


REFERENCE_RECIPE = Recipe(
    subjects=("errsm_11", "errsm_18", "errsm_20", "errsm_30"),
    template="PAM50_small",
    phantoms_only=TrainingStage(
        phantoms=1000,
        keypoint_phantoms=700,
        anatomies=0,
        levels=TrainingSchedule(steps=1600, batch=12, learning_rate=2e-3, warm_up=60),
        cord=TrainingSchedule(steps=1600, batch=24, learning_rate=2e-3, warm_up=60),
        grader=TrainingSchedule(
            steps=1000,
            batch=24,
            learning_rate=1e-3,
            weight_decay=1e-2,
            warm_up=60,
            average_decay=0.0,
            validate_every=125,
        ),
    ),
    varied_phantoms=TrainingStage(
        phantoms=400,
        keypoint_phantoms=400,
        anatomies=0,
        levels=TrainingSchedule(
            steps=700,
            batch=12,
            learning_rate=1.5e-3,
            warm_up=40,
            average_decay=0.99,
            checkpoint_every=30,
            validate_every=100,
        ),
        cord=TrainingSchedule(
            steps=600,
            batch=24,
            learning_rate=1.5e-3,
            warm_up=40,
            average_decay=0.99,
            checkpoint_every=50,
            validate_every=100,
        ),
        grader=TrainingSchedule(
            steps=300,
            batch=24,
            learning_rate=7e-4,
            weight_decay=1e-2,
            warm_up=20,
            average_decay=0.0,
            checkpoint_every=25,
            validate_every=75,
        ),
        varied=True,
    ),
    mixed=TrainingStage(
        phantoms=200,
        keypoint_phantoms=120,
        anatomies=90,
        levels=TrainingSchedule(
            steps=450,
            batch=12,
            learning_rate=1.0e-3,
            warm_up=20,
            average_decay=0.99,
            checkpoint_every=30,
            validate_every=75,
            patience=5,
        ),
        cord=TrainingSchedule(
            steps=800,
            batch=24,
            learning_rate=1.2e-3,
            warm_up=20,
            average_decay=0.99,
            checkpoint_every=50,
            validate_every=100,
            patience=5,
        ),
        grader=TrainingSchedule(
            steps=182,
            batch=24,
            learning_rate=5e-4,
            weight_decay=1e-2,
            warm_up=20,
            average_decay=0.0,
            checkpoint_every=26,
            validate_every=52,
        ),
        varied=True,
    ),
    grader_again=TrainingSchedule(
        steps=78,
        batch=24,
        learning_rate=3e-4,
        weight_decay=1e-2,
        warm_up=8,
        average_decay=0.0,
        checkpoint_every=26,
        validate_every=78,
    ),
    validation_phantoms=16,
    validation_anatomies=8,
    held_out=25,
)
"""Takes a night on two cores, minutes on a GPU."""

_SHORT_SCHEDULE = TrainingSchedule(
    steps=4, batch=2, learning_rate=1e-3, warm_up=2, checkpoint_every=2, validate_every=4
)
SHORT_RECIPE = Recipe(
    subjects=("errsm_20", "errsm_30"),
    template="",
    phantoms_only=TrainingStage(4, 3, 0, _SHORT_SCHEDULE, _SHORT_SCHEDULE, _SHORT_SCHEDULE),
    varied_phantoms=TrainingStage(3, 3, 0, _SHORT_SCHEDULE, _SHORT_SCHEDULE, _SHORT_SCHEDULE, True),
    mixed=TrainingStage(2, 2, 2, _SHORT_SCHEDULE, _SHORT_SCHEDULE, _SHORT_SCHEDULE, True),
    grader_again=_SHORT_SCHEDULE,
    validation_phantoms=2,
    validation_anatomies=1,
    held_out=1,
)
"""The same recipe in minutes, for tests; its networks have learnt nothing."""
