"""The command `stenosis-trt report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stenosis_trt.engine.cli.errors import EXIT_INTERRUPTED, exit_on_error, exit_on_invalid_value
from stenosis_trt.engine.cli.options import (
    FormatOption,
    LimitOption,
    ReportTemplateOption,
    SrForOption,
    WorkersOption,
)


def report(
    results: Annotated[Path, typer.Argument(help="Folder that `grade` wrote to.", show_default=False)],
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Where the images are. [default: where the results say]", show_default=False),
    ] = None,
    formats: FormatOption = "html",
    sr_for: SrForOption = "ohif",
    report_template: ReportTemplateOption = None,
    workers: WorkersOption = 1,
    limit: LimitOption = None,
) -> None:
    """Write reports from RESULTS of `grade`, without grading again.

    Exit code 0: all reports were made; 1: a report could not be made (see errors.csv), or no study was
    graded; 2: wrong usage, no results, a package that is missing, or no room.
    """
    from stenosis_trt.engine.dicom.limits import limits_from_settings
    from stenosis_trt.engine.reports.formats import parse_formats
    from stenosis_trt.engine.reports.study_report import ReportOptions
    from stenosis_trt.engine.runs.report_again import report_results
    from stenosis_trt.engine.support.messages import print_message

    with exit_on_invalid_value():
        limits = limits_from_settings(limit or [])
        names = parse_formats(formats)
        options = ReportOptions(sr_for, report_template)
    try:
        with exit_on_error():
            summary = report_results(results, images or [], names, options, limits, workers)
    except KeyboardInterrupt as ended:
        how = str(ended) or "Interrupted"
        typer.echo(f"{how}. The reports that were made are kept; run it again for the others.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    kept = summary.studies - summary.made
    print_message(
        f"Reports of {summary.made} studies were made"
        + (f", {kept} were up to date" if kept else "")
        + (f"; {summary.failed_reports} lack a report, see errors.csv" if summary.failed_reports else "")
        + f". Results: {summary.display_path}"
    )
    raise typer.Exit(summary.exit_code)
