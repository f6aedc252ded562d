"""Intraclass correlation of absolute agreement, ICC(A,1).

Two-way model, single measurement, absolute agreement: McGraw & Wong, Psychological Methods 1996;1:30, which
is ICC(2,1) of Shrout & Fleiss, Psychological Bulletin 1979;86:420.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.bland_altman import drawn_moments
from stenosis_trt.bench.statistics.bootstrap import estimate_from_draws
from stenosis_trt.bench.statistics.confusion import IntArray
from stenosis_trt.bench.statistics.estimates import CONFIDENCE, Estimate, estimate

F_METHOD = "F distribution (McGraw & Wong 1996), levels taken as independent"


def icc_a1(ratings: npt.ArrayLike) -> Estimate:
    """ICC(A,1) with the interval of McGraw & Wong, 1996, table 7.

    Args:
        ratings: (subjects, raters), complete; at least two of each.

    Returns:
        (MSR − MSE) / (MSR + (k − 1)·MSE + k/n·(MSC − MSE)), with MSR, MSC and MSE the mean squares of
        subjects, raters and residual. None where all ratings are equal.

    Raises:
        ValueError: there are fewer than two subjects or raters.
    """
    from scipy.stats import f

    values = np.asarray(ratings, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError("An ICC needs at least two subjects and two raters.")
    n, k = values.shape
    grand = values.mean()
    subjects, raters = values.mean(axis=1), values.mean(axis=0)
    msr = k * float(((subjects - grand) ** 2).sum()) / (n - 1)
    msc = n * float(((raters - grand) ** 2).sum()) / (k - 1)
    residual = values - subjects[:, None] - raters[None, :] + grand
    mse = float((residual**2).sum()) / ((n - 1) * (k - 1))
    below = msr + (k - 1) * mse + k / n * (msc - mse)
    if below == 0.0:
        return Estimate(None)
    icc = (msr - mse) / below
    if mse == 0.0 or icc >= 1.0:
        return Estimate(icc)
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    freedom = (a * msc + b * mse) ** 2 / ((a * msc) ** 2 / (k - 1) + (b * mse) ** 2 / ((n - 1) * (k - 1)))
    tail = 0.5 + CONFIDENCE / 2
    lower, upper = float(f.ppf(tail, n - 1, freedom)), float(f.ppf(tail, freedom, n - 1))
    shared = k * msc + (k * n - k - n) * mse
    interval = (
        n * (msr - lower * mse) / (lower * shared + n * msr),
        n * (upper * msr - mse) / (shared + n * upper * msr),
    )
    return estimate(icc, interval, F_METHOD)


def icc_over_patients(
    first: npt.ArrayLike, second: npt.ArrayLike, patients: IntArray, weights: IntArray | None = None
) -> Estimate:
    """ICC(A,1) of two raters with its interval by bootstrap over patients.

    Args:
        first, second: values of the two (N,), N ≥ 2.
        patients: index of the patient of each value, int64 (N,).
        weights: draws of patients (rounds, patients); None for no interval.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    value = icc_a1(np.stack([one, two], axis=1)).value
    if value is None or weights is None:
        return Estimate(value)
    # For two raters, with s their sum and d their difference: MSR = var(s)/2, MSE = var(d)/2, MSC =
    # n·mean(d)²/2.
    _, _, sum_variance = drawn_moments(one + two, patients, weights)
    count, shift, variance = drawn_moments(one - two, patients, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        msr, mse, msc = sum_variance / 2, variance / 2, count * shift**2 / 2
        drawn = (msr - mse) / (msr + mse + 2 / count * (msc - mse))
    return estimate_from_draws(value, drawn)
