"""The command `stenosis-trt export`. As thin as the others; all it does needs the extra `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli_errors import INTERRUPTED, fail, usage_errors

if TYPE_CHECKING:
    from stenosis_trt.engine.pack import Pack

_FILE = "A checkpoint (.safetensors, .pt, .pth) or an .onnx file"


def export(
    grader: Annotated[Path, typer.Option(help=f"{_FILE} of the grader.")],
    levels: Annotated[Path, typer.Option(help="The same of the network that finds the levels.")],
    cord: Annotated[Path, typer.Option(help="The same of the network that measures the cord.")],
    out: Annotated[Path, typer.Option(help="Folder of the pack; new.")],
    spec: Annotated[
        Path | None,
        typer.Option(help="TOML file that says what goes in and comes out; `reference` takes the example."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Over the spec: grader.input.size=[456,456]; repeatable."
        ),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Studies to check the export with. [default: phantoms]")
    ] = None,
) -> None:
    """Make a model pack of trained checkpoints, and check it against them.

    Exit code 0: the pack is there; 2: a checkpoint or the spec cannot be used, or the outcome differs.
    """
    try:
        with usage_errors():
            made = _export(
                {"grader": grader, "levels": levels, "cord": cord}, spec, settings or [], out, check
            )
    except KeyboardInterrupt:
        typer.echo("Interrupted. No pack was written.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"{made.path}: pack {made.name} {made.version}, SHA-256 {made.sha256}")


def _export(
    checkpoints: dict[str, Path], spec: Path | None, settings: list[str], out: Path, check: Path | None
) -> Pack:
    try:
        from stenosis_trt.export.export_pack import export_pack
        from stenosis_trt.export.onnx_export import ExportError
        from stenosis_trt.export.spec_file import SpecError, read_spec
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stenosis_trt"):
            raise
        fail(f"`export` needs {error.name}, which is not installed: pip install 'stenosis-trt[export]'")
    if check is not None and not check.exists():
        fail(f"There are no studies at {check}. Give a folder of studies with --check, or leave it out.")
    try:
        return export_pack(checkpoints, read_spec(spec, settings), out, check, typer.echo)
    except (ExportError, SpecError) as error:
        fail(str(error))
