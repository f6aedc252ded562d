"""The command `stenosis-trt grade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stenosis_trt.engine.cli.errors import EXIT_INTERRUPTED, exit_on_error, exit_on_invalid_value
from stenosis_trt.engine.cli.options import (
    DeviceOption,
    FlavourOption,
    FormatOption,
    LimitOption,
    NoPathsOption,
    PackOption,
    PathsArgument,
    PrecisionOption,
    ReportTemplateOption,
    SrForOption,
    TrustedKeyOption,
    WorkersOption,
)
from stenosis_trt.engine.cli.sign import read_trusted_keys


def grade(
    paths: PathsArgument,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    pack: PackOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
    workers: WorkersOption = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with on the CPU. [default: all cores]")
    ] = None,
    keep_identifiers: Annotated[
        bool, typer.Option("--keep-identifiers", help="Write the PatientID to the results.")
    ] = False,
    no_paths: NoPathsOption = False,
    formats: FormatOption = "csv,json",
    sr_for: SrForOption = "ohif",
    report_template: ReportTemplateOption = None,
    csv_for_excel: Annotated[
        str | None,
        typer.Option(
            metavar="MARK", help="Write CSV files for Excel with this decimal mark: comma, point or locale."
        ),
    ] = None,
    limit: LimitOption = None,
    trusted_key: TrustedKeyOption = None,
    flavour: FlavourOption = None,
    build: Annotated[bool, typer.Option("--build", help="Build plans for the GPU that are missing.")] = False,
    cpu_if_gpu_fails: Annotated[
        bool, typer.Option("--cpu-if-gpu-fails", help="Grade on the CPU what the GPU fails on.")
    ] = False,
    gpu_memory: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Ceiling of the GPU's memory. [default: all]")
    ] = None,
    high_priority: Annotated[
        bool, typer.Option("--high-priority", help="Go before other programs' work on the GPU.")
    ] = False,
    keep_warm: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="Keep the GPU from resting longer than this."),
    ] = None,
    cuda_graphs: Annotated[bool, typer.Option(help="Capture the GPU's work into CUDA graphs.")] = True,
) -> None:
    """Grade every study below PATHS.

    Exit code 0: all graded; 1: something could not be graded or reported (see errors.csv); 2: wrong usage, or
    no pack, or none that is signed as required, or no GPU where one was asked for, or no room for the
    results; 130, 143, 129: ended by Ctrl-C, SIGTERM, SIGHUP.
    """
    from stenosis_trt.engine.backends.gpu.options import GpuOptions
    from stenosis_trt.engine.dicom.find import check_paths
    from stenosis_trt.engine.dicom.limits import limits_from_settings
    from stenosis_trt.engine.reports.formats import parse_formats
    from stenosis_trt.engine.reports.study_report import ReportOptions
    from stenosis_trt.engine.runs.options import GradeOptions
    from stenosis_trt.engine.runs.summary import summary_lines
    from stenosis_trt.engine.runs.table_files import CsvFormat, parse_decimal_mark

    with exit_on_error():
        check_paths(paths, no_paths)
        trust = read_trusted_keys(trusted_key)
    with exit_on_invalid_value():
        limits = limits_from_settings(limit or [])
        form = CsvFormat(None if csv_for_excel is None else parse_decimal_mark(csv_for_excel))
        names = parse_formats(formats)
        reports = ReportOptions(sr_for, report_template)
        gpu = GpuOptions(
            flavour=flavour,
            build_missing_plans=build,
            graphs=cuda_graphs,
            high_priority=high_priority,
            memory_ceiling_bytes=None if gpu_memory is None else gpu_memory << 20,
            keep_warm_seconds=keep_warm,
        )
    options = GradeOptions(
        pack=pack or "reference",
        device=device,
        precision=precision,
        resume=resume,
        workers=workers,
        threads=threads,
        keep_identifiers=keep_identifiers,
        no_paths=no_paths,
        csv_format=form,
        limits=limits,
        trust=trust,
        gpu=gpu,
        cpu_if_gpu_fails=cpu_if_gpu_fails,
        formats=names,
        reports=reports,
    )
    try:
        with exit_on_error():
            # After the options were checked: it opens the models.
            from stenosis_trt.engine.runs.start import start_run

            summary = start_run(paths, out, options)
    except KeyboardInterrupt as ended:
        how, place = str(ended) or "Interrupted", "the folder of --out" if no_paths else out
        typer.echo(f"{how}. What was graded is in {place}; --resume goes on from there.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    for line in summary_lines(summary):
        typer.echo(line, err=True)
    raise typer.Exit(summary.exit_code)
