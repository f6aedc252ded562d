"""The command `stenosis-trt evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stenosis_trt.engine.cli.errors import exit_on_failure, needs_package


def evaluate(
    results: Annotated[Path, typer.Argument(help="Folder of grade, or its results.csv.", show_default=False)],
    truth: Annotated[Path, typer.Argument(help="CSV: study_uid, level, kang_grade.", show_default=False)],
    readers: Annotated[
        list[Path] | None, typer.Argument(help="The same of each reader, or review.csv.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for JSON, CSV tables and plots.")] = None,
    scores: Annotated[
        Path | None, typer.Option(help="CSV: patient_id or study_uid, and a column for each clinical score.")
    ] = None,
    folds: Annotated[
        Path | None, typer.Option(help="CSV: patient_id or study_uid, and the fold it was tested in.")
    ] = None,
    few_patients: Annotated[
        bool,
        typer.Option("--few-patients", help="Accept fewer than ten patients, without intervals and tests."),
    ] = False,
    rounds: Annotated[int, typer.Option(min=200, max=100_000, help="Bootstrap samples.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare results with a truth and with readers: accuracy, kappa, ICC, limits of agreement, correlations.

    Intervals are of 95 %, by a bootstrap over patients. Exit code 2: the tables cannot be used, or --out
    cannot be written.
    """
    with needs_package(
        'The package {} is missing. Install what evaluate needs: pip install "stenosis-trt[evaluate]".'
    ):
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
        import statsmodels  # noqa: F401

    from stenosis_trt.bench.evaluation import evaluation, output, paper_table, text

    inputs = evaluation.EvaluationInputs(
        results, truth, tuple(readers or ()), scores, folds, few_patients, rounds, seed
    )
    with exit_on_failure("Interrupted. Nothing was written."):
        if out is not None:
            output.check_output(out)
        found, cohort = evaluation.evaluate(inputs)
        if out is not None:
            output.write_evaluation(found, cohort, out)
    for line in (*text.text_lines(found), *paper_table.paper_lines(found)):
        typer.echo(line)
    if out is not None:
        typer.echo(f"Figures, tables and plots in {out}", err=True)
