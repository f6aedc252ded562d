"""How a pack does on a subject that it was trained without: as acquired, and with made stenoses.

Each fold leaves one subject out. Its pack grades that subject's volume as any study, and studies made from
it with seeds of their own; the grader's logits on yet other studies of it are what the temperature is
fitted to. All folds together are the figures that the reference pack, trained with all subjects, is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from stenosis_trt.bench.compare import LevelPair, compare, pair_levels
from stenosis_trt.bench.phantom.writing import PhantomOptions, write_studies
from stenosis_trt.bench.real_anatomy import SubjectFigures, judge, summary
from stenosis_trt.bench.semisynthetic.source import Anatomies
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.batch import GradeOptions, grade_paths
from stenosis_trt.export.training.confidence import expected_calibration_error, fit_temperature
from stenosis_trt.export.training.recipe import HELD_OUT_SEED, VALIDATION_SEED, Recipe
from stenosis_trt.export.training.samples import GRADES, StudyStore
from stenosis_trt.export.training.sets import StudyFolder
from stenosis_trt.export.training.tasks import SPECIFICATIONS
from stenosis_trt.export.training.validation import GraderValidation

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """What one subject, left out, says of the pack trained without it.

    `logits` are float64 (levels, classes) of the grader on studies made from the subject, `grades` theirs.
    """

    subject: str
    acquired: SubjectFigures
    pairs: tuple[LevelPair, ...]
    logits: FloatArray
    grades: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """The temperature fitted on every other left-out study, and the error on the rest without and with it."""

    temperature: float
    error_before: float
    error_after: float


def judge_fold(
    subject: str, pack: Path, grader: nn.Module, folder: StudyFolder, recipe: Recipe, held_out: Path
) -> Fold:
    """Judge the pack that was trained without `subject`.

    Args:
        subject: who was left out.
        pack: the fold's pack.
        grader: its grader before calibration.
        folder: where studies are rendered, and the volumes.
        recipe: how many studies.
        held_out: folder that the studies made from the subject are written to, or lie in already.
    """
    volumes = folder.volumes
    if volumes is None:
        raise ValueError("Subjects can be left out only where there are volumes. Give --volumes.")
    with TemporaryDirectory() as work:
        acquired = judge(SUBJECTS[subject], volumes, pack, Path(work))
    source = Anatomies((subject,), volumes, folder.work / "straight")
    truth = held_out / "truth.csv"
    if not truth.exists():
        options = PhantomOptions(recipe.held_out, HELD_OUT_SEED, workers=folder.workers, source=source)
        write_studies(held_out, options)
    with TemporaryDirectory() as results:
        grade_paths([held_out], Path(results), GradeOptions(pack=pack, device="cpu"))
        pairs = tuple(pair_levels(Path(results) / "results.csv", truth))
    store = StudyStore(folder.anatomies(subject, VALIDATION_SEED, recipe.validation_anatomies))
    logits, grades = GraderValidation(store, SPECIFICATIONS["grader"][0]).logits(grader)
    return Fold(subject, acquired, pairs, logits, grades)


def calibrate(folds: Sequence[Fold]) -> Calibration:
    """Fit the temperature to every other level of all folds, and judge it by the rest.

    "Other" is left out of both: what is judged is how far a grade can be taken at its word.
    """
    logits = np.concatenate([fold.logits for fold in folds])[:, :GRADES]
    grades = np.concatenate([fold.grades for fold in folds])
    temperature = fit_temperature(logits[::2], grades[::2])
    before, after = (
        expected_calibration_error(_softmax(logits[1::2] / t), grades[1::2]) for t in (1.0, temperature)
    )
    return Calibration(temperature, before, after)


def _softmax(logits: FloatArray) -> FloatArray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def figures(folds: Sequence[Fold]) -> dict[str, Any]:
    """Figures of all folds: acquired volumes, studies with made stenoses, calibration."""
    pairs = [pair for fold in folds for pair in fold.pairs]
    made = {
        fold.subject: {
            name: value
            for name, value in asdict(compare(fold.pairs)).items()
            if name in ("accuracy", "kappa", "ratio_mean_absolute_error", "ratio_bias")
        }
        for fold in folds
    }
    return {
        "left_out_subjects": [fold.subject for fold in folds],
        "as_acquired": summary([fold.acquired for fold in folds]),
        "made_stenoses": asdict(compare(pairs)),
        "made_stenoses_by_subject": made,
        "calibration": asdict(calibrate(folds)),
    }


def write_figures(path: Path, content: dict[str, Any]) -> None:
    """Write figures as JSON."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
