"""Bland-Altman limits of agreement, and their intervals.

Source: Bland & Altman, Lancet 1986;327:307. Their intervals take differences as independent;
`limits_over_patients` draws patients instead, since one patient gives several levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.bootstrap import FloatArray, estimate_from_draws
from stenosis_trt.bench.statistics.confusion import IntArray
from stenosis_trt.bench.statistics.estimates import CONFIDENCE, Estimate, estimate

NORMAL_95 = 1.96
"""Half width, in standard deviations, of the central 95 % of a normal distribution."""
T_METHOD = "t distribution (Bland & Altman 1986), levels taken as independent"


@dataclass(frozen=True)
class BlandAltman:
    """Mean difference and 95 % limits of agreement; None where fewer than two differences are known.

    The limits are bias ± 1.96 standard deviations.
    """

    count: int
    bias: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class LimitsOfAgreement:
    """Mean difference and limits of agreement, each with its interval."""

    count: int
    bias: Estimate
    low: Estimate
    high: Estimate


def bland_altman(differences: npt.ArrayLike) -> BlandAltman:
    """Bias and limits of agreement of signed differences (N,); see `BlandAltman`."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return BlandAltman(len(values), None, None, None)
    bias, spread = float(values.mean()), NORMAL_95 * float(values.std(ddof=1))
    return BlandAltman(len(values), bias, bias - spread, bias + spread)


def limits_with_intervals(differences: npt.ArrayLike, multiplier: float = NORMAL_95) -> LimitsOfAgreement:
    """Bias and limits with the intervals of Bland & Altman, 1986.

    Args:
        differences: signed differences (N,), at least two.
        multiplier: standard deviations from the bias to a limit. The paper's example has 2.

    Returns:
        Standard errors are √(s²/N) of the bias and √(3s²/N) of a limit, times the t value of N − 1 degrees of
        freedom.

    Raises:
        ValueError: there are fewer than two differences.
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        raise ValueError("Limits of agreement need at least two differences.")
    bias, spread = float(values.mean()), float(values.std(ddof=1))
    width = float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * spread / np.sqrt(len(values))

    def around(centre: float, half: float) -> Estimate:
        return estimate(centre, (centre - half, centre + half), T_METHOD)

    limit = float(np.sqrt(3.0) * width)
    return LimitsOfAgreement(
        len(values),
        around(bias, float(width)),
        around(bias - multiplier * spread, limit),
        around(bias + multiplier * spread, limit),
    )


def limits_over_patients(
    differences: npt.ArrayLike, patients: IntArray, weights: IntArray | None = None
) -> LimitsOfAgreement:
    """Bias and limits with intervals by bootstrap over patients.

    Args:
        differences: signed differences (N,), at least two.
        patients: index of the patient of each difference, int64 (N,).
        weights: draws of patients (rounds, patients); None for no intervals.
    """
    values = np.asarray(differences, dtype=np.float64)
    plain = bland_altman(values)
    figures = [float("nan") if x is None else x for x in (plain.bias, plain.low, plain.high)]
    if weights is None:
        return LimitsOfAgreement(plain.count, *(estimate(value) for value in figures))
    count, mean, variance = drawn_moments(values, patients, weights)
    spread = NORMAL_95 * np.sqrt(np.where(count > 1, variance, np.nan))
    drawn = (mean, mean - spread, mean + spread)
    return LimitsOfAgreement(
        plain.count,
        *(estimate_from_draws(value, column) for value, column in zip(figures, drawn, strict=True)),
    )


def drawn_moments(
    values: FloatArray, patients: IntArray, weights: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return number, mean and variance (N − 1) of the values of each draw, each float64 (rounds,).

    Args:
        values: (N,). patients: index of the patient of each value (N,). weights: (rounds, patients).
    """
    # About the overall mean, so that squares do not cancel.
    centre = values.mean()
    places = weights.shape[1]
    sums: list[FloatArray] = [
        np.asarray(weights @ np.bincount(patients, weights=part, minlength=places), dtype=np.float64)
        for part in (np.ones(len(values)), values - centre, (values - centre) ** 2)
    ]
    count = sums[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = sums[1] / count
        variance = np.maximum(sums[2] - count * shift**2, 0.0) / (count - 1.0)
    return count, centre + shift, variance
