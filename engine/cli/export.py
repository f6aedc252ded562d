"""The command `stenosis-trt export`. As thin as the others; all it does needs the extra `export`.

With --precision it goes on as `quantise` does, from a pack that nobody else sees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import (
    EXIT_INTERRUPTED,
    exit_on_error,
    exit_on_invalid_value,
    fail,
    fail_with_memory_error,
    fail_with_os_error,
    needs_package,
    refuse_unused_options,
)
from stenosis_trt.engine.cli.quantise import quantise_and_report
from stenosis_trt.engine.cli.sign import SignOption, signed_by_line, signing_key

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.keys import PrivateKey
    from stenosis_trt.engine.packs.pack import Pack
    from stenosis_trt.export.precision.quantise import QuantiseOptions

_NEEDS = "`export` needs {}, which is not installed: pip install 'stenosis-trt[export]'"
_FILE = "A checkpoint (safetensors or PyTorch) or an .onnx file"


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
    name: Annotated[
        str | None, typer.Option(help="Name of the pack. [default: the spec's, or unknown]")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Licence of the models, likewise.")
    ] = None,
    intended_use: Annotated[str | None, typer.Option(help="What the models are for, likewise.")] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Not to be read though it lies beside the weights; repeatable."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Studies to check the export with. [default: phantoms]")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Go on as `quantise` does: fp16, int8, or both with a comma. [default: FP32 alone]"
        ),
    ] = "",
    calibrate: Annotated[
        Path | None, typer.Option(help="With --precision: studies to calibrate on. [default: 8 phantoms]")
    ] = None,
    validate: Annotated[
        Path | None,
        typer.Option(help="With --precision: studies to compare with FP32 on. [default: 20 phantoms]"),
    ] = None,
    calibrator: Annotated[
        str | None,
        typer.Option(help="With --precision, of INT8: entropy, max or percentile. [default: entropy]"),
    ] = None,
    sign: SignOption = None,
) -> None:
    """Make a model pack of trained checkpoints, and check it against them.

    Exit code 0: the pack is there; 1: it is, without a precision that the gate refused; 2: a checkpoint or
    the spec cannot be used, or the outcome differs.
    """
    from stenosis_trt.engine.support.atomic_files import check_writable

    try:
        with exit_on_error():
            # The key comes first: minutes of work must not end at a passphrase.
            key = None if sign is None else signing_key(sign)
            checkpoints = {"grader": grader, "levels": levels, "cord": cord}
            texts = {"name": name, "licence": licence, "intended_use": intended_use}
            told = [f"pack.{entry}={_toml_text(text)}" for entry, text in texts.items() if text is not None]
            asked = _Asked(checkpoints, spec, [*(settings or []), *told], check, ignore or [])
            if precision:
                options = _quantise_options(precision, calibrator, calibrate, validate, key)
                if out.exists():
                    fail(f"{out} is there already. Give a new folder with --out, or remove it.")
                check_writable(out)
                with TemporaryDirectory(prefix="stenosis-export-") as folder:
                    plain = _export(asked, Path(folder) / "pack", None)
                    raise typer.Exit(quantise_and_report(plain, out, options))
            refuse_unused_options(
                "--precision", {"calibrate": calibrate, "validate": validate, "calibrator": calibrator}
            )
            made = _export(asked, out, key)
    except OSError as error:
        fail_with_os_error(error)
    except MemoryError as error:
        fail_with_memory_error(error)
    except KeyboardInterrupt:
        typer.echo("Interrupted. No pack was written.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(f"{made.path}: pack {made.name} {made.version}, SHA-256 {made.sha256}")
    if key is not None:
        typer.echo(signed_by_line(key))


@dataclass(frozen=True)
class _Asked:
    """What is to be exported: files by model, the spec and what is put over it, studies to check with."""

    checkpoints: dict[str, Path]
    spec: Path | None
    settings: list[str]
    check: Path | None
    ignored: list[str]


def _toml_text(text: str) -> str:
    """A text as TOML writes it: nothing in it is taken for a number."""
    return json.dumps(text, ensure_ascii=False)


def _export(asked: _Asked, out: Path, key: PrivateKey | None) -> Pack:
    with needs_package(_NEEDS):
        from stenosis_trt.export.packs.export import export_pack
        from stenosis_trt.export.spec_file import read_spec
    _must_exist(asked.check, "--check")
    spec = read_spec(asked.spec, asked.settings)
    return export_pack(asked.checkpoints, spec, out, asked.check, typer.echo, key, asked.ignored)


def _quantise_options(
    precision: str,
    calibrator: str | None,
    calibrate: Path | None,
    validate: Path | None,
    key: PrivateKey | None,
) -> QuantiseOptions:
    """What comes after the export, checked before it: minutes of work must not end at a typing error."""
    from stenosis_trt.engine.cli.build_options import parse_names

    with needs_package(_NEEDS):
        from stenosis_trt.export.precision.convert import Int8Options, require_modelopt
        from stenosis_trt.export.precision.quantise import QuantiseOptions
    _must_exist(calibrate, "--calibrate")
    _must_exist(validate, "--validate")
    require_modelopt()
    if parse_names(precision) == ("fp16",):
        refuse_unused_options("int8 in --precision", {"calibrator": calibrator})
    with exit_on_invalid_value():
        int8 = Int8Options() if calibrator is None else Int8Options(calibrator)
        return QuantiseOptions(
            parse_names(precision),
            int8,
            calibration_studies=calibrate,
            validation_studies=validate,
            signing_key=key,
        )


def _must_exist(studies: Path | None, option: str) -> None:
    if studies is not None and not studies.exists():
        fail(f"There are no studies at {studies}. Give a folder of studies with {option}, or leave it out.")
