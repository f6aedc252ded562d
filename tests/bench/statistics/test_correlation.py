"""Correlations and tests between them against R's documented output."""

from __future__ import annotations

import numpy as np
import pytest

from stenosis_trt.bench.statistics.correlation import compare_correlations, pearson, spearman
from stenosis_trt.bench.statistics.estimates import Estimate

TUNA = ((44.4, 45.9, 41.9, 53.3, 44.7, 44.1, 50.7, 45.2, 60.1), (2.6, 3.1, 2.5, 5.0, 3.6, 4.0, 5.2, 2.8, 3.8))
"""Canned tuna, lightness and panel score: Hollander & Wolfe 1973; the example of R's `cor.test`."""


def _bounds(figure: Estimate) -> tuple[float, float]:
    assert figure.low is not None
    assert figure.high is not None
    return figure.low, figure.high


def test_the_example_of_rs_cor_test_comes_out() -> None:
    """R prints 0.5711816, p-value = 0.1082 and −0.1497426 to 0.8955795; Spearman's rho is 0.6."""
    found = pearson(*TUNA)
    assert found.subjects == 9
    assert found.coefficient.value == pytest.approx(0.5711816, abs=5e-8)
    assert found.p_value == pytest.approx(0.1082, abs=5e-5)
    assert _bounds(found.coefficient) == pytest.approx((-0.1497426, 0.8955795), abs=5e-8)
    assert spearman(*TUNA).coefficient.value == pytest.approx(0.6)


def test_the_interval_of_spearman_is_bonett_and_wrights() -> None:
    """Their formula by hand, as no printed example was at hand: tanh(atanh r ± 1.96 √((1 + r²/2)/(n −
    3)))."""
    half = 1.959964 * np.sqrt((1 + 0.36 / 2) / 6)
    expected = np.tanh(np.arctanh(0.6) + np.array([-half, half]))
    assert _bounds(spearman(*TUNA).coefficient) == pytest.approx(tuple(expected), abs=1e-6)


def test_that_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    true = 6 / np.pi * np.arcsin(0.5 / 2)
    hits = 0
    for _ in range(400):
        x = rng.normal(size=60)
        low, high = _bounds(spearman(x, 0.5 * x + np.sqrt(0.75) * rng.normal(size=60)).coefficient)
        hits += low <= true <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_constant_variable_and_few_subjects_have_no_correlation() -> None:
    for method in (pearson, spearman):
        assert method([1, 2, 3, 4], [5, 5, 5, 5]).coefficient == Estimate(None)
        assert method([1, 2, 3], [1, 2, 4]).p_value is None


def test_williams_t_is_that_of_the_r_package_psych() -> None:
    """From the help of `r.test`, whose comment has p = 0.1000759 for these three correlations."""
    found = compare_correlations(0.693458895410494, 0.695966022434845, 0.988475791500198, 5105)
    assert found.williams_p == pytest.approx(0.1000759, abs=5e-8)


def test_steigers_case_a_is_that_of_the_r_package_psych() -> None:
    """`r.test(n=103, r12=.4, r13=.5, r23=.1)`, Steiger 1980, case A: t = −0.89, p = 0.37."""
    found = compare_correlations(0.4, 0.5, 0.1, 103)
    assert found.williams_t == pytest.approx(-0.89, abs=5e-3)
    assert found.williams_p == pytest.approx(0.37, abs=5e-3)
    assert found.steiger_z == pytest.approx(-0.89, abs=5e-3)


def test_williams_t_is_that_of_the_r_package_brucer() -> None:
    """From the help of `cor_diff`: r 0.20 and 0.45, rcov 0.80, n = 100 give t(97) = −4.56, p = 1e-05."""
    found = compare_correlations(0.20, 0.45, 0.80, 100)
    assert found.williams_t == pytest.approx(-4.56, abs=5e-3)
    assert found.williams_p == pytest.approx(1e-5, abs=5e-6)


@pytest.mark.parametrize(
    ("first", "second", "between", "n", "t", "z", "zou"),
    [
        (0.8066, 0.2383, 0.2255, 177, 9.3823, 8.5460, (0.4288, 0.7139)),
        (-0.1741, 0.2015, 0.3734, 646, -9.0340, -8.6124, (-0.4568, -0.2921)),
    ],
    ids=["the vignette of rmcorr", "a course on psychometrics"],
)
def test_all_tests_are_those_of_the_r_package_cocor(
    first: float, second: float, between: float, n: int, t: float, z: float, zou: tuple[float, float]
) -> None:
    """Printed outputs: williams1959, steiger1980 and zou2007. They round the correlations to four
    decimals."""
    found = compare_correlations(first, second, between, n)
    assert found.williams_t == pytest.approx(t, rel=3e-4)
    assert found.steiger_z == pytest.approx(z, rel=3e-4)
    assert _bounds(found.difference) == pytest.approx(zou, abs=2e-4)


def test_the_interval_of_zou_2007_comes_out() -> None:
    """Zou, Psychological Methods 2007;12:399, overlapping example, n = 66: −0.093 to 0.517."""
    found = compare_correlations(0.396, 0.179, 0.088, 66)
    assert found.difference.value == pytest.approx(0.217)
    assert _bounds(found.difference) == pytest.approx((-0.093, 0.517), abs=5e-4)


def test_correlations_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="±1"):
        compare_correlations(1.0, 0.5, 0.5, 50)
    with pytest.raises(ValueError, match="four subjects"):
        compare_correlations(0.4, 0.5, 0.5, 3)
