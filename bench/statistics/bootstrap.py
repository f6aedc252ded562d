"""Bootstrap over patients: levels and studies of one patient are drawn together.

Levels of one patient are not independent, so patients are resampled (cluster bootstrap; Davison & Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8). Intervals are percentile intervals (Efron &
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). A draw is a row of weights: how often each
patient was drawn. One matrix of weights serves several figures, which makes their differences paired.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.estimates import Estimate, estimate

FloatArray = npt.NDArray[np.float64]

METHOD = "percentile bootstrap over patients"
NO_SPREAD = "none: the figure is the same in every draw"
ROUNDS = 1000
"""Draws of the gate of precisions and of `compare`."""


def draw_patients(patients: int, rounds: int = ROUNDS, seed: int = 0) -> npt.NDArray[np.int64]:
    """Draw patients with replacement.

    Returns:
        Indices of patients, int64 (rounds, patients). Equal arguments give equal draws.
    """
    return np.random.default_rng(seed).integers(patients, size=(rounds, patients))


def patient_weights(patients: int, rounds: int = ROUNDS, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return how often each patient is drawn in each of `rounds` draws, int64 (rounds, patients)."""
    draws = draw_patients(patients, rounds, seed)
    return np.stack([np.bincount(draw, minlength=patients) for draw in draws]).astype(np.int64)


def percentile_interval(values: npt.ArrayLike) -> tuple[float, float]:
    """Return the central 95 % of the values of a figure over the draws (rounds,).

    Draws in which the figure is undefined (NaN) are left out; (NaN, NaN) if it is undefined in all.
    """
    figures = np.asarray(values, dtype=np.float64)
    finite = figures[np.isfinite(figures)]
    if len(finite) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def estimate_from_draws(value: float, drawn: npt.ArrayLike) -> Estimate:
    """Return a figure with the percentile interval of its draws (rounds,).

    A figure that is the same in every draw, such as a kappa of 1 where nobody erred, has no interval: the
    draws cannot show what was not observed.
    """
    low, high = percentile_interval(drawn)
    if low == high and low == value and len(np.unique(np.asarray(drawn)[np.isfinite(drawn)])) == 1:
        return Estimate(value, method=NO_SPREAD)
    return estimate(value, (low, high), METHOD)


def bootstrap_p_value(differences: npt.ArrayLike) -> float:
    """Two-sided p-value of the hypothesis that a difference is 0, from its bootstrap distribution (rounds,).

    Twice the share of draws on the smaller side of 0, each counted with one draw more (Davison & Hinkley
    1997, section 4.2), so it is at least 2 / (rounds + 1). A draw of exactly 0 counts on both sides. NaN
    without draws.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan")
    below = (np.count_nonzero(values <= 0.0) + 1) / (len(values) + 1)
    above = (np.count_nonzero(values >= 0.0) + 1) / (len(values) + 1)
    return float(min(1.0, 2.0 * min(below, above)))
