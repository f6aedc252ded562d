"""Cross-validation: evaluation of each fold's pack on the subject it was trained without.

The pack grades the subject's volume as acquired, and studies with simulated stenoses made from it. The
temperature is fitted to the probabilities of half of those studies and evaluated on the other half. The
figures over all folds are those of the reference pack, which is trained on all subjects.
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
from stenosis_trt.bench.statistics.calibration import expected_calibration_error
from stenosis_trt.engine.runs.batch import grade_paths
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.export.models.temperature import fit_temperature
from stenosis_trt.export.training.recipe import HELD_OUT_SEED, Recipe
from stenosis_trt.export.training.sets import StudyFolder

FloatArray = npt.NDArray[np.float64]

_MIN_PROBABILITY = 1e-12
"""Lower bound of probabilities before taking the logarithm."""


@dataclass(frozen=True)
class FoldResult:
    """Evaluation of one fold.

    Attributes:
        subject: the subject that was left out.
        acquired: figures of its volume as acquired.
        short: figures of its volume cropped so that not all levels are visible.
        pairs: each level of the simulated studies with the truth.
        probabilities: of the four grades for each graded level, before calibration, float64 (N, 4).
        grades: true grades of these levels, int64 (N,).
        studies: study number of these levels, int64 (N,).
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
    """Temperature fitted on every other study, with the calibration errors of the rest before and after.

    `temperature` is used for the pack: `fitted`, or 1 if that does not reduce the error.
    """

    fitted: float
    temperature: float
    error_before: float
    error_after: float


def evaluate_held_out_subject(
    subject: str, pack: Path, folder: StudyFolder, recipe: Recipe, held_out: Path
) -> FoldResult:
    """Evaluate an uncalibrated pack on the subject it was trained without.

    Args:
        subject: the subject that was left out.
        pack: the fold's pack.
        folder: rendered studies and volumes.
        recipe: number of studies.
        held_out: folder of the subject's simulated studies, which are written if absent.

    Raises:
        ValueError: there are no volumes, or the pack grades none of the studies.
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
    """Probabilities of the grades for every graded level, by (study UID, level)."""
    found = {}
    for line in results.read_text(encoding="utf-8").splitlines():
        study = json.loads(line)
        for level in study["levels"]:
            if level["probabilities"] is not None:
                found[study["study_uid"], level["level"]] = level["probabilities"]
    return found


def calibrate(folds: Sequence[FoldResult]) -> TemperatureFit:
    """Fit the temperature to every other study of all folds and evaluate it on the rest.

    Log probabilities equal logits up to a constant, which has no effect. The class "other" is left out.
    """
    logits = np.log(np.maximum(np.concatenate([fold.probabilities for fold in folds]), _MIN_PROBABILITY))
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
    """Figures over all folds: volumes as acquired, simulated stenoses, calibration."""
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
