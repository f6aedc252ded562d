"""Area under the ROC curve, with DeLong's interval and a bootstrap over patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.bootstrap import FloatArray, estimate_from_draws
from stenosis_trt.bench.statistics.confusion import IntArray
from stenosis_trt.bench.statistics.estimates import CONFIDENCE, Estimate, estimate

DELONG_METHOD = "DeLong 1988, levels taken as independent"


@dataclass(frozen=True)
class AreaUnderCurve:
    """Area under the ROC curve; None where all cases are of one class.

    Attributes:
        positives, negatives: number of cases.
        area: with its interval by bootstrap over patients.
        delong: with the interval of DeLong, DeLong & Clarke-Pearson, Biometrics 1988;44:837.
    """

    positives: int
    negatives: int
    area: Estimate
    delong: Estimate


def area_under_curve(
    positive: npt.ArrayLike, scores: npt.ArrayLike, patients: IntArray, weights: IntArray | None = None
) -> AreaUnderCurve:
    """Area under the ROC curve of scores, by scikit-learn, with intervals.

    Args:
        positive: whether each case is positive, bool (N,). scores: higher for positive cases, (N,).
        patients: index of the patient of each case, int64 (N,).
        weights: draws of patients (rounds, patients); None for no intervals.
    """
    from sklearn.metrics import roc_auc_score

    truth, values = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=np.float64)
    positives = int(truth.sum())
    counts = (positives, len(truth) - positives)
    if min(counts) == 0:
        return AreaUnderCurve(*counts, Estimate(None), Estimate(None))
    area = float(roc_auc_score(truth, values))
    if weights is None:
        return AreaUnderCurve(*counts, Estimate(area), Estimate(area))
    wins = _wins(values[truth], values[~truth])
    drawn = _drawn_areas(wins, patients[truth], patients[~truth], weights)
    error = delong_standard_error(wins)
    return AreaUnderCurve(*counts, estimate_from_draws(area, drawn), _normal_interval(area, error))


def delong_standard_error(wins: FloatArray) -> float:
    """Standard error of the area by DeLong's structural components; NaN for fewer than two cases of a class.

    Args:
        wins: 1, 0.5 or 0 for each pair of a positive and a negative case, (positives, negatives).
    """
    if min(wins.shape) < 2:
        return float("nan")
    of_positives, of_negatives = wins.mean(axis=1), wins.mean(axis=0)
    variance = of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives)
    return float(np.sqrt(variance))


def _wins(positive: FloatArray, negative: FloatArray) -> FloatArray:
    above = positive[:, None] > negative[None, :]
    tied = positive[:, None] == negative[None, :]
    return np.asarray(above + 0.5 * tied, dtype=np.float64)


def _normal_interval(area: float, error: float) -> Estimate:
    from scipy.stats import norm

    if error == 0.0:
        # The classes do not overlap: the formula has nothing to estimate a variance from.
        return Estimate(area)
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * error
    return estimate(area, (max(0.0, area - half), min(1.0, area + half)), DELONG_METHOD)


def _drawn_areas(
    wins: FloatArray, positive_patients: IntArray, negative_patients: IntArray, weights: IntArray
) -> FloatArray:
    """Area of each draw (rounds,): wins summed by pair of patients, then weighted."""
    patients = weights.shape[1]
    by_pair = np.zeros((patients, patients))
    np.add.at(by_pair, (positive_patients[:, None], negative_patients[None, :]), wins)
    drawn = weights.astype(np.float64)
    won = np.einsum("ri,ri->r", drawn @ by_pair, drawn)
    pairs = (drawn @ np.bincount(positive_patients, minlength=patients)) * (
        drawn @ np.bincount(negative_patients, minlength=patients)
    )
    areas = np.full(len(won), np.nan)
    np.divide(won, pairs, out=areas, where=pairs > 0.0)
    return areas
