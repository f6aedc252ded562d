"""Simulated readers err as often as they are told, and agree as published readers do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reader_tables import truth_rows, write_table

from stenosis_trt.bench.evaluation.raters import read_readers, read_truth
from stenosis_trt.bench.evaluation.simulated import ErrorRates, simulated_files, simulated_reader
from stenosis_trt.bench.statistics.confusion import confusion_by_patient
from stenosis_trt.bench.statistics.kappa import kappa


def test_a_reader_errs_at_its_rates(tmp_path: Path) -> None:
    truth = read_truth(write_table(tmp_path / "truth.csv", truth_rows(400)))
    rates = ErrorRates(near=0.2, far=0.05, missing=0.1)
    reader = simulated_reader(truth, rates, np.random.default_rng(0), "ann")
    shifts = [
        None if (grade := reader.levels[key].grade) is None else abs(grade - int(str(reading.grade)))
        for key, reading in truth.levels.items()
    ]
    assert shifts.count(None) / len(shifts) == pytest.approx(0.1, abs=0.03)
    assert shifts.count(1) / len(shifts) == pytest.approx(0.2, abs=0.03)
    assert shifts.count(2) / len(shifts) == pytest.approx(0.05, abs=0.02)
    assert shifts.count(3) == 0


def test_two_readers_agree_as_published_ones_do(tmp_path: Path) -> None:
    """Kappa from 0.665 to 0.799 between readers of the system of Kang et al., AJR 2011."""
    truth = read_truth(write_table(tmp_path / "truth.csv", truth_rows(200)))
    for name, data in simulated_files(truth, 2, ErrorRates(), seed=1).items():
        (tmp_path / name).write_bytes(data)
    one, two = read_readers([tmp_path / "reader_1.csv", tmp_path / "reader_2.csv"])
    table = confusion_by_patient(
        (key[0], reading.grade, two.levels[key].grade) for key, reading in one.levels.items()
    ).sum(axis=0)
    assert 0.665 <= kappa(table, "unweighted") <= 0.799


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    truth = read_truth(write_table(tmp_path / "truth.csv", truth_rows(5)))
    first, second, other = (simulated_files(truth, 2, ErrorRates(), seed) for seed in (1, 1, 2))
    assert first == second
    assert all(first[name] != other[name] for name in ("reader_1.csv", "scores.csv"))
    assert first["reader_1.csv"] != first["reader_2.csv"]


def test_rates_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        ErrorRates(near=0.9, far=0.2)


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stenosis_trt.bench.evaluation.simulated", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_readers_scores_and_folds(tmp_path: Path) -> None:
    truth = write_table(tmp_path / "truth.csv", truth_rows(5))
    assert _run(truth, tmp_path / "S", "--seed", 1).returncode == 0
    assert sorted(path.name for path in (tmp_path / "S").iterdir()) == [
        *("folds.csv", "reader_1.csv", "reader_2.csv", "scores.csv")
    ]


def test_the_command_says_in_one_line_what_it_cannot_do(tmp_path: Path) -> None:
    truth = write_table(tmp_path / "truth.csv", truth_rows(5))
    for arguments in ((tmp_path / "none.csv", tmp_path / "S"), (truth, tmp_path / "S", "--near", "2")):
        found = _run(*arguments)
        assert found.returncode == 2
        assert found.stderr.startswith("simulated: ")
        assert found.stderr.count("\n") == 1
        assert not (tmp_path / "S").exists()
