"""All figures of results beside a truth and readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.bench.evaluation.cohort import FEWEST_PATIENTS, Cohort, make_cohort
from stenosis_trt.bench.evaluation.cross_validation import model_by_fold, read_folds
from stenosis_trt.bench.evaluation.draws import ROUNDS, Draws
from stenosis_trt.bench.evaluation.grading import (
    PairFigures,
    RaterDifference,
    RaterFigures,
    area_of_model,
    pair_figures,
    rater_differences,
    rater_figures,
)
from stenosis_trt.bench.evaluation.measuring import MeasureFigures, measure_figures
from stenosis_trt.bench.evaluation.raters import read_readers, read_results, read_truth
from stenosis_trt.bench.evaluation.symptoms import (
    ScoreCorrelation,
    ScoreDifference,
    read_scores,
    score_correlations,
    score_differences,
)
from stenosis_trt.bench.statistics.folds import FoldTable
from stenosis_trt.bench.statistics.roc import AreaUnderCurve


@dataclass(frozen=True)
class EvaluationInputs:
    """Files and options of an evaluation.

    Attributes:
        results: folder of `grade`, or its results.csv. truth, readers: tables of grades.
        scores: table of clinical scores. folds: table of folds.
        few_patients: accept fewer than ten patients; figures then have no intervals and tests.
        rounds, seed: of the bootstrap.
    """

    results: Path
    truth: Path
    readers: tuple[Path, ...] = ()
    scores: Path | None = None
    folds: Path | None = None
    few_patients: bool = False
    rounds: int = ROUNDS
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """All figures. Intervals are of 95 %.

    Attributes:
        patients, studies, levels: of the truth. rounds, seed: of the bootstrap.
        raters: the model and each reader against the truth. pairs: model and readers with one another.
        differences: model against readers, and readers with one another, by agreement with the truth.
        measures: the model's measurements against truth and readers.
        area: under the ROC curve, for a true grade of 2 or 3.
        correlations, correlation_differences: with clinical scores; score_key: what a subject of these is.
        folds: figures of each fold; None without folds.
        notes: sentences on what was left out.
    """

    patients: int
    studies: int
    levels: int
    rounds: int
    seed: int
    raters: tuple[RaterFigures, ...]
    pairs: tuple[PairFigures, ...]
    differences: tuple[RaterDifference, ...]
    measures: tuple[MeasureFigures, ...]
    area: AreaUnderCurve
    correlations: tuple[ScoreCorrelation, ...]
    correlation_differences: tuple[ScoreDifference, ...]
    score_key: str | None
    folds: FoldTable | None
    notes: tuple[str, ...]


def evaluate(inputs: EvaluationInputs) -> tuple[Evaluation, Cohort]:
    """Read the tables and compute all figures.

    Returns:
        The figures, and the levels that they were computed from.

    Raises:
        InputError: a table cannot be used; the reason is one sentence.
        OSError: a file cannot be read.
        ModuleNotFoundError: the extra `evaluate` is not installed.
    """
    model, truth = read_results(inputs.results), read_truth(inputs.truth)
    readers = read_readers(inputs.readers)
    scores = None if inputs.scores is None else read_scores(inputs.scores)
    folds = None if inputs.folds is None else read_folds(inputs.folds)
    cohort = make_cohort(model, truth, readers, inputs.few_patients)
    draws = Draws(inputs.rounds, inputs.seed)
    return (
        Evaluation(
            patients=cohort.patient_count,
            studies=len(cohort.studies),
            levels=int(cohort.truth.graded.sum()),
            rounds=inputs.rounds,
            seed=inputs.seed,
            raters=tuple(rater_figures(cohort, rater, draws) for rater in (cohort.model, *cohort.readers)),
            pairs=pair_figures(cohort, draws),
            differences=rater_differences(cohort, draws),
            measures=measure_figures(cohort, draws),
            area=area_of_model(cohort, draws),
            correlations=() if scores is None else score_correlations(cohort, scores),
            correlation_differences=() if scores is None else score_differences(cohort, scores),
            score_key=None if scores is None else scores.key,
            folds=model_by_fold(cohort, folds),
            notes=(*cohort.notes, *_notes(cohort, scores is not None and scores.key == "study_uid")),
        ),
        cohort,
    )


def _notes(cohort: Cohort, scores_by_study: bool) -> Sequence[str]:
    notes = []
    if cohort.patient_count < FEWEST_PATIENTS:
        notes.append(f"Fewer than {FEWEST_PATIENTS} patients: no intervals and no tests.")
    if scores_by_study and len(cohort.studies) > cohort.patient_count:
        notes.append(
            "Scores are by study, and a patient has several: correlations take studies as independent."
        )
    return notes
