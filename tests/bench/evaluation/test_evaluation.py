"""All figures of an evaluation, on tables with known content."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from reader_tables import (
    Rows,
    fold_rows,
    reader_rows,
    result_rows,
    score_rows,
    study_uid,
    truth_rows,
    write_case,
    write_table,
)

from stenosis_trt.bench.evaluation.evaluation import Evaluation, EvaluationInputs, evaluate
from stenosis_trt.bench.evaluation.output import as_json, evaluation_files
from stenosis_trt.bench.evaluation.paper_table import NOT_GIVEN, NOT_REPORTED, paper_rows
from stenosis_trt.bench.evaluation.text import text_lines
from stenosis_trt.bench.evaluation.wording import decisions, number
from stenosis_trt.bench.statistics.kappa import WEIGHTINGS
from stenosis_trt.engine.errors import InputError

PATIENTS = 24


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> EvaluationInputs:
    """Twenty-four patients, a model, two readers, scores and folds."""
    folder = tmp_path_factory.mktemp("case")
    results, truth = write_case(folder, PATIENTS)
    rows = truth_rows(PATIENTS)
    return EvaluationInputs(
        results,
        truth,
        (
            write_table(folder / "ann.csv", reader_rows(rows, seed=5, wrong=0.1)),
            write_table(folder / "ben.csv", reader_rows(rows, seed=6, wrong=0.5)),
        ),
        write_table(folder / "scores.csv", score_rows(rows)),
        write_table(folder / "folds.csv", fold_rows(rows)),
        rounds=400,
    )


@pytest.fixture(scope="module")
def found(inputs: EvaluationInputs) -> Evaluation:
    """Its figures."""
    return evaluate(inputs)[0]


def test_every_rater_has_its_figures_against_the_truth(found: Evaluation) -> None:
    assert [rater.rater for rater in found.raters] == ["model", "ann", "ben"]
    rows, model = truth_rows(PATIENTS), result_rows(truth_rows(PATIENTS))
    right = np.mean([a["kang_grade"] == b["kang_grade"] for a, b in zip(rows, model, strict=True)])
    first = found.raters[0]
    assert first.accuracy.value == pytest.approx(right)
    assert first.levels == np.sum(first.confusion) == 6 * PATIENTS
    for rater in found.raters:
        assert set(rater.kappas) == set(WEIGHTINGS)
        for figure in (rater.accuracy, *rater.kappas.values(), *(c.sensitivity for c in rater.classes)):
            assert figure.value is not None
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high
            assert figure.method


def test_raters_are_compared_in_pairs_and_only_the_model_is_tested(found: Evaluation) -> None:
    names = [("model", "ann"), ("model", "ben"), ("ann", "ben")]
    assert [(pair.first, pair.second) for pair in found.pairs] == names
    assert [(item.first, item.second) for item in found.differences] == names
    assert [item.adjusted_p_value is None for item in found.differences] == [False, False, True]
    worse = found.differences[1]
    assert worse.kappas["quadratic"].difference.excludes_zero
    assert worse.adjusted_p_value is not None
    assert worse.kappas["quadratic"].p_value is not None
    assert worse.adjusted_p_value >= worse.kappas["quadratic"].p_value


def test_measures_that_a_reader_did_not_take_are_not_compared(found: Evaluation) -> None:
    assert [(item.measure, item.reference) for item in found.measures] == [
        ("compression_ratio", "truth"),
        ("ap_mm", "truth"),
        ("transverse_mm", "truth"),
    ]
    ratio = found.measures[0]
    truth, model = (
        np.array([float(str(row["compression_ratio"])) for row in rows])
        for rows in (truth_rows(PATIENTS), result_rows(truth_rows(PATIENTS)))
    )
    assert ratio.limits.bias.value == pytest.approx((model - truth).mean())
    assert ratio.model_sd == pytest.approx(model.std(ddof=1))
    assert ratio.wilcoxon is not None
    # One value a patient, not one a level.
    assert ratio.wilcoxon.pairs == PATIENTS
    assert ratio.icc.value == ratio.icc_independent.value


def test_scores_are_correlated_with_the_highest_grade_and_the_lowest_ratio(found: Evaluation) -> None:
    kinds = {(item.score, item.quantity, item.rater) for item in found.correlations}
    assert ("mJOA", "highest grade", "ben") in kinds
    assert ("VAS", "lowest compression ratio", "truth") in kinds
    assert ("VAS", "lowest compression ratio", "ben") not in kinds
    rows = truth_rows(PATIENTS)
    worst = [
        max(int(str(row["kang_grade"])) for row in rows if row["study_uid"] == study_uid(patient))
        for patient in range(PATIENTS)
    ]
    scores = [float(str(row["mJOA"])) for row in score_rows(rows)]
    (item,) = [
        item
        for item in found.correlations
        if (item.score, item.quantity, item.rater) == ("mJOA", "highest grade", "truth")
    ]
    assert item.pearson.coefficient.value == pytest.approx(np.corrcoef(worst, scores)[0, 1])
    assert all(item.first == "model" for item in found.correlation_differences)
    assert {item.second for item in found.correlation_differences} == {"truth", "ann", "ben"}


def test_each_fold_has_its_figures(found: Evaluation) -> None:
    assert found.folds is not None
    assert [fold.fold for fold in found.folds.folds] == ["1", "2", "3", "4", "5"]
    assert sum(fold.patients for fold in found.folds.folds) == PATIENTS


def test_the_area_is_that_of_the_probability_of_grades_2_and_3(found: Evaluation) -> None:
    grades = [int(str(row["kang_grade"])) for row in truth_rows(PATIENTS)]
    assert found.area.positives == sum(grade >= 2 for grade in grades)
    assert found.area.area.value is not None
    assert found.area.area.value > 0.9
    assert found.area.delong.low is not None


def test_the_decisions_name_difference_interval_and_correction(found: Evaluation) -> None:
    sentences = list(decisions(found))
    assert len([line for line in sentences if line.startswith("Grades, model and ")]) == 2
    ben = next(line for line in sentences if "model and ben" in line)
    assert "quadratic kappa" in ben
    assert "(Holm): they differ, and model agrees more with the truth." in ben
    ann = next(line for line in sentences if line.startswith("Grades, model and ann"))
    assert ann.endswith("a difference is not shown; the interval says how large it may still be.")


def test_the_text_has_every_figure_and_names_the_weighting(found: Evaluation) -> None:
    text = "\n".join(text_lines(found))
    for part in (
        "24 patients, 24 studies, 144 levels with a true grade",
        "percentile bootstrap over patients (400 draws, seed 0)",
        "Cohen's kappa, unweighted 0.",
        "Cohen's kappa, linear 0.",
        "Cohen's kappa, quadratic 0.",
        "sensitivity",
        "Area under the ROC curve",
        "ICC(A,1) 0.",
        "Bland-Altman: bias",
        "Wilcoxon signed-rank test over patients",
        "Williams t",
        "Steiger Z",
        "mean ± SD",
    ):
        assert part in text


def test_what_was_not_published_stays_not_reported(found: Evaluation) -> None:
    rows = {row.item: row for row in paper_rows(found)}
    assert rows["Patients"].published == "954"
    assert rows["Five-fold accuracy of the model"].published == "79.45 %"
    assert rows["Five-fold accuracy of the model"].here.endswith("(5 folds)")
    assert rows["Weighting of kappa"].published == NOT_REPORTED
    assert rows["Kappa of the model and a clinician, 1: unweighted here"].published.startswith("0.848")
    assert "model – ann" in rows["Kappa of the model and a clinician, 1: unweighted here"].here
    assert rows["Kappa of a resident and a clinician, 2"].here == NOT_GIVEN
    assert rows["Compression ratio, model and truth"].published == "0.45 ± 0.07, 0.46 ± 0.07"
    for grade in range(4):
        assert rows[f"Sensitivity, specificity of grade {grade} (95 % CI)"].published == NOT_REPORTED


def test_the_files_are_complete_and_hold_no_identifier(inputs: EvaluationInputs) -> None:
    found, cohort = evaluate(inputs)
    files = dict(evaluation_files(found, cohort))
    assert set(files) == {
        *("evaluation.json", "evaluation.txt", "raters.csv", "confusion.csv", "agreement.csv"),
        *("differences.csv", "measures.csv", "correlations.csv", "correlation_differences.csv", "folds.csv"),
        *("beside_published.csv", "confusion.png", "kappas.png", "roc.png", "bland_altman_truth.png"),
    }
    for name, content in files.items():
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG")
            continue
        for secret in (study_uid(3), "P3"):
            assert secret not in content.decode()
        if name.endswith(".csv"):
            rows = list(csv.DictReader(content.decode().splitlines()))
            assert rows, name
    figures = json.loads(files["evaluation.json"])
    assert figures["format"] == 1
    assert figures["methods"]["multiple_comparisons"] == "Holm"
    assert figures["raters"][0]["kappas"]["linear"]["method"] == "percentile bootstrap over patients"
    assert figures["decisions"] == list(decisions(found))
    differences = csv.DictReader(files["differences.csv"].decode().splitlines())
    assert {row["weighting"] for row in differences} == set(WEIGHTINGS)


def test_equal_seeds_give_equal_figures(inputs: EvaluationInputs, found: Evaluation) -> None:
    assert as_json(evaluate(inputs)[0]) == as_json(found)


def test_a_model_that_is_always_right_has_no_difference_that_divides_by_zero(tmp_path: Path) -> None:
    truth = truth_rows(12)
    perfect = write_table(tmp_path / "results.csv", result_rows(truth, wrong=0.0))
    reader = write_table(tmp_path / "ann.csv", reader_rows(truth, wrong=0.0))
    found, cohort = evaluate(
        EvaluationInputs(perfect, write_table(tmp_path / "truth.csv", truth), (reader,), rounds=200)
    )
    assert found.raters[0].kappas["quadratic"].value == 1.0
    assert found.differences[0].adjusted_p_value == 1.0
    assert dict(evaluation_files(found, cohort))


def test_one_grade_throughout_leaves_kappa_and_area_undefined(tmp_path: Path) -> None:
    def change(results: Rows, truth: Rows) -> None:
        for row in (*results, *truth):
            row["kang_grade"] = 0

    results, truth = write_case(tmp_path, 12, change)
    found, cohort = evaluate(EvaluationInputs(results, truth, rounds=200))
    assert found.raters[0].kappas["linear"].value is None
    assert found.area.area.value is None
    text = "\n".join(text_lines(found))
    assert "Cohen's kappa, linear –" in text
    assert {"kappas.png", "roc.png"}.isdisjoint(dict(evaluation_files(found, cohort)))


def test_few_patients_have_figures_without_intervals_and_tests(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 4)
    scores = write_table(tmp_path / "scores.csv", score_rows(truth_rows(4)))
    found, _ = evaluate(EvaluationInputs(results, truth, scores=scores, few_patients=True, rounds=200))
    content = json.dumps(as_json(found))
    assert '"low": 0' not in content
    assert '"p_value": 0' not in content
    assert found.raters[0].accuracy.value is not None
    assert found.notes[-1] == "Fewer than 10 patients: no intervals and no tests."
    assert list(text_lines(found))


def test_a_fold_column_of_the_truth_serves_as_well(tmp_path: Path) -> None:
    def change(results: Rows, truth: Rows) -> None:
        for row in truth:
            row["fold"] = int(str(row["study_uid"]).rsplit(".", 1)[1]) % 3

    results, truth = write_case(tmp_path, 12, change)
    found, _ = evaluate(EvaluationInputs(results, truth, rounds=200))
    assert found.folds is not None
    assert [fold.fold for fold in found.folds.folds] == ["0", "1", "2"]
    folds = write_table(tmp_path / "folds.csv", fold_rows(truth_rows(12)))
    with pytest.raises(InputError, match="Both the truth and --folds"):
        evaluate(EvaluationInputs(results, truth, folds=folds, rounds=200))


def test_folds_that_split_a_patient_or_leave_one_out_are_refused(tmp_path: Path) -> None:
    def change(results: Rows, truth: Rows) -> None:
        for row in truth:
            row["patient_id"] = "P0" if row["study_uid"] in ("1.2.0", "1.2.1") else row["patient_id"]

    results, truth = write_case(tmp_path, 12, change)
    folds = fold_rows(truth_rows(12))
    with pytest.raises(InputError, match="different folds"):
        evaluate(EvaluationInputs(results, truth, folds=write_table(tmp_path / "f.csv", folds), rounds=200))
    with pytest.raises(InputError, match="has no fold"):
        evaluate(
            EvaluationInputs(results, truth, folds=write_table(tmp_path / "g.csv", folds[3:]), rounds=200)
        )


def test_scores_by_patient_join_the_studies_of_a_patient(tmp_path: Path) -> None:
    results, truth = write_case(tmp_path, 12)
    rows = [
        {"patient_id": f"P{place}", "mJOA": row["mJOA"]}
        for place, row in enumerate(score_rows(truth_rows(12)))
    ]
    found, _ = evaluate(
        EvaluationInputs(results, truth, scores=write_table(tmp_path / "s.csv", rows), rounds=200)
    )
    assert found.score_key == "patient_id"
    assert found.correlations[0].pearson.subjects == 12
    lost = write_table(tmp_path / "t.csv", [row | {"patient_id": f"Q{row['patient_id']}"} for row in rows])
    with pytest.raises(InputError, match="No patient_id of the scores"):
        evaluate(EvaluationInputs(results, truth, scores=lost, rounds=200))


def test_a_negative_zero_has_no_sign() -> None:
    assert number(-0.0001, 2) == "0.00"
    assert number(-0.0001, 2, signed=True) == "+0.00"
    assert number(None) == "–"
