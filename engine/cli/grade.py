"""The command `stenosis-trt grade`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import INTERRUPTED, usage_errors, wrong_values
from stenosis_trt.engine.cli.options import (
    DeviceOption,
    FlavourOption,
    LimitOption,
    NoPathsOption,
    PackOption,
    PathsArgument,
    PrecisionOption,
    WorkersOption,
    read_limits,
    some_exist,
)
from stenosis_trt.engine.cli.sign import RequireOption, trust_in

if TYPE_CHECKING:
    from stenosis_trt.engine.runs.batch import GradeOptions


def grade(
    paths: PathsArgument,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    pack: PackOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
    workers: WorkersOption = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with on the CPU. [default: all cores]")
    ] = None,
    keep_identifiers: Annotated[
        bool, typer.Option("--keep-identifiers", help="Write the PatientID to the results.")
    ] = False,
    no_paths: NoPathsOption = False,
    csv_for_excel: Annotated[
        str | None,
        typer.Option(
            metavar="MARK", help="Write CSV files for Excel with this decimal mark: comma, point or locale."
        ),
    ] = None,
    limit: LimitOption = None,
    require_signature: RequireOption = None,
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

    Exit code 0: all graded; 1: something could not be graded (see errors.csv); 2: wrong usage, or no pack, or
    none that is signed as required, or no GPU where one was asked for, or no room for the results; 130, 143,
    129: ended by Ctrl-C, SIGTERM, SIGHUP.
    """
    from stenosis_trt.engine.backends.gpu.options import GpuOptions
    from stenosis_trt.engine.runs.batch import GradeOptions
    from stenosis_trt.engine.runs.table_files import TableForm, decimal_mark

    some_exist(paths, no_paths)
    with usage_errors():
        trust = trust_in(require_signature)
    with wrong_values():
        gpu = GpuOptions(
            flavour=flavour,
            build=build,
            graphs=cuda_graphs,
            high_priority=high_priority,
            memory_ceiling_bytes=None if gpu_memory is None else gpu_memory << 20,
            keep_warm_seconds=keep_warm,
        )
        options = GradeOptions(
            pack=pack,
            device=device,
            precision=precision,
            resume=resume,
            workers=workers,
            threads=threads,
            keep_identifiers=keep_identifiers,
            no_paths=no_paths,
            form=TableForm(None if csv_for_excel is None else decimal_mark(csv_for_excel)),
            limits=read_limits(limit),
            trust=trust,
            gpu=gpu,
            cpu_if_gpu_fails=cpu_if_gpu_fails,
        )
    raise typer.Exit(_grade(paths, out, options))


def _grade(paths: list[Path], out: Path, options: GradeOptions) -> int:
    from stenosis_trt.engine.runs.batch import grade_paths
    from stenosis_trt.engine.runs.summary import summary_lines

    try:
        with usage_errors():
            outcome = grade_paths(paths, out, options)
    except KeyboardInterrupt as ended:
        how, place = str(ended) or "Interrupted", "the folder of --out" if options.no_paths else out
        typer.echo(f"{how}. What was graded is in {place}; --resume goes on from there.", err=True)
        return INTERRUPTED
    for line in summary_lines(outcome):
        typer.echo(line, err=True)
    return outcome.exit_code
