"""The expected calibration error on probabilities whose error is known."""

from __future__ import annotations

import numpy as np
import pytest
from held_out_cases import UNUSABLE_CASES, drawn_cases, softmax

from stenosis_trt.bench.statistics.calibration import expected_calibration_error


def test_calibrated_probabilities_have_little_error_and_sharpened_ones_much() -> None:
    logits, targets = drawn_cases(20000)
    assert expected_calibration_error(softmax(logits), targets) < 0.012
    assert expected_calibration_error(softmax(3.0 * logits), targets) > 0.1


def test_the_error_is_that_computed_by_hand() -> None:
    """Six cases at 0.95, four of them right, and four at 0.55, three of them right; ten bins:
    0.6 · |4/6 − 0.95| + 0.4 · |3/4 − 0.55| = 0.17 + 0.08."""
    sure, unsure = [0.95, 0.05], [0.45, 0.55]
    probabilities = np.array([sure] * 6 + [unsure] * 4)
    targets = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    assert expected_calibration_error(probabilities, targets, bins=10) == pytest.approx(0.25)
    # One bin for all: 7 of 10 are right, and the mean is 0.79.
    assert expected_calibration_error(probabilities, targets, bins=1) == pytest.approx(0.09)


def test_a_bin_has_its_upper_end_and_not_its_lower() -> None:
    """At 0.5 right and at 0.6 wrong: in one bin of two they would cancel to 0.05, apart they do not."""
    probabilities = np.array([[0.5, 0.5], [0.4, 0.6]])
    assert expected_calibration_error(probabilities, np.array([0, 0]), bins=2) == pytest.approx(0.55)


def test_sure_and_right_is_no_error_and_sure_and_wrong_is_all_of_it() -> None:
    assert expected_calibration_error(np.eye(4), np.arange(4)) == 0.0
    assert expected_calibration_error(np.eye(4), np.arange(4)[::-1]) == 1.0


@pytest.mark.parametrize(("values", "targets", "words"), UNUSABLE_CASES)
def test_what_cannot_be_used_is_said(values: np.ndarray, targets: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        expected_calibration_error(values, targets)


def test_logits_are_no_probabilities_and_no_bins_hold_nothing() -> None:
    with pytest.raises(ValueError, match="after the softmax"):
        expected_calibration_error(np.array([[3.0, -1.0]]), np.array([0]))
    with pytest.raises(ValueError, match="0 bins"):
        expected_calibration_error(np.eye(2), np.arange(2), bins=0)
