"""The files of an evaluation: evaluation.json, evaluation.txt, CSV tables, plots."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from stenosis_trt.bench.evaluation.cohort import Cohort
from stenosis_trt.bench.evaluation.evaluation import Evaluation
from stenosis_trt.bench.evaluation.paper_table import paper_lines, paper_rows
from stenosis_trt.bench.evaluation.plots import plots
from stenosis_trt.bench.evaluation.text import text_lines
from stenosis_trt.bench.evaluation.wording import decisions
from stenosis_trt.bench.statistics.bootstrap import METHOD as BOOTSTRAP
from stenosis_trt.bench.statistics.estimates import CONFIDENCE, Estimate
from stenosis_trt.bench.statistics.multiple_comparisons import METHOD as CORRECTION
from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.support.atomic_files import (
    check_writable,
    replace_directory,
    staged_directory,
    write_bytes_atomically,
)
from stenosis_trt.engine.support.safe_text import escape_formula
from stenosis_trt.engine.support.versions import package_version

EVALUATION_JSON, EVALUATION_TXT = "evaluation.json", "evaluation.txt"
FORMAT = 1
"""Version of evaluation.json; it grows when a field changes its meaning or goes."""
_Row = Mapping[str, object]


def check_output(out: Path) -> None:
    """Check that a folder can be written, before anything is computed.

    Raises:
        OutputError: it holds other files, or cannot be written.
    """
    try:
        check_writable(out / EVALUATION_JSON)
        check_writable(out)
        if out.exists() and any(out.iterdir()) and not (out / EVALUATION_JSON).is_file():
            raise OutputError(
                "The folder of --out holds other files.",
                "Give a new folder, or that of an earlier evaluation.",
            )
    except OSError as error:
        raise _not_writable(error) from error


def write_evaluation(found: Evaluation, cohort: Cohort, out: Path) -> None:
    """Write all files to the folder `out`. An earlier evaluation there is replaced at once, or stays as it
    is.

    Raises:
        OutputError: the folder cannot be written.
    """
    files = dict(evaluation_files(found, cohort))
    try:
        with staged_directory(out) as staged:
            staged.mkdir()
            for name, data in files.items():
                write_bytes_atomically(staged / name, data)
            if out.exists():
                replace_directory(staged, out)
            else:
                os.rename(staged, out)
    except OSError as error:
        raise _not_writable(error) from error


def evaluation_files(found: Evaluation, cohort: Cohort) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file. None has an identifier of a patient or study."""
    yield EVALUATION_JSON, (json.dumps(as_json(found), indent=2, allow_nan=False) + "\n").encode()
    yield EVALUATION_TXT, ("\n".join((*text_lines(found), *paper_lines(found))) + "\n").encode()
    for name, rows in _tables(found).items():
        if rows:
            yield name, _csv(rows)
    yield from plots(found, cohort)


def as_json(found: Evaluation) -> dict[str, object]:
    """Return the content of evaluation.json: methods, all figures, sentences, and the table of the paper."""
    return {
        "format": FORMAT,
        "software_version": package_version("stenosis-trt"),
        "methods": {
            "confidence": CONFIDENCE,
            "interval": f"{BOOTSTRAP} unless a figure names another",
            "multiple_comparisons": CORRECTION,
            "grades": "Kang 0 to 3, fixed",
        },
        **asdict(found),
        "decisions": list(decisions(found)),
        "beside_published": [asdict(row) for row in paper_rows(found)],
    }


def _not_writable(error: OSError) -> OutputError:
    return OutputError(
        f"The folder of --out cannot be written ({error.strerror}).", "Give a folder that you may write to."
    )


def _tables(found: Evaluation) -> dict[str, list[_Row]]:
    """Rows of each CSV file."""
    return {
        "raters.csv": [row for rater in found.raters for row in _rater_rows(asdict(rater))],
        "confusion.csv": [
            {
                "rater": rater.rater,
                "true_grade": grade,
                **{f"grade_{place}": count for place, count in enumerate(row)},
            }
            for rater in found.raters
            for grade, row in enumerate(rater.confusion)
        ],
        "agreement.csv": [
            {
                "first": pair.first,
                "second": pair.second,
                "patients": pair.patients,
                "levels": pair.levels,
                "figure": name,
                **_cells(figure),
            }
            for pair in found.pairs
            for name, figure in (
                ("same grade", pair.same_grade),
                *((f"kappa, {weighting}", kappa) for weighting, kappa in pair.kappas.items()),
            )
        ],
        "differences.csv": [
            {
                "first": item.first,
                "second": item.second,
                "levels": item.levels,
                "weighting": weighting,
                "first_kappa": kappa.first.value,
                "second_kappa": kappa.second.value,
                **_cells(kappa.difference),
                "p_value": kappa.p_value,
                "p_value_holm": item.adjusted_p_value if weighting == "quadratic" else None,
            }
            for item in found.differences
            for weighting, kappa in item.kappas.items()
        ],
        "measures.csv": [
            {
                "measure": item.measure,
                "reference": item.reference,
                "patients": item.patients,
                "levels": item.levels,
                "figure": name,
                **_cells(figure),
            }
            for item in found.measures
            for name, figure in (
                ("model mean", Estimate(item.model_mean)),
                ("model standard deviation", Estimate(item.model_sd)),
                ("reference mean", Estimate(item.reference_mean)),
                ("reference standard deviation", Estimate(item.reference_sd)),
                ("mean absolute error", Estimate(item.mean_absolute_error)),
                ("ICC(A,1)", item.icc),
                ("ICC(A,1)", item.icc_independent),
                ("bias", item.limits.bias),
                ("lower limit of agreement", item.limits.low),
                ("upper limit of agreement", item.limits.high),
                ("bias", item.limits_independent.bias),
                ("lower limit of agreement", item.limits_independent.low),
                ("upper limit of agreement", item.limits_independent.high),
                ("Wilcoxon p", Estimate(item.wilcoxon.p_value if item.wilcoxon else None)),
                ("Wilcoxon p, Holm", Estimate(item.adjusted_p_value)),
            )
        ],
        "correlations.csv": [
            {
                "score": item.score,
                "rater": item.rater,
                "quantity": item.quantity,
                "coefficient": name,
                "subjects": result.subjects,
                **_cells(result.coefficient),
                "p_value": result.p_value,
            }
            for item in found.correlations
            for name, result in (("Pearson", item.pearson), ("Spearman", item.spearman))
        ],
        "correlation_differences.csv": [
            {
                "score": item.score,
                "quantity": item.quantity,
                "first": item.first,
                "second": item.second,
                "subjects": item.result.subjects,
                "first_r": item.result.first,
                "second_r": item.result.second,
                "r_between": item.result.between,
                **_cells(item.result.difference),
                "williams_t": item.result.williams_t,
                "williams_p": item.result.williams_p,
                "williams_p_holm": item.adjusted_williams_p,
                "steiger_z": item.result.steiger_z,
                "steiger_p": item.result.steiger_p,
            }
            for item in found.correlation_differences
            if item.result is not None
        ],
        "folds.csv": [] if found.folds is None else [asdict(fold) for fold in found.folds.folds],
        "beside_published.csv": [asdict(row) for row in paper_rows(found)],
    }


def _rater_rows(rater: dict[str, object]) -> Iterator[_Row]:
    """One row for each figure of a rater against the truth."""
    named = {"rater": rater["rater"], "patients": rater["patients"], "levels": rater["levels"]}
    for name in ("accuracy", "accuracy_of_all"):
        yield {**named, "figure": name.replace("_", " "), **_cells_of(rater[name])}
    kappas, classes = rater["kappas"], rater["classes"]
    assert isinstance(kappas, dict)
    assert isinstance(classes, tuple)
    for weighting, kappa in kappas.items():
        yield {**named, "figure": f"kappa, {weighting}", **_cells_of(kappa)}
    grades = [*((str(grade), item) for grade, item in enumerate(classes)), ("2 or 3", rater["grade_2_or_3"])]
    for grade, item in grades:
        for name, figure in item.items():
            if name != "cases":
                yield {**named, "figure": f"{name.replace('_', ' ')}, grade {grade}", **_cells_of(figure)}


def _cells(figure: Estimate) -> _Row:
    return {"value": figure.value, "low": figure.low, "high": figure.high, "interval": figure.method}


def _cells_of(figure: object) -> _Row:
    assert isinstance(figure, dict)
    return _cells(Estimate(**figure))


def _csv(rows: Sequence[_Row]) -> bytes:
    """A table in UTF-8; None is an empty cell, and text that a spreadsheet would evaluate gets an
    apostrophe."""
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow(
            {key: escape_formula(cell) if isinstance(cell, str) else cell for key, cell in row.items()}
        )
    return stream.getvalue().encode()
