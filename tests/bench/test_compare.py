"""The comparison of results with truth, on tables whose figures are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from stenosis_trt.bench.compare import LevelPair, compare, pair_levels, quadratic_kappa


def _pair(study: str, true_grade: int, grade: int | None, error: float = 0.0) -> LevelPair:
    ratio = None if grade is None else 0.5 + error
    return LevelPair(study, "C4/5", true_grade, grade, 0.5, ratio, None if grade is None else 1.0)


def test_kappa_of_perfect_agreement_is_one() -> None:
    assert quadratic_kappa(np.diag([3, 4, 5, 6])) == pytest.approx(1.0)


def test_kappa_of_independent_raters_is_zero() -> None:
    assert quadratic_kappa(np.outer([1, 2, 3, 4], [4, 3, 2, 1])) == pytest.approx(0.0, abs=1e-12)


def test_kappa_agrees_with_a_worked_example() -> None:
    # Disagreement: 2 of weight 1 and 1 of weight 4 in 10 cases, against what the margins would give.
    table = np.array([[3, 1, 1], [0, 2, 1], [0, 0, 2]])
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    by_chance = sum(rows[i] * columns[j] * (i - j) ** 2 for i in range(3) for j in range(3)) / 10
    assert quadratic_kappa(table) == pytest.approx(1 - 6 / by_chance)


def test_far_misses_weigh_more_than_near_ones() -> None:
    near, far = np.diag([5, 5, 5, 5]), np.diag([5, 5, 5, 5])
    near[0, 1] = far[0, 3] = 2
    assert quadratic_kappa(far) < quadratic_kappa(near)


def test_an_ungraded_level_counts_as_a_miss() -> None:
    figures = compare([_pair("a", 0, 0), _pair("b", 1, 1), _pair("c", 2, None), _pair("d", 3, 3)])
    assert figures.accuracy == pytest.approx(0.75)
    assert figures.graded == 3
    assert figures.found_within_4_mm == pytest.approx(0.75)


def test_bias_keeps_its_sign() -> None:
    figures = compare([_pair("a", 0, 0, 0.02), _pair("b", 1, 1, 0.04), _pair("c", 3, 3, -0.01)])
    assert figures.ratio_bias == pytest.approx(0.05 / 3)
    assert figures.ratio_mean_absolute_error == pytest.approx(0.07 / 3)


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _row(study: str, level: str, grade: str, ratio: str, x: str) -> dict[str, str]:
    names = ("study_uid", "level", "kang_grade", "compression_ratio", "x_mm", "y_mm", "z_mm")
    return dict(zip(names, (study, level, grade, ratio, x, "0", "0"), strict=True))


def test_rows_are_joined_on_study_and_level(tmp_path: Path) -> None:
    truth = _write(
        tmp_path / "truth.csv", [_row("1", "C2/3", "0", "0.6", "0"), _row("1", "C3/4", "2", "0.4", "0")]
    )
    results = _write(
        tmp_path / "results.csv", [_row("1", "C3/4", "1", "0.45", "3"), _row("1", "C2/3", "", "", "")]
    )
    pairs = {pair.level: pair for pair in pair_levels(results, truth)}
    assert pairs["C2/3"].grade is None
    assert pairs["C3/4"].grade == 1
    assert pairs["C3/4"].distance_mm == pytest.approx(3.0)


def test_results_of_other_studies_are_refused(tmp_path: Path) -> None:
    truth = _write(tmp_path / "truth.csv", [_row("1", "C2/3", "0", "0.6", "0")])
    results = _write(tmp_path / "results.csv", [_row("2", "C2/3", "0", "0.6", "0")])
    with pytest.raises(ValueError, match="no study in common"):
        pair_levels(results, truth)
