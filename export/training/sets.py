"""Training and validation sets of a stage, rendered on first use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.bench.phantom.study import PhantomSource
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.export.training.recipe import TRAINING_SEED, VALIDATION_SEED, Recipe, TrainingStage
from stenosis_trt.export.training.rendering import RenderedStudySet, render_set
from stenosis_trt.export.training.samples import StudyStore


@dataclass(frozen=True)
class StudyFolder:
    """Folder of rendered studies, and the volumes they are made from.

    `volumes` is the folder of the subjects' volumes; None if only phantoms are used.
    """

    work: Path
    volumes: Path | None
    workers: int

    def phantoms(self, seed: int, count: int, varied: bool = False) -> list[Path]:
        """The first `count` phantoms of a seed, with drawn conditions if `varied`."""
        source = PhantomSource(varied=varied)
        return self._render_missing(RenderedStudySet(_name("phantom", varied), source, seed), count)

    def anatomies(self, subject: str, seed: int, count: int, varied: bool = False) -> list[Path]:
        """The first `count` studies of a seed made from one subject, with drawn conditions if `varied`.

        Raises:
            ValueError: there is no folder of volumes.
            OSError: the subject's volume is missing.
        """
        if count == 0:
            return []
        if self.volumes is None:
            raise ValueError("The recipe needs real volumes. Give --volumes.")
        source = SemisyntheticSource((subject,), self.volumes, self.work / "straight", varied=varied)
        return self._render_missing(RenderedStudySet(_name(subject, varied), source, seed), count)

    def _render_missing(self, studies: RenderedStudySet, count: int) -> list[Path]:
        folder = self.work / "rendered"
        paths = [studies.path(folder, index) for index in range(count)]
        missing = [index for index, path in enumerate(paths) if not path.exists()]
        if missing:
            render_set(folder, studies, missing, self.workers)
        return paths


def _name(of: str, varied: bool) -> str:
    return f"{of}-varied" if varied else of


def training_set(
    folder: StudyFolder, recipe: Recipe, stage: TrainingStage, network: str, left_out: str | None
) -> StudyStore:
    """Training studies of a network in a stage, without the left-out subject."""
    count = stage.phantoms if network == "grader" else stage.keypoint_phantoms
    paths = folder.phantoms(TRAINING_SEED, count, stage.varied)
    for subject, studies in _study_counts(recipe, stage.anatomies, left_out):
        paths += folder.anatomies(subject, TRAINING_SEED, studies, stage.varied)
    return StudyStore(paths)


def validation_set(
    folder: StudyFolder, recipe: Recipe, stage: TrainingStage, left_out: str | None
) -> StudyStore:
    """Validation studies of a stage. The left-out subject is excluded, so that it affects no choice."""
    paths = folder.phantoms(VALIDATION_SEED, recipe.validation_phantoms, stage.varied)
    if stage.anatomies:
        for subject in recipe.subjects:
            if subject != left_out:
                paths += folder.anatomies(subject, VALIDATION_SEED, recipe.validation_anatomies, stage.varied)
    return StudyStore(paths)


def _study_counts(recipe: Recipe, anatomies: int, left_out: str | None) -> Iterator[tuple[str, int]]:
    for subject in recipe.subjects:
        if subject != left_out:
            yield subject, anatomies
    if recipe.template:
        yield recipe.template, anatomies // 2
