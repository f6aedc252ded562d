"""The command group `stenosis-trt bench`, and its command `kernels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stenosis_trt.engine.cli.bench_all import bench_all
from stenosis_trt.engine.cli.bench_choose import choose
from stenosis_trt.engine.cli.bench_compare import compare
from stenosis_trt.engine.cli.errors import exit_on_error
from stenosis_trt.engine.cli.gpu_suite import gpu_suite
from stenosis_trt.engine.cli.options import PackOption
from stenosis_trt.engine.cli.roofline import roofline

bench_app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
bench_app.command("all", short_help="Measure everything, and write a record and a page.")(bench_all)
bench_app.command(short_help="Say what moved between two records.")(compare)
bench_app.command(short_help="Say which device serves so many studies an hour.")(choose)
bench_app.command(short_help="Compute lower bounds of the time per study.")(roofline)
bench_app.command("gpu-suite", short_help="Run all measurements of this GPU, offline.")(gpu_suite)


@bench_app.command(short_help="Time each device kernel, and other libraries.")
def kernels(
    out: Annotated[Path, typer.Option(help="Folder for the JSON file.")] = Path(),
    pack: PackOption = None,
    peers: Annotated[bool, typer.Option(help="Also time PyTorch and CuPy if they are installed.")] = True,
) -> None:
    """Time each device kernel; compare with the bytes it must move, other libraries and the CPU."""
    from stenosis_trt.bench.speed.kernels import run_kernel_benchmark, table_lines
    from stenosis_trt.engine.packs.pack import open_pack

    with exit_on_error():
        models = open_pack(pack)
    figures, without_gpu = run_kernel_benchmark(out, models, peers)
    for line in table_lines(figures):
        typer.echo(line)
    if without_gpu:
        typer.echo(f"No figures of a GPU: {without_gpu}", err=True)
