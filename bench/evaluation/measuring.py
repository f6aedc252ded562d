"""Figures of measurements of the cord: the model against the truth and each reader."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stenosis_trt.bench.evaluation.cohort import FEWEST_PATIENTS, Cohort, Ratings
from stenosis_trt.bench.evaluation.draws import Draws
from stenosis_trt.bench.evaluation.raters import MEASURES
from stenosis_trt.bench.statistics.bland_altman import (
    LimitsOfAgreement,
    limits_over_patients,
    limits_with_intervals,
)
from stenosis_trt.bench.statistics.bootstrap import FloatArray
from stenosis_trt.bench.statistics.estimates import Estimate
from stenosis_trt.bench.statistics.icc import icc_a1, icc_over_patients
from stenosis_trt.bench.statistics.multiple_comparisons import holm
from stenosis_trt.bench.statistics.paired_tests import SignedRankTest, signed_rank_test
from stenosis_trt.bench.statistics.signed_errors import error_statistics

_FEWEST_LEVELS = 3


@dataclass(frozen=True)
class MeasureFigures:
    """One measure of the model against one reference; differences are model − reference.

    Attributes:
        measure: name of the column. reference: name of the rater.
        patients, levels: measured by both.
        model_mean, model_sd, reference_mean, reference_sd: over levels.
        mean_absolute_error: over levels.
        icc: ICC(A,1), interval by bootstrap over patients. icc_independent: with the interval of McGraw &
            Wong.
        limits: bias and limits of agreement, intervals by bootstrap over patients.
        limits_independent: with the intervals of Bland & Altman.
        wilcoxon: test of the mean differences of patients; None below ten patients.
        adjusted_p_value: Holm's over the measures with one reference.
    """

    measure: str
    reference: str
    patients: int
    levels: int
    model_mean: float
    model_sd: float
    reference_mean: float
    reference_sd: float
    mean_absolute_error: float | None
    icc: Estimate
    icc_independent: Estimate
    limits: LimitsOfAgreement
    limits_independent: LimitsOfAgreement
    wilcoxon: SignedRankTest | None
    adjusted_p_value: float | None


def measure_figures(cohort: Cohort, draws: Draws) -> tuple[MeasureFigures, ...]:
    """Compare each measure of the model with the truth and each reader; fewer than three levels are left
    out."""
    found: list[MeasureFigures] = []
    for reference in (cohort.truth, *cohort.readers):
        of_reference = [
            figures
            for row, measure in enumerate(MEASURES)
            if (figures := _figures(cohort, reference, row, measure, draws)) is not None
        ]
        adjusted = holm([item.wilcoxon.p_value if item.wilcoxon else None for item in of_reference])
        found += [
            replace(item, adjusted_p_value=p_value)
            for item, p_value in zip(of_reference, adjusted, strict=True)
        ]
    return tuple(found)


def measured_differences(
    cohort: Cohort, reference: Ratings, row: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values of the model and of a reference (N,) where both measured, and the indices of their patients
    (N,)."""
    model, other = cohort.model.measures[row], reference.measures[row]
    both = np.isfinite(model) & np.isfinite(other)
    return model[both], other[both], cohort.patients[both].astype(np.float64)


def _figures(
    cohort: Cohort, reference: Ratings, row: int, measure: str, draws: Draws
) -> MeasureFigures | None:
    model, other, patients = measured_differences(cohort, reference, row)
    if len(model) < _FEWEST_LEVELS:
        return None
    used, found = np.unique(patients, return_inverse=True)
    index = found.astype(np.int64)
    weights, differences = draws.of(len(used)), model - other
    independent = icc_a1(np.stack([model, other], axis=1)), limits_with_intervals(differences)
    if weights is None:
        independent = _without_intervals(*independent)
    by_patient = np.bincount(index, weights=differences) / np.bincount(index)
    return MeasureFigures(
        measure=measure,
        reference=reference.name,
        patients=len(used),
        levels=len(model),
        model_mean=float(model.mean()),
        model_sd=float(model.std(ddof=1)),
        reference_mean=float(other.mean()),
        reference_sd=float(other.std(ddof=1)),
        mean_absolute_error=error_statistics(differences).mean_absolute_error,
        icc=icc_over_patients(model, other, index, weights),
        icc_independent=independent[0],
        limits=limits_over_patients(differences, index, weights),
        limits_independent=independent[1],
        wilcoxon=signed_rank_test(by_patient) if len(used) >= FEWEST_PATIENTS else None,
        adjusted_p_value=None,
    )


def _without_intervals(icc: Estimate, limits: LimitsOfAgreement) -> tuple[Estimate, LimitsOfAgreement]:
    plain = (Estimate(item.value) for item in (limits.bias, limits.low, limits.high))
    return Estimate(icc.value), LimitsOfAgreement(limits.count, *plain)
