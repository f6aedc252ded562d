"""Comparison of results with truth, on tables with known statistics."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from time_limits import time_limit

from stenosis_trt.bench.accuracy.compare import (
    LevelPair,
    OperatedLevels,
    compare_with_truth,
    operated_levels,
    pair_levels,
)
from stenosis_trt.bench.statistics.kappa import quadratic_kappa
from stenosis_trt.bench.statistics.signed_errors import ErrorStatistics
from stenosis_trt.engine.runs.table_files import CsvFormat, CsvTable
from stenosis_trt.engine.runs.tables import RESULT_COLUMNS, Row


def _pair(study: str, true_grade: int, grade: int | None, error: float = 0.0) -> LevelPair:
    ratio = None if grade is None else 0.5 + error
    return LevelPair(study, "C4/5", true_grade, grade, 0.5, 0.45, ratio, None if grade is None else 1.0)


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
    figures = compare_with_truth([_pair("a", 0, 0), _pair("b", 1, 1), _pair("c", 2, None), _pair("d", 3, 3)])
    assert figures.accuracy == pytest.approx(0.75)
    assert figures.graded == 3
    assert figures.found_within_4_mm == pytest.approx(0.75)


def test_bias_keeps_its_sign() -> None:
    figures = compare_with_truth([_pair("a", 0, 0, 0.02), _pair("b", 1, 1, 0.04), _pair("c", 3, 3, -0.01)])
    assert figures.ratio_bias == pytest.approx(0.05 / 3)
    assert figures.ratio_mean_absolute_error == pytest.approx(0.07 / 3)


def test_the_narrowest_places_bias_holds_what_slices_miss_and_leaves_out_what_is_not_known() -> None:
    pairs = [_pair("a", 0, 0, 0.02), _pair("b", 1, 1, 0.04), _pair("c", 3, 3, -0.01)]
    assert compare_with_truth(pairs).narrowest_ratio_bias == pytest.approx(0.05 / 3 + 0.05)
    known = [replace(pair, narrowest_ratio=None) for pair in pairs[1:]]
    assert compare_with_truth([pairs[0], *known]).narrowest_ratio_bias == pytest.approx(0.07)
    assert compare_with_truth([replace(pairs[0], narrowest_ratio=None), *known]).narrowest_ratio_bias is None


def test_a_level_whose_true_ratio_no_slice_shows_counts_for_its_grade_alone() -> None:
    pairs = [_pair("a", 0, 0, 0.02), _pair("b", 1, 1, 0.04), replace(_pair("c", 3, 3, 9.0), true_ratio=None)]
    figures = compare_with_truth(pairs)
    assert figures.accuracy == 1.0
    assert figures.ratio_bias == pytest.approx(0.03)
    assert figures.ratio_error_by_true_grade[3] == ErrorStatistics(0, None, None)


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


def test_the_narrowest_ratio_is_read_where_the_truth_has_it(tmp_path: Path) -> None:
    rows = [_row("1", "C2/3", "0", "0.6", "0"), _row("1", "C3/4", "2", "", "0")]
    results = _write(tmp_path / "results.csv", rows)
    old = pair_levels(results, _write(tmp_path / "old.csv", rows))
    assert [(pair.true_ratio, pair.narrowest_ratio) for pair in old] == [(0.6, None), (None, None)]
    columns = [row | {"narrowest_ratio": ratio} for row, ratio in zip(rows, ("0.55", "0.3"), strict=True)]
    new = pair_levels(results, _write(tmp_path / "new.csv", columns))
    assert [(pair.true_ratio, pair.narrowest_ratio) for pair in new] == [(0.6, 0.55), (None, 0.3)]


def _with_metal(folder: Path) -> tuple[Path, Path]:
    """Results and truth of six levels, of which four must not be graded."""
    levels = ("C2/3", "C3/4", "C4/5", "C5/6", "C6/7", "C7/T1")
    true = [_row("1", level, "" if k else "0", "0.5", "0") for k, level in enumerate(levels)]
    truth = [row | {"narrowest_ratio": "0.5" if k < 5 else ""} for k, row in enumerate(true)]
    found = [_row("1", level, "1" if k < 2 else "", "0.5", "0") for k, level in enumerate(levels)]
    warnings = ("", "", "out_of_distribution;cord_not_found", "signal_void", "level_not_found", "")
    results = [row | {"warnings": text} for row, text in zip(found, warnings, strict=True)]
    return _write(folder / "results.csv", results), _write(folder / "truth.csv", truth)


def test_levels_that_must_not_be_graded_are_counted_as_refused_or_graded(tmp_path: Path) -> None:
    results, truth = _with_metal(tmp_path)
    assert operated_levels(results, truth) == OperatedLevels(levels=4, refused=2, graded=1)
    # They count neither as misses nor as hits, and a level that is merely open is none of them.
    assert [pair.level for pair in pair_levels(results, truth)] == ["C2/3"]


def test_the_command_tells_of_levels_that_must_not_be_graded(tmp_path: Path) -> None:
    results, truth = _with_metal(tmp_path)
    answer = _call(results, truth, "--out", tmp_path / "figures.json")
    assert answer.returncode == 0
    assert "must_not_be_graded           4 levels, 2 refused, 1 graded\n" in answer.stdout
    operated = json.loads((tmp_path / "figures.json").read_text())["operated"]
    assert operated == {"levels": 4, "refused": 2, "graded": 1}
    assert (
        "must_not_be_graded"
        not in _call(truth, _write(tmp_path / "t", [_row("1", "C2/3", "0", "0.5", "0")])).stdout
    )


def test_results_of_other_studies_are_refused(tmp_path: Path) -> None:
    truth = _write(tmp_path / "truth.csv", [_row("1", "C2/3", "0", "0.6", "0")])
    results = _write(tmp_path / "results.csv", [_row("2", "C2/3", "0", "0.6", "0")])
    with pytest.raises(ValueError, match="no study in common"):
        pair_levels(results, truth)


def test_the_calibration_error_is_that_of_the_graded_levels(tmp_path: Path) -> None:
    """Two levels at 0.9, one of them right: |0.5 − 0.9|; one without a grade, one without probabilities."""
    levels = ("C2/3", "C3/4", "C4/5", "C5/6")
    truth = [_row("1", level, "1", "0.6", "0") for level in levels]
    found = [_row("1", level, grade, "0.6", "0") for level, grade in zip(levels, "121", strict=False)]
    found.append(_row("1", "C5/6", "", "0.6", "0"))
    sure = [("0.1", "0.9", "0", "0"), ("0.05", "0.05", "0.9", "0"), ("", "", "", ""), ("1", "0", "0", "0")]
    rows = [
        row | dict(zip(("p0", "p1", "p2", "p3"), values, strict=True))
        for row, values in zip(found, sure, strict=True)
    ]
    tables = _write(tmp_path / "results.csv", rows), _write(tmp_path / "truth.csv", truth)
    assert compare_with_truth(pair_levels(*tables)).calibration_error == pytest.approx(0.4)
    without = _write(tmp_path / "plain.csv", found), tables[1]
    assert compare_with_truth(pair_levels(*without)).calibration_error is None
    answer = _call(*tables)
    assert "calibration_error            0.4\n" in answer.stdout


_READER = """study_uid,level,kang_grade
1,C2/3,0
1,C3/4,2
1,C4/5,
"""


@pytest.mark.parametrize(
    "content",
    [_READER, "\ufeff" + _READER, _READER.replace(",", ";"), "\ufeff" + _READER.replace(",", ";")],
    ids=["plain", "with a mark", "with semicolons", "with both"],
)
def test_a_readers_grades_are_compared_however_they_were_saved(content: str, tmp_path: Path) -> None:
    """A level that the reader left open is not in the truth; ratios and distances are not known."""
    (tmp_path / "reader.csv").write_text(content, encoding="utf-8")
    rows = [
        _row("1", "C2/3", "0", "0.6", "1"),
        _row("1", "C3/4", "1", "0.5", "1"),
        _row("1", "C4/5", "1", "", ""),
    ]
    pairs = pair_levels(_write(tmp_path / "results.csv", rows), tmp_path / "reader.csv")
    assert [(pair.level, pair.true_grade, pair.grade) for pair in pairs] == [("C2/3", 0, 0), ("C3/4", 2, 1)]
    figures = compare_with_truth(pairs)
    assert figures.accuracy == 0.5
    assert (
        figures.ratio_bias is figures.ratio_limits_of_agreement is figures.ratio_mean_absolute_error is None
    )
    assert figures.found_within_4_mm is figures.median_distance_mm is None


def test_results_in_the_form_for_a_spreadsheet_are_compared_like_the_others(tmp_path: Path) -> None:
    row: Row = dict.fromkeys(RESULT_COLUMNS, "") | {"study_uid": "1", "level": "C2/3", "kang_grade": 1}
    row |= {"compression_ratio": 0.625, "x_mm": -1.5, "y_mm": 2.25, "z_mm": 0.0}
    pairs = []
    for mark in (None, ",", "."):
        with (tmp_path / "results.csv").open("w", newline="", encoding="utf-8") as stream:
            CsvTable(stream, RESULT_COLUMNS, CsvFormat(mark)).add([row])
        pairs.append(pair_levels(tmp_path / "results.csv", tmp_path / "results.csv"))
    assert pairs[0] == pairs[1] == pairs[2]
    assert (pairs[1][0].ratio, pairs[1][0].distance_mm) == (0.625, 0.0)


def test_levels_of_which_none_was_found_are_none_within_4_mm() -> None:
    figures = compare_with_truth([_pair("a", 0, None), _pair("b", 1, None)])
    assert (figures.found_within_4_mm, figures.median_distance_mm) == (0.0, None)


def test_the_ratios_error_is_given_for_each_true_grade() -> None:
    pairs = [_pair("a", 0, 0, 0.02), _pair("b", 0, 1, -0.04), _pair("c", 3, 3, 0.1), _pair("d", 2, None)]
    none, mild, moderate, severe = compare_with_truth(pairs).ratio_error_by_true_grade
    assert (none.measured, none.bias) == (2, pytest.approx(-0.01))
    assert none.mean_absolute_error == pytest.approx(0.03)
    assert (severe.measured, severe.bias) == (1, pytest.approx(0.1))
    assert mild == moderate == ErrorStatistics(0, None, None)


def _call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stenosis_trt.bench.accuracy.compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit(60))


def test_the_command_needs_numpy_alone(tmp_path: Path) -> None:
    """It runs where the extras are not installed."""
    rows = [_row(str(k), "C2/3", str(k % 2), "0.5", "0") for k in range(4)]
    table = _write(tmp_path / "t.csv", rows)
    program = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(('scipy', 'sklearn', 'statsmodels', 'matplotlib')))\n"
        f"sys.argv = ['compare', {str(table)!r}, {str(table)!r}]\n"
        "runpy.run_module('stenosis_trt.bench.accuracy.compare', run_name='__main__')\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "kappa_low" in answer.stdout


def test_the_command_prints_a_line_a_grade_and_writes_valid_json(tmp_path: Path) -> None:
    rows = [_row(str(k), "C2/3", str(k % 2), "0.5", "0") for k in range(4)]
    truth, results = _write(tmp_path / "truth.csv", rows), _write(tmp_path / "results.csv", rows)
    answer = _call(results, truth, "--out", tmp_path / "figures.json")
    assert answer.returncode == 0
    lines = [line.split(maxsplit=1) for line in answer.stdout.splitlines() if "at_grade" in line]
    assert lines[0] == ["ratio_error_at_grade_0", "2 measured, bias +0.0000, mean absolute error 0.0000"]
    assert lines[3] == ["ratio_error_at_grade_3", "0 measured"]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["ratio_error_by_true_grade"][3]["bias"] is None


@pytest.mark.parametrize(("name", "words"), [("other", "no study in common"), ("gone", "No such file")])
def test_what_cannot_be_compared_ends_with_2_and_one_line(name: str, words: str, tmp_path: Path) -> None:
    truth = _write(tmp_path / "truth.csv", [_row("1", "C2/3", "0", "0.6", "0")])
    _write(tmp_path / "other", [_row("2", "C2/3", "0", "0.6", "0")])
    answer = _call(tmp_path / name, truth)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert words in line


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    table = _write(tmp_path / "errors.csv", [{"path": "/x", "stage": "find"}])
    answer = _call(table, table)
    assert answer.returncode == 2
    assert "has no column study_uid" in answer.stderr


def test_a_truth_without_any_grade_is_refused(tmp_path: Path) -> None:
    truth = _write(tmp_path / "truth.csv", [_row("1", "C2/3", "", "", "")])
    answer = _call(truth, truth)
    assert answer.returncode == 2
    assert answer.stderr.startswith("compare: The truth has no level with a grade.")


def test_two_patients_rows_of_one_study_uid_are_refused(tmp_path: Path) -> None:
    truth = _write(tmp_path / "truth.csv", [_row("1", "C2/3", "0", "0.6", "0")])
    results = _write(
        tmp_path / "results.csv", [_row("1", "C2/3", "0", "0.6", "0"), _row("1", "C2/3", "2", "", "")]
    )
    with pytest.raises(ValueError, match="two rows of study 1 and level C2/3: patients share"):
        pair_levels(results, truth)
