"""Sensitivity, specificity, accuracy, areas, folds, corrections: published examples and formulas."""

from __future__ import annotations

import numpy as np
import pytest

from stenosis_trt.bench.statistics.bootstrap import (
    NO_SPREAD,
    bootstrap_p_value,
    draw_patients,
    patient_weights,
    percentile_interval,
)
from stenosis_trt.bench.statistics.confusion import (
    EXACT,
    accuracy_estimate,
    class_figures,
    confusion_by_patient,
    exact_interval,
    merge_classes,
)
from stenosis_trt.bench.statistics.estimates import Estimate
from stenosis_trt.bench.statistics.folds import fold_table
from stenosis_trt.bench.statistics.multiple_comparisons import holm
from stenosis_trt.bench.statistics.roc import area_under_curve

LIVER = np.array([[54, 32], [27, 231]])
"""Liver scan and pathology: Altman & Bland, BMJ 1994;308:1552 and 309:102. Rows: normal, abnormal."""
HANLEY_MCNEIL = ((33, 6, 6, 11, 2), (3, 2, 2, 11, 33))
"""109 CT readings in five categories, normal and abnormal: Hanley & McNeil, Radiology 1982;143:29, table
I."""


def _bounds(figure: Estimate) -> tuple[float, float]:
    assert figure.low is not None
    assert figure.high is not None
    return figure.low, figure.high


def test_the_liver_scans_of_altman_and_bland_come_out() -> None:
    """Printed: sensitivity 0.90, specificity 0.63, positive predictive value 0.88, negative 0.67."""
    found = class_figures(LIVER[None], 1)
    shares = (
        found.sensitivity,
        found.specificity,
        found.positive_predictive_value,
        found.negative_predictive_value,
    )
    assert found.cases == 258
    assert [item.value for item in shares] == pytest.approx([0.90, 0.63, 0.88, 0.67], abs=5e-3)
    # The other class exchanges them.
    assert class_figures(LIVER[None], 0).sensitivity == found.specificity
    assert accuracy_estimate(LIVER[None]).value == pytest.approx(285 / 344)


def test_the_exact_interval_is_that_of_rs_binom_test() -> None:
    """The example of `binom.test(682, 925)`, Mendel's peas: 0.7076683 to 0.7654066."""
    assert exact_interval(682, 925) == pytest.approx((0.7076683, 0.7654066), abs=5e-8)


def test_with_one_level_a_patient_the_bootstrap_is_about_the_exact_interval() -> None:
    tables = np.zeros((300, 4, 4), np.int64)
    grades = np.random.default_rng(1).integers(4, size=300)
    wrong = np.random.default_rng(2).random(300) < 0.2
    np.add.at(tables, (np.arange(300), grades, np.where(wrong, (grades + 1) % 4, grades)), 1)
    found = accuracy_estimate(tables, patient_weights(300, 4000))
    assert _bounds(found) == pytest.approx(exact_interval(300 - int(wrong.sum()), 300), abs=0.012)


def test_a_share_of_one_has_the_exact_interval_and_says_so() -> None:
    """A bootstrap would give 1 to 1."""
    tables = np.zeros((20, 4, 4), np.int64)
    tables[:, 2, 2] = 1
    found = class_figures(tables, 2, patient_weights(20, 200))
    assert found.sensitivity == Estimate(1.0, pytest.approx(0.8316, abs=1e-4), 1.0, EXACT)
    # Rule of three, about: Hanley & Lippman-Hand, JAMA 1983;249:1743. No other grade: no specificity.
    assert found.specificity == Estimate(None)


def test_classes_merge_at_a_grade() -> None:
    tables = np.arange(32).reshape(2, 4, 4)
    merged = merge_classes(tables, 2)
    assert merged.shape == (2, 2, 2)
    assert merged[0].tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]


def test_a_level_without_one_of_the_grades_counts_for_its_patient_alone() -> None:
    tables = confusion_by_patient([("a", 1, 2), ("b", None, 2), ("a", 3, 3), ("b", 1, None)])
    assert tables.sum(axis=(1, 2)).tolist() == [2, 0]
    assert tables[0, 1, 2] == tables[0, 3, 3] == 1


def test_the_area_of_hanley_and_mcneil_comes_out() -> None:
    """Printed: area 0.893, standard error 0.032 from the areas' own Q1 and Q2."""
    scores = np.concatenate([np.repeat(np.arange(1, 6), counts) for counts in HANLEY_MCNEIL])
    positive = np.repeat([False, True], [58, 51])
    found = area_under_curve(positive, scores, np.arange(109), patient_weights(109, 3000))
    assert (found.positives, found.negatives) == (51, 58)
    assert found.area.value == pytest.approx(0.893, abs=5e-4)
    low, high = _bounds(found.delong)
    assert (high - low) / (2 * 1.96) == pytest.approx(0.032, abs=2e-3)
    assert _bounds(found.area) == pytest.approx((low, high), abs=0.02)


def test_delongs_variance_is_that_of_the_jackknife() -> None:
    """Its components are the jackknife's pseudo-values of each class (DeLong 1988): computed here by
    leaving out."""
    rng = np.random.default_rng(3)
    positive = rng.random(80) < 0.4
    scores = np.round(rng.normal(size=80) + positive, 1)
    found = area_under_curve(positive, scores, np.arange(80), patient_weights(80, 200))

    def area(kept: np.ndarray) -> float:
        above, below = scores[kept & positive], scores[kept & ~positive]
        return float(((above[:, None] > below) + 0.5 * (above[:, None] == below)).mean())

    variance = 0.0
    for of_class in (positive, ~positive):
        count = int(of_class.sum())
        left_out = [area(np.arange(80) != case) for case in np.flatnonzero(of_class)]
        variance += (count - 1) / count * np.var(left_out) * count
    low, high = _bounds(found.delong)
    assert (high - low) / (2 * 1.959964) == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_classes_that_do_not_overlap_have_an_area_of_1_without_an_interval() -> None:
    found = area_under_curve(np.arange(30) > 14, np.arange(30), np.arange(30), patient_weights(30, 200))
    assert found.area == Estimate(1.0, method=NO_SPREAD)
    assert found.delong == Estimate(1.0)


def test_one_class_alone_has_no_area() -> None:
    assert area_under_curve([True, True], [0.1, 0.9], np.arange(2)).area == Estimate(None)


def test_holms_correction_is_the_textbooks() -> None:
    """p 0.01, 0.04, 0.03, 0.005: as R's `p.adjust(method = "holm")` has them, 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_folds_have_their_own_figures_and_a_spread() -> None:
    tables = np.zeros((6, 4, 4), np.int64)
    tables[:, 0, 0] = tables[:, 1, 1] = 2
    tables[4:, 0, 1] = 4
    found = fold_table(tables, ["1", "1", "2", "2", "10", "10"])
    assert [fold.fold for fold in found.folds] == ["1", "2", "10"]
    assert [fold.accuracy for fold in found.folds] == [1.0, 1.0, 0.5]
    assert [fold.levels for fold in found.folds] == [8, 8, 16]
    assert found.mean_accuracy == pytest.approx(2.5 / 3)
    assert found.sd_accuracy == pytest.approx(np.std([1, 1, 0.5], ddof=1))
    assert found.folds[0].quadratic_kappa == 1.0


def test_draws_are_the_same_for_the_same_seed_and_draw_as_many_patients() -> None:
    weights = patient_weights(7, 50, seed=1)
    assert (weights == patient_weights(7, 50, seed=1)).all()
    assert (weights != patient_weights(7, 50, seed=2)).any()
    assert (weights.sum(axis=1) == 7).all()
    assert draw_patients(7, 50, seed=1).shape == (50, 7)


def test_a_p_value_of_draws_is_twice_the_smaller_side() -> None:
    assert bootstrap_p_value(np.r_[np.full(97, 1.0), -1.0, -1.0]) == pytest.approx(2 * 3 / 100)
    assert bootstrap_p_value(np.ones(99)) == pytest.approx(0.02)
    assert bootstrap_p_value(np.zeros(99)) == 1.0
    assert np.isnan(bootstrap_p_value([np.nan]))


def test_undefined_draws_are_left_out_of_an_interval() -> None:
    assert percentile_interval([np.nan, 1.0, 1.0]) == (1.0, 1.0)
    assert np.isnan(percentile_interval([np.nan])).all()
