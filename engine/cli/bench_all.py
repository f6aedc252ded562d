"""The command `stenosis-trt bench all`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import EXIT_INCOMPLETE, exit_on_failure, fail
from stenosis_trt.engine.cli.options import DeviceOption, PackOption, PrecisionOption
from stenosis_trt.engine.cli.tables import print_tables

if TYPE_CHECKING:
    from stenosis_trt.bench.record.record import BenchRecord


def bench_all(
    out: Annotated[Path, typer.Option(help="Folder for the record and its page.")],
    pack: PackOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with on the CPU. [default: all cores]")
    ] = None,
    studies: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|N", help="Folder with a folder for each study, or a number of phantoms to make."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECTION", help="load, peers, energy, roofline or scaling; repeatable. [default: all]"
        ),
    ] = None,
    require_peer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Stop if this peer is missing; repeatable. [default: list it]"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Take a sixth of the time, with wider intervals.")
    ] = False,
    official: Annotated[
        bool, typer.Option("--official", help="Run scenarios as long as MLPerf asks for; takes hours.")
    ] = False,
) -> None:
    """Measure load scenarios, peers, energy, roofline and scaling, and write a record and a page to OUT.

    It takes less than 20 minutes on two cores. OUT/<date>-<machine>.json has everything needed to repeat the
    run; the .html beside it shows it. The record is written after each section.

    Exit code 0: all sections were measured; 1: one failed, and the record says why; 2: wrong usage, no pack,
    no studies, no required peer, or no room; 130: interrupted, with the finished sections in OUT.
    """
    from stenosis_trt.bench.benchmark import RecordNotSaved, run_benchmark
    from stenosis_trt.bench.benchmark_options import BenchOptions

    options = BenchOptions(
        out=out,
        pack=pack,
        device=device,
        precision=precision,
        threads=threads,
        studies=_studies(studies),
        sections=tuple(only or ()),
        required_peers=tuple(require_peer or ()),
        quick=quick,
        official=official,
        command=shlex.join(("stenosis-trt", *sys.argv[1:])),
    )
    with exit_on_failure(f"Interrupted. What was measured is in {out}."):
        try:
            record, path = run_benchmark(options)
        except RecordNotSaved as error:
            _show(error.record)
            raise
    _show(record)
    typer.echo(f"Record: {path}\nPage: {path.with_suffix('.html')}", err=True)
    raise typer.Exit(EXIT_INCOMPLETE if record.failures else 0)


def _studies(text: str | None) -> Path | int | None:
    if text is None or not text.isdecimal():
        return None if text is None else Path(text)
    if not int(text):
        fail("--studies 0 leaves nothing to measure. Give a number of phantoms, or a folder of studies.")
    return int(text)


def _show(record: BenchRecord) -> None:
    from stenosis_trt.bench.record.table import record_tables

    print_tables(lambda width: record_tables(record, width))
