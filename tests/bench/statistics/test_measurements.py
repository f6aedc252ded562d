"""Bland-Altman, ICC and Wilcoxon against published examples, and over patients against independent levels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from stenosis_trt.bench.statistics.bland_altman import (
    bland_altman,
    drawn_moments,
    limits_over_patients,
    limits_with_intervals,
)
from stenosis_trt.bench.statistics.bootstrap import patient_weights
from stenosis_trt.bench.statistics.estimates import Estimate
from stenosis_trt.bench.statistics.icc import icc_a1, icc_over_patients
from stenosis_trt.bench.statistics.paired_tests import hodges_lehmann, signed_rank_test
from stenosis_trt.bench.statistics.signed_errors import ErrorStatistics, error_statistics, share

WRIGHT = (494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427)
MINI = (512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451)
"""Peak expiratory flow of 17 people by two meters, l/min: Bland & Altman, Lancet 1986;327:307, table 1."""
SHROUT_FLEISS = ((9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7))
"""Four judges of six targets: Shrout & Fleiss, Psychological Bulletin 1979;86:420, table 2."""
DEPRESSION = (
    (1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30),
    (0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29),
)
"""Depression scale at two visits: Hollander & Wolfe 1973; the example of R's `wilcox.test`."""


def _bounds(figure: Estimate) -> tuple[float, float]:
    assert figure.low is not None
    assert figure.high is not None
    return figure.low, figure.high


def test_the_peak_flow_example_of_bland_and_altman_comes_out() -> None:
    """Printed: −2.1, limits −79.7 and 75.5 (2 SD), intervals −22.0 to 17.8, −114.3 to −45.1, 40.9 to
    110.1."""
    found = limits_with_intervals(np.subtract(WRIGHT, MINI), multiplier=2.0)
    assert found.count == 17
    assert found.bias.value == pytest.approx(-2.1, abs=0.05)
    assert (found.low.value, found.high.value) == pytest.approx((-79.7, 75.5), abs=0.1)
    # The paper rounds the standard errors to 9.4 and 16.3.
    assert _bounds(found.bias) == pytest.approx((-22.0, 17.8), abs=0.1)
    assert _bounds(found.low) == pytest.approx((-114.3, -45.1), abs=0.2)
    assert _bounds(found.high) == pytest.approx((40.9, 110.1), abs=0.2)


def test_limits_are_1_96_standard_deviations_from_the_bias() -> None:
    found, plain = limits_with_intervals(np.subtract(WRIGHT, MINI)), bland_altman(np.subtract(WRIGHT, MINI))
    assert (found.bias.value, found.low.value, found.high.value) == (plain.bias, plain.low, plain.high)
    assert plain.low == pytest.approx(-2.1176 - 1.96 * 38.7651, abs=1e-3)
    assert bland_altman([0.1]).low is None
    with pytest.raises(ValueError, match="at least two"):
        limits_with_intervals([0.1])


def test_with_one_level_a_patient_the_bootstraps_limits_are_about_those_of_the_t_distribution() -> None:
    differences = np.random.default_rng(1).normal(0.02, 0.05, size=300)
    drawn = limits_over_patients(differences, np.arange(300), patient_weights(300, 4000))
    plain = limits_with_intervals(differences)
    for one, other in ((drawn.bias, plain.bias), (drawn.low, plain.low), (drawn.high, plain.high)):
        assert one.value == other.value
        assert np.diff(_bounds(one)) == pytest.approx(np.diff(_bounds(other)), rel=0.15)


def test_moments_of_draws_are_those_of_the_drawn_values() -> None:
    rng = np.random.default_rng(2)
    values, patients = rng.normal(100.0, 0.1, size=40), rng.integers(8, size=40)
    weights = patient_weights(8, 20, seed=3)
    count, mean, variance = drawn_moments(values, patients, weights)
    for draw in range(20):
        drawn = np.concatenate([np.repeat(values[patients == p], weights[draw, p]) for p in range(8)])
        assert count[draw] == len(drawn)
        assert mean[draw] == pytest.approx(drawn.mean())
        assert variance[draw] == pytest.approx(drawn.var(ddof=1))


def test_the_icc_of_shrout_and_fleiss_comes_out() -> None:
    """ICC(2,1) is 0.29 in the paper; R's `psych::ICC` adds the interval 0.019 to 0.761."""
    found = icc_a1(SHROUT_FLEISS)
    assert found.value == pytest.approx(0.29, abs=5e-3)
    assert _bounds(found) == pytest.approx((0.019, 0.761), abs=6e-4)


def test_the_icc_of_two_raters_over_patients_is_the_same_number() -> None:
    first, second = np.array(SHROUT_FLEISS, float)[:, 0], np.array(SHROUT_FLEISS, float)[:, 1]
    expected = icc_a1(np.stack([first, second], axis=1)).value
    assert icc_over_patients(first, second, np.arange(6)).value == expected
    weights = patient_weights(3, 40)
    pairs = np.stack([first, second], axis=1).reshape(3, 2, 2)
    values = [icc_a1(np.repeat(pairs, draw, axis=0).reshape(-1, 2)).value for draw in weights]
    drawn = icc_over_patients(first, second, np.repeat(np.arange(3), 2), weights)
    assert _bounds(drawn) == pytest.approx(tuple(np.percentile(np.array(values, float), [2.5, 97.5])))


def test_with_one_level_a_patient_the_bootstraps_icc_is_about_that_of_mcgraw_and_wong() -> None:
    rng = np.random.default_rng(4)
    true = rng.normal(size=300)
    first, second = true + 0.5 * rng.normal(size=300), true + 0.5 * rng.normal(size=300) + 0.1
    drawn = icc_over_patients(first, second, np.arange(300), patient_weights(300, 3000))
    assert _bounds(drawn) == pytest.approx(_bounds(icc_a1(np.stack([first, second], axis=1))), abs=0.015)


def test_a_shift_lowers_the_icc_of_absolute_agreement() -> None:
    values = np.arange(20.0)
    assert icc_a1(np.stack([values, values], axis=1)).value == 1.0
    shifted = icc_a1(np.stack([values, values + 5], axis=1)).value
    assert shifted is not None
    assert shifted < 0.9
    assert icc_a1(np.ones((5, 2))).value is None
    with pytest.raises(ValueError, match="two subjects"):
        icc_a1([[1.0, 2.0]])


def test_the_depression_example_of_r_comes_out() -> None:
    """R prints V = 40 and, one-sided, p-value = 0.01953; Hollander & Wolfe's estimate is 0.46."""
    found = signed_rank_test(np.subtract(*DEPRESSION))
    assert (found.pairs, found.statistic) == (9, 40.0)
    assert found.p_value == pytest.approx(2 * 0.01953, abs=1e-5)
    assert found.median_difference == pytest.approx(0.46)


def test_ties_and_many_pairs_take_the_normal_distribution() -> None:
    """The formula by hand: mean n(n+1)/4, variance n(n+1)(2n+1)/24 without ties, half a rank for
    continuity."""
    differences = np.random.default_rng(5).normal(0.3, 1.0, size=60)
    found = signed_rank_test(differences)
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    v = ranks[differences > 0].sum()
    z = (abs(v - 60 * 61 / 4) - 0.5) / np.sqrt(60 * 61 * 121 / 24)
    assert found.statistic == v
    assert found.p_value == pytest.approx(2 * norm.sf(z))


def test_differences_of_zero_decide_nothing() -> None:
    assert signed_rank_test([0.0, 0.0]).p_value is None
    found = signed_rank_test([0.0, *np.subtract(*DEPRESSION)])
    assert (found.pairs, found.statistic) == (10, 40.0)
    assert hodges_lehmann([1.0, 2.0, 9.0]) == pytest.approx(3.5)


def test_errors_and_shares_of_nothing_are_unknown() -> None:
    assert error_statistics([]) == ErrorStatistics(0, None, None)
    assert error_statistics([0.1, -0.3]) == ErrorStatistics(2, pytest.approx(-0.1), pytest.approx(0.2))
    assert share([]) is None
    assert share([True, False, True, True]) == 0.75
