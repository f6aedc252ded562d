"""Cohen's kappa against published examples and R, its interval against the asymptotic one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from stenosis_trt.bench.statistics.bootstrap import NO_SPREAD, patient_weights
from stenosis_trt.bench.statistics.estimates import Estimate
from stenosis_trt.bench.statistics.kappa import (
    WEIGHTINGS,
    kappa,
    kappa_difference,
    kappa_estimate,
    kappa_interval,
    weighted_kappa,
)

COHEN_1968 = 200 * np.array([[0.44, 0.07, 0.09], [0.05, 0.20, 0.05], [0.01, 0.03, 0.06]])
"""Diagnoses of two psychiatrists: Cohen, Psychological Bulletin 1968;70:213, table 1; also in R's psych."""
SEXUAL_FUN = np.array([[7, 7, 2, 3], [2, 8, 3, 7], [1, 5, 4, 9], [2, 8, 9, 14]])
"""R's vcd, data set SexualFun: answers of couples in four ordered categories (Agresti 1990)."""


def _patients(count: int, levels: int, seed: int) -> np.ndarray:
    """Confusion matrices of patients with so many levels, where the second rater errs at 30 %."""
    rng = np.random.default_rng(seed)
    tables = np.zeros((count, 4, 4), np.int64)
    for table in tables:
        for grade in rng.integers(4, size=levels):
            table[grade, grade if rng.random() < 0.7 else rng.integers(4)] += 1
    return tables


def test_the_example_of_cohen_1968_comes_out() -> None:
    assert weighted_kappa(COHEN_1968, [[0, 1, 3], [1, 0, 6], [3, 6, 0]]) == pytest.approx(0.348, abs=5e-4)
    assert kappa(COHEN_1968, "unweighted") == pytest.approx(0.492, abs=5e-4)


def test_the_example_of_fleiss_comes_out() -> None:
    """Fleiss, Statistical Methods for Rates and Proportions, 1981, table 13.1: kappa 0.68."""
    table = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
    assert kappa(table, "unweighted") == pytest.approx(0.676, abs=5e-4)


@pytest.mark.parametrize(
    ("weighting", "printed"), [("unweighted", 0.1293), ("linear", 0.2374), ("quadratic", 0.3320)]
)
def test_all_weightings_are_those_of_the_r_package_vcd(weighting: str, printed: float) -> None:
    """`Kappa(SexualFun)` prints 0.1293 and 0.2374, and 0.3320 with Fleiss-Cohen weights."""
    assert kappa(SEXUAL_FUN, weighting) == pytest.approx(printed, abs=6e-5)


@pytest.mark.parametrize(
    ("weighting", "name"), [("unweighted", None), ("linear", "linear"), ("quadratic", "quadratic")]
)
def test_scikit_learn_computes_the_same_with_fixed_labels(weighting: str, name: str | None) -> None:
    """Grade 3 occurs for neither rater: scikit-learn is told of it, and the table has its row."""
    first, second = np.random.default_rng(5).integers(3, size=(2, 80))
    table = np.zeros((4, 4), np.int64)
    np.add.at(table, (first, second), 1)
    expected = cohen_kappa_score(first, second, labels=[0, 1, 2, 3], weights=name)
    assert kappa(table, weighting) == pytest.approx(expected)


def test_kappa_is_undefined_without_cases_and_with_one_category_alone() -> None:
    assert np.isnan(kappa(np.zeros((4, 4)), "linear"))
    assert np.isnan(kappa(np.diag([9, 0, 0, 0]), "linear"))
    assert kappa_estimate(np.zeros((3, 4, 4), np.int64), "linear", patient_weights(3, 50)).value is None


def test_a_weighting_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="unweighted, linear, quadratic"):
        kappa(SEXUAL_FUN, "cubic")


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_with_one_level_a_patient_the_interval_is_about_the_asymptotic_one(weighting: str) -> None:
    """statsmodels has the variance of Fleiss, Cohen & Everitt, Psychological Bulletin 1969;72:323."""
    tables = _patients(400, 1, seed=11)
    weights = {"unweighted": None, "linear": "linear", "quadratic": "quadratic"}[weighting]
    asymptotic = cohens_kappa(tables.sum(axis=0), wt=weights)
    low, high = kappa_interval(tables, weighting, rounds=4000)
    assert (high - low) / (2 * 1.96) == pytest.approx(asymptotic.std_kappa, rel=0.06)
    assert low < asymptotic.kappa < high


def test_levels_of_a_patient_that_err_together_widen_the_interval() -> None:
    single = _patients(60, 1, seed=3)
    together = np.repeat(single, 6, axis=0)
    narrow = np.diff(kappa_interval(together))[0]
    wide = np.diff(kappa_interval(single * 6))[0]
    assert wide > 1.8 * narrow


def test_the_gates_interval_is_what_it_was() -> None:
    """Packs were gated with 1000 draws of `default_rng(0).integers`, patient by patient."""
    tables = _patients(17, 6, seed=2)
    rng = np.random.default_rng(0)
    drawn = [kappa(tables[draw].sum(axis=0), "quadratic") for draw in rng.integers(17, size=(1000, 17))]
    assert kappa_interval(tables) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=1e-12)


def test_no_patients_give_no_interval() -> None:
    assert np.isnan(kappa_interval(np.zeros((0, 4, 4), np.int64))).all()


def test_a_rater_does_not_differ_from_itself() -> None:
    tables = _patients(30, 6, seed=4)
    found = kappa_difference(tables, tables, "quadratic", patient_weights(30, 500))
    assert found.difference == Estimate(0.0, method=NO_SPREAD)
    assert found.p_value == 1.0
    assert found.first == found.second


def test_a_kappa_of_1_has_no_interval_since_no_draw_can_show_an_error() -> None:
    tables = np.zeros((12, 4, 4), np.int64)
    tables[:, 0, 0] = tables[:, 2, 2] = 3
    assert kappa_estimate(tables, "linear", patient_weights(12, 300)) == Estimate(1.0, method=NO_SPREAD)
    # The gate's interval is the percentiles whatever they are.
    assert kappa_interval(tables) == (1.0, 1.0)


def test_the_interval_of_a_difference_is_about_that_of_the_jackknife() -> None:
    """No published example of a paired difference over patients was found: the delete-one jackknife stands
    for it."""
    first, second = _patients(150, 5, seed=6), _patients(150, 5, seed=7)
    found = kappa_difference(first, second, "linear", patient_weights(150, 4000))
    totals = first.sum(axis=0), second.sum(axis=0)
    left_out = np.array(
        [
            kappa(totals[0] - first[patient], "linear") - kappa(totals[1] - second[patient], "linear")
            for patient in range(150)
        ]
    )
    error = np.sqrt(149 / 150 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.difference.low is not None
    assert found.difference.high is not None
    assert (found.difference.high - found.difference.low) / (2 * 1.96) == pytest.approx(error, rel=0.06)


def test_a_difference_of_paired_raters_is_narrower_than_of_independent_ones() -> None:
    first = _patients(80, 6, seed=8)
    second = first.copy()
    second[0] = np.roll(second[0], 1, axis=1)
    paired = kappa_difference(first, second, "quadratic", patient_weights(80, 1000)).difference
    apart = kappa_difference(
        first, _patients(80, 6, seed=9), "quadratic", patient_weights(80, 1000)
    ).difference
    assert paired.high is not None
    assert paired.low is not None
    assert apart.high is not None
    assert apart.low is not None
    assert paired.high - paired.low < 0.3 * (apart.high - apart.low)
