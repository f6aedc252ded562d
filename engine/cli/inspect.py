"""The command `stenosis-trt inspect`."""

from __future__ import annotations

import sys
from dataclasses import replace
from operator import attrgetter
from typing import Annotated

import typer

from stenosis_trt.engine.cli.errors import EXIT_INCOMPLETE, exit_on_error, exit_on_invalid_value
from stenosis_trt.engine.cli.options import (
    JsonOption,
    LimitOption,
    NoPathsOption,
    PathsArgument,
    WorkersOption,
)
from stenosis_trt.engine.support.messages import print_message, rich_console


def inspect(
    paths: PathsArgument,
    workers: WorkersOption = 1,
    limit: LimitOption = None,
    no_paths: NoPathsOption = False,
    files: Annotated[
        bool, typer.Option("--files", help="List files instead, with the numbers of `grade --no-paths`.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the series found below PATHS, which would be graded, and why not the others.

    Exit code 0: every study can be graded, judged by its headers; 1: a study cannot be graded, a possible
    image cannot be read, or there is no study.
    """
    from stenosis_trt.engine.cli.documents import document_json
    from stenosis_trt.engine.cli.inspection import (
        file_lines,
        files_document,
        inspect_document,
        inspection_lines,
        inspection_tables,
        problem_lines,
        study_lines,
    )
    from stenosis_trt.engine.dicom.find import check_paths
    from stenosis_trt.engine.dicom.limits import limits_from_settings
    from stenosis_trt.engine.dicom.reader import DicomReader
    from stenosis_trt.engine.runs.path_names import HiddenPaths, PathNames
    from stenosis_trt.engine.selection.select import select_series

    with exit_on_invalid_value():
        limits = limits_from_settings(limit or [])
    with exit_on_error():
        check_paths(paths, no_paths)
    with exit_on_error(), DicomReader(limits, workers) as reader:
        scan = reader.scan(paths)
    studies = sorted(scan.studies, key=attrgetter("path", "key"))
    if files:
        if as_json:
            typer.echo(document_json(files_document(studies, scan.problems)))
            raise typer.Exit
        for line in file_lines(studies, scan.problems):
            typer.echo(line)
        raise typer.Exit
    names = HiddenPaths() if no_paths else PathNames()
    selections = [select_series(replace(study, path=names.of_study(study))) for study in studies]
    problems = names.of_no_study(scan.problems)
    if as_json:
        typer.echo(document_json(inspect_document(selections, problems)))
    elif sys.stdout.isatty():
        console = rich_console()
        for table in inspection_tables(selections):
            console.print(table)
    else:
        for line in inspection_lines(selections):
            typer.echo(line)
    for line in (*study_lines(selections), *problem_lines(problems)):
        print_message(line)
    if not selections:
        print_message("No study was found.")
    all_gradable = selections and all(selection.problem is None for selection in selections)
    lost = any(not problem.harmless for problem in scan.problems)
    raise typer.Exit(0 if all_gradable and not lost else EXIT_INCOMPLETE)
