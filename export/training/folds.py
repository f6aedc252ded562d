"""How a pack does on a subject that it was trained without: as acquired, and with made stenoses.

Each fold leaves one subject out. Its pack grades that subject's volume as any study, and studies made from
it with seeds of their own; the temperature is fitted to the probabilities of half of those, and judged on the
other half. All folds together are the figures that the reference pack, trained with all subjects, is given.
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

from stenosis_trt.bench.accuracy.compare import LevelPair, compare_with_truth, pair_levels
from stenosis_trt.bench.accuracy.real_anatomy import (
    CroppedField,
    SubjectAccuracy,
    evaluate_cropped_fields,
    evaluate_subject,
    summarise,
)
from stenosis_trt.bench.phantom.writing import PhantomOptions, write_studies
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.runs.batch import GradeOptions, grade_paths
from stenosis_trt.export.models.temperature import expected_calibration_error, fit_temperature
from stenosis_trt.export.training.recipe import HELD_OUT_SEED, Recipe
from stenosis_trt.export.training.sets import StudyFolder

FloatArray = npt.NDArray[np.float64]

_SMALLEST = 1e-12
"""A probability whose logarithm still counts."""


@dataclass(frozen=True)
class FoldResult:
    """What one subject, left out, says of the pack trained without it.

    Attributes:
        subject: who.
        acquired: its volume as it is.
        short: its volume where images do not show all levels.
        pairs: every level of the studies made from it, beside the truth.
        probabilities: of the four grades of each level that was graded, before calibration, float64 (N, 4).
        grades: the true grades of those levels, int64 (N,).
        studies: number of the study that each is of, int64 (N,).
    """

    subject: str
    acquired: SubjectAccuracy
    short: tuple[CroppedField, ...]
    pairs: tuple[LevelPair, ...]
    probabilities: FloatArray
    grades: npt.NDArray[np.int64]
    studies: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature fitted on every other study; the calibration errors of the rest, before and after.

    `temperature` is what a pack gets: `fitted`, or 1 where that makes the error of the rest no smaller.
    """

    fitted: float
    temperature: float
    error_before: float
    error_after: float


def evaluate_held_out_subject(
    subject: str, pack: Path, folder: StudyFolder, recipe: Recipe, held_out: Path
) -> FoldResult:
    """Judge the pack that was trained without `subject`, its grader not calibrated yet.

    Args:
        subject: who was left out.
        pack: the fold's pack.
        folder: where studies are rendered, and the volumes.
        recipe: how many studies.
        held_out: folder that the studies made from the subject are written to, or lie in already.

    Raises:
        ValueError: there are no volumes, or the pack grades none of those studies.
    """
    volumes = folder.volumes
    if volumes is None:
        raise ValueError("Subjects can be left out only where there are volumes. Give --volumes.")
    with TemporaryDirectory() as work:
        acquired = evaluate_subject(SUBJECTS[subject], volumes, pack, Path(work))
    short = evaluate_cropped_fields(SUBJECTS[subject], volumes, pack)
    source = SemisyntheticSource((subject,), volumes, folder.work / "straight")
    truth = held_out / "truth.csv"
    if not truth.exists():
        options = PhantomOptions(recipe.held_out, HELD_OUT_SEED, workers=folder.workers, source=source)
        write_studies(held_out, options)
    with TemporaryDirectory() as results:
        graded_studies = grade_paths([held_out], Path(results), GradeOptions(pack=pack, device="cpu")).graded
        if graded_studies == 0:
            raise ValueError(
                f"The pack trained without {subject} graded none of the studies made from it. Train longer."
            )
        pairs = tuple(pair_levels(Path(results) / "results.csv", truth))
        told = _probabilities(Path(results) / "results.jsonl")
    graded = [pair for pair in pairs if (pair.study_uid, pair.level) in told]
    numbers = {uid: number for number, uid in enumerate(dict.fromkeys(pair.study_uid for pair in pairs))}
    return FoldResult(
        subject=subject,
        acquired=acquired,
        short=tuple(short),
        pairs=pairs,
        probabilities=np.array([told[pair.study_uid, pair.level] for pair in graded], dtype=np.float64),
        grades=np.array([pair.true_grade for pair in graded], dtype=np.int64),
        studies=np.array([numbers[pair.study_uid] for pair in graded], dtype=np.int64),
    )


def _probabilities(results: Path) -> dict[tuple[str, str], list[float]]:
    """The grades' probabilities of every level that was graded."""
    found = {}
    for line in results.read_text(encoding="utf-8").splitlines():
        study = json.loads(line)
        for level in study["levels"]:
            if level["probabilities"] is not None:
                found[study["study_uid"], level["level"]] = level["probabilities"]
    return found


def calibrate(folds: Sequence[FoldResult]) -> TemperatureFit:
    """Fit the temperature to every other study of all folds, and judge it by the rest.

    Logarithms of probabilities are logits but for a constant, which changes nothing. "Other" is left out:
    what is judged is how far a grade can be taken at its word.
    """
    logits = np.log(np.maximum(np.concatenate([fold.probabilities for fold in folds]), _SMALLEST))
    grades = np.concatenate([fold.grades for fold in folds])
    fitted = np.concatenate([fold.studies for fold in folds]) % 2 == 0
    temperature = fit_temperature(logits[fitted], grades[fitted])
    before, after = (
        expected_calibration_error(_softmax(logits[~fitted] / t), grades[~fitted]) for t in (1.0, temperature)
    )
    return TemperatureFit(temperature, temperature if after < before else 1.0, before, after)


def _softmax(logits: FloatArray) -> FloatArray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def fold_figures(folds: Sequence[FoldResult]) -> dict[str, Any]:
    """Figures of all folds: acquired volumes, studies with made stenoses, calibration."""
    pairs = [pair for fold in folds for pair in fold.pairs]
    made = {
        fold.subject: {
            name: value
            for name, value in asdict(compare_with_truth(fold.pairs)).items()
            if name in ("accuracy", "kappa", "ratio_mean_absolute_error", "ratio_bias")
        }
        for fold in folds
    }
    return {
        "left_out_subjects": [fold.subject for fold in folds],
        "as_acquired": summarise(
            [fold.acquired for fold in folds], [field for fold in folds for field in fold.short]
        ),
        "made_stenoses": asdict(compare_with_truth(pairs)),
        "made_stenoses_by_subject": made,
        "calibration": asdict(calibrate(folds)),
    }


def write_figures(path: Path, content: dict[str, Any]) -> None:
    """Write figures as JSON."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
