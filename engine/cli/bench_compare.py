"""The command `stenosis-trt bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stenosis_trt.engine.cli.errors import EXIT_INCOMPLETE, exit_on_error
from stenosis_trt.engine.cli.tables import print_tables


def compare(
    before: Annotated[
        Path, typer.Argument(metavar="A.json", help="Record of `bench all`.", show_default=False)
    ],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="A later one.", show_default=False)],
    minimum_effect: Annotated[
        float, typer.Option(min=0.0, max=1000.0, metavar="PERCENT", help="Smallest change that counts.")
    ] = 5.0,
    everything: Annotated[bool, typer.Option("--all", help="Also list what did not move.")] = False,
) -> None:
    """Say what moved between two records of `bench all` beyond the noise, and what else is different.

    A figure moved if its 95 % intervals are disjoint, the difference is significant after Holm's correction,
    and the change is large enough. What other processes explain does not count.

    Exit code 0: nothing got worse; 1: something did; 2: a file is no record.
    """
    from stenosis_trt.bench.record.compare import compare_records
    from stenosis_trt.bench.record.files import read_record
    from stenosis_trt.bench.record.table import comparison_tables

    with exit_on_error():
        old, new = read_record(before), read_record(after)
    found = compare_records(old, new, minimum_effect / 100)
    print_tables(lambda width: comparison_tables(found, old, new, width, everything))
    raise typer.Exit(EXIT_INCOMPLETE if found.having("worse") else 0)
