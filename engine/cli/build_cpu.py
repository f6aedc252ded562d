"""`stenosis-trt build --device cpu`: the table of how the models run fastest on this CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stenosis_trt.engine.cli.errors import EXIT_INCOMPLETE, exit_on_failure, needs_package
from stenosis_trt.engine.cli.sign import read_signing_key, read_trusted_keys

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.pack import Pack
    from stenosis_trt.export.precision.cpu import CpuBuild


def build_for_cpu(
    pack: Path | None,
    studies: Path | None,
    threads: int | None,
    signing_key: Path | None,
    trusted_key: list[Path] | None,
) -> int:
    """Measure the models of a pack on this CPU, compare with FP32, write the table, and print what it says.

    Returns:
        The exit code.

    Raises:
        typer.Exit: it cannot be done; the reason was printed.
    """
    with (
        exit_on_failure("Interrupted. Nothing was written."),
        needs_package("{} is not installed. Install it: pip install 'stenosis-trt[cpu-fast]'"),
    ):
        from stenosis_trt.engine.backends.cpu.choice import INSTALL, has_openvino
        from stenosis_trt.engine.backends.cpu.table import write_table
        from stenosis_trt.engine.packs.pack import open_pack
        from stenosis_trt.export.precision.cpu import CpuBuildOptions, build_cpu_table

        key = None if signing_key is None else read_signing_key(signing_key)
        found = open_pack(pack, read_trusted_keys(trusted_key))
        if not has_openvino():
            typer.echo(f"OpenVINO is not installed, so only ONNX Runtime is measured: {INSTALL}", err=True)
        build = build_cpu_table(found, CpuBuildOptions(studies, threads))
        path = write_table(found, build.table, key)
    for line in _report_lines(found, build):
        typer.echo(line)
    typer.echo(f"Table: {path}", err=True)
    return 0 if all(outcome.passed for outcome in build.outcomes.values()) else EXIT_INCOMPLETE


def _report_lines(pack: Pack, build: CpuBuild) -> Iterator[str]:
    from stenosis_trt.engine.backends.cpu.table import AUTO
    from stenosis_trt.export.precision.cpu import timing_lines
    from stenosis_trt.export.precision.gate_result import gate_report_lines

    yield from timing_lines(build.table)
    for precision, outcome in build.outcomes.items():
        if precision != AUTO:
            yield from gate_report_lines(outcome)
    for model, results in build.alone.items():
        for way, outcome in results.items():
            failed = ", ".join(check.figure for check in outcome.failures)
            yield f"  With only {model} by {way} it {f'FAILS: {failed}' if failed else 'passes'}."
    for name, choice in build.table.choices[AUTO].models.items():
        yield f"--precision auto runs {name} by {choice.arithmetic}."
