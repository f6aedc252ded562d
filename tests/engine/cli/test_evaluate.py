"""`evaluate`: what it prints and writes, and bad input, each with one sentence and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reader_tables import (
    Rows,
    fold_rows,
    reader_rows,
    result_rows,
    score_rows,
    truth_rows,
    write_case,
    write_table,
)
from typer.testing import CliRunner, Result

from stenosis_trt.bench.evaluation import output
from stenosis_trt.engine.cli import app


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def _refused(result: Result) -> str:
    """The one sentence of a refusal."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("stenosis-trt: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("stenosis-trt: ").rstrip()


def test_two_readers_scores_and_folds_give_every_figure(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    rows = truth_rows(12)
    readers = [
        write_table(tmp_path / f"{name}.csv", reader_rows(rows, seed))
        for name, seed in (("ann", 3), ("ben", 4))
    ]
    scores = write_table(tmp_path / "scores.csv", score_rows(rows))
    folds = write_table(tmp_path / "folds.csv", fold_rows(rows))
    result = _run(
        *(results, truth, *readers, "--scores", scores, "--folds", folds),
        *("--out", tmp_path / "E", "--rounds", 200),
    )
    assert result.exit_code == 0, result.output
    for part in (
        "model against the truth: 72 levels of 12 patients; 0 not graded",
        "ann against the truth",
        "Raters with one another",
        "Do they differ?",
        "Tests between dependent correlations",
        "Folds, model against the truth",
        "Chen et al. 2025",
    ):
        assert part in result.stdout
    assert (tmp_path / "E" / "evaluation.json").is_file()
    assert (tmp_path / "E" / "evaluation.txt").read_text(encoding="utf-8") == result.stdout


def test_without_out_nothing_is_written(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    before = sorted(tmp_path.rglob("*"))
    result = _run(results / "results.csv", truth, "--rounds", 200)
    assert result.exit_code == 0, result.output
    assert sorted(tmp_path.rglob("*")) == before


def _other_version(results: Rows, truth: Rows) -> None:
    for row in results:
        del row["p3"]


def _missing_levels(results: Rows, truth: Rows) -> None:
    del truth[-1]


def _repeated(results: Rows, truth: Rows) -> None:
    truth.append(truth[0])


def _out_of_range(results: Rows, truth: Rows) -> None:
    truth[2]["kang_grade"] = 4


def _words(results: Rows, truth: Rows) -> None:
    truth[2]["compression_ratio"] = "narrow"


@pytest.mark.parametrize(
    ("change", "patients", "said"),
    [
        (
            _other_version,
            12,
            "results.csv has no column p3. Give the results of this version: grade the studies again.",
        ),
        (
            _missing_levels,
            12,
            "The truth has no row for C7/T1 of study 1.2.11 that the results have a grade for. "
            "Add the rows; leave kang_grade empty where there is no true grade.",
        ),
        (
            _repeated,
            12,
            "truth.csv, lines 2 and 74 are of the same study and level. Leave one row for each level.",
        ),
        (
            _out_of_range,
            12,
            "truth.csv, line 4: kang_grade is not 0, 1, 2 or 3. "
            "Correct the grade, or leave the cell empty where none was given.",
        ),
        (
            _words,
            12,
            "truth.csv, line 4: compression_ratio is not a number from 0 to 10. "
            "Correct the cell, or leave it empty.",
        ),
        (
            None,
            9,
            "The truth and model have graded levels of 9 patients in common, fewer than 10: intervals and "
            "tests would mean nothing. Give more patients, or --few-patients for figures without intervals "
            "and tests.",
        ),
    ],
)
def test_bad_input_is_refused_with_one_sentence_and_nothing_is_written(
    tmp_path: Path, change: Callable[[Rows, Rows], None] | None, patients: int, said: str
) -> None:
    results, truth = write_case(tmp_path, patients, change)
    assert _refused(_run(results, truth, "--out", tmp_path / "E")) == said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["R", "truth.csv"]


def test_a_reader_of_too_few_patients_is_named(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    ann = write_table(tmp_path / "ann.csv", reader_rows(truth_rows(3)))
    assert "The truth and ann have graded levels of 3 patients" in _refused(_run(results, truth, ann))
    assert _run(results, truth, ann, "--few-patients", "--rounds", 200).exit_code == 0


def test_files_that_are_empty_or_not_there_are_refused(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    empty = tmp_path / "empty.csv"
    empty.touch()
    assert _refused(_run(results, empty)).startswith("empty.csv is empty.")
    assert _refused(_run(results, truth, empty)).startswith("empty.csv is empty.")
    assert "No such file or directory" in _refused(_run(results, tmp_path / "none.csv"))
    assert "No such file or directory" in _refused(_run(tmp_path / "none", truth))


def test_few_patients_are_evaluated_where_that_is_asked_for(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 5)
    result = _run(results, truth, "--few-patients")
    assert result.exit_code == 0, result.output
    assert "Fewer than 10 patients: no intervals and no tests." in result.stdout


def test_an_earlier_evaluation_is_replaced_and_another_folder_is_not(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    out = tmp_path / "E"
    assert _run(results, truth, "--out", out, "--rounds", 200).exit_code == 0
    (out / "old.csv").touch()
    assert _run(results, truth, "--out", out, "--rounds", 201).exit_code == 0
    assert not (out / "old.csv").exists()
    assert '"rounds": 201' in (out / "evaluation.json").read_text(encoding="utf-8")
    assert _refused(_run(results, truth, "--out", results)).startswith(
        "The folder of --out holds other files."
    )
    assert [path.name for path in results.iterdir()] == ["results.csv"]


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    (tmp_path / "file").touch()
    said = _refused(_run(results, truth, "--out", tmp_path / "file" / "E"))
    assert (
        said
        == "The folder of --out cannot be written (Not a directory). Give a folder that you may write to."
    )
    assert "Not a directory" in _refused(_run(results, truth, "--out", tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in _refused(_run(results, truth, "--out", tmp_path / "locked" / "E"))


def test_a_disk_that_fills_up_leaves_the_earlier_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, truth = write_case(tmp_path, 12)
    out = tmp_path / "E"
    assert _run(results, truth, "--out", out, "--rounds", 200).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write = output.write_bytes_atomically

    def full(path: Path, data: bytes) -> None:
        if path.name == "roc.png":
            raise OSError(28, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(output, "write_bytes_atomically", full)
    assert "No space left on device" in _refused(_run(results, truth, "--out", out, "--rounds", 300))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["E", "R", "truth.csv"]


@pytest.mark.parametrize("package", ["scipy", "sklearn", "statsmodels", "matplotlib"])
def test_a_missing_package_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    results, truth = write_case(tmp_path, 12)
    monkeypatch.setitem(sys.modules, package, None)
    said = _refused(_run(results, truth))
    assert said == (
        f"The package {package} is missing. Install what evaluate needs: "
        'pip install "stenosis-trt[evaluate]".'
    )


def test_results_of_a_spreadsheet_give_the_same_figures(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    excel = write_table(tmp_path / "excel.csv", result_rows(truth_rows(12)), separator=";")
    plain = _run(results, truth, "--rounds", 200)
    assert plain.exit_code == 0
    assert _run(excel, truth, "--rounds", 200).stdout == plain.stdout
