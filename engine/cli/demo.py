"""The command `stenosis-trt demo`: three phantoms, graded, beside their truth."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import EXIT_INTERRUPTED, exit_on_error

if TYPE_CHECKING:
    from rich.table import Table

_STUDIES = 3
_SEED = 2025


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the studies and results. [default: a temporary folder]")
    ] = None,
) -> None:
    """Write three synthetic studies, grade them and print the results beside the truth."""
    try:
        with exit_on_error():
            if out is not None:
                code = _run(out)
            else:
                with TemporaryDirectory(prefix="stenosis-demo-") as folder:
                    code = _run(Path(folder))
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def _run(folder: Path) -> int:
    """Write three studies below `folder`, grade them and print the table.

    Returns:
        The exit code of grading.

    Raises:
        OutputError: `folder` is not empty or cannot be written.
        PackError: the reference pack is missing or not usable.
    """
    from stenosis_trt.bench.phantom import PhantomOptions, write_studies
    from stenosis_trt.engine.errors import OutputError
    from stenosis_trt.engine.runs.batch import grade_paths
    from stenosis_trt.engine.runs.options import GradeOptions
    from stenosis_trt.engine.runs.output_folder import RESULTS_CSV
    from stenosis_trt.engine.support.messages import print_output, rich_console
    from stenosis_trt.engine.support.progress import show_progress

    studies, results = folder / "studies", folder / "results"
    workers = min(_STUDIES, len(os.sched_getaffinity(0)))
    try:
        if folder.exists() and any(folder.iterdir()):
            earlier = results / RESULTS_CSV
            held = f"an earlier demonstration, with its results in {earlier}"
            raise OutputError(
                f"{folder} already holds {held if earlier.exists() else 'other files'}.",
                "Give demo a new or empty folder with --out.",
            )
        with show_progress("Making phantoms", "studies") as progress:
            truth = write_studies(studies, PhantomOptions(_STUDIES, _SEED, workers=workers), progress.advance)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}).", "Give demo another --out."
        ) from error
    outcome = grade_paths([studies], results, GradeOptions())
    rich_console().print(_table(results / RESULTS_CSV, truth))
    print_output("Synthetic studies, graded by models trained on synthetic studies:")
    print_output("a demonstration, not for patients.")
    return outcome.exit_code


def _table(results: Path, truth: Path) -> Table:
    """Build the table of the results of each level beside its truth, from the two CSV files."""
    from rich import box
    from rich.table import Table

    with truth.open(newline="", encoding="utf-8") as stream:
        known = {(row["study_uid"], row["level"]): row for row in csv.DictReader(stream)}
    columns = ("study", "level", "Kang\ngrade", "true\ngrade", "p", "ratio", "true\nratio")
    # Without lines between columns, the longest warning fits into 80 columns.
    title = "Cervical stenosis: three phantom studies (ratio: AP/transverse)"
    table = Table(
        *columns, "AP mm", "warnings", title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    with results.open(newline="", encoding="utf-8") as stream:
        numbers: dict[str, int] = {}
        for row in csv.DictReader(stream):
            study = row["study_uid"]
            if study not in numbers and numbers:
                table.add_section()
            number = numbers.setdefault(study, len(numbers) + 1)
            expected = known[study, row["level"]]
            probability = row[f"p{row['kang_grade']}"] if row["kang_grade"] else ""
            table.add_row(
                str(number),
                row["level"],
                row["kang_grade"] or "–",
                expected["kang_grade"],
                probability[:4],
                row["compression_ratio"][:5] or "–",
                expected["compression_ratio"][:5],
                row["ap_mm"],
                row["warnings"].replace(";", "\n"),
            )
    return table
