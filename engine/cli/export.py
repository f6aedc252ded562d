"""The command `stenosis-trt export`. With --precision it continues like `quantise`, from a temporary pack."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import (
    exit_on_failure,
    exit_on_invalid_value,
    fail,
    needs_package,
    refuse_unused_options,
)
from stenosis_trt.engine.cli.options import SigningKeyOption, parse_names
from stenosis_trt.engine.cli.quantise import quantise_and_report
from stenosis_trt.engine.cli.sign import read_signing_key, signed_by_line

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.keys import PrivateKey
    from stenosis_trt.engine.packs.pack import Pack
    from stenosis_trt.export.precision.quantise import QuantiseOptions

_NEEDS = "`export` needs {}, which is not installed: pip install 'stenosis-trt[export]'"
_FILE = "Checkpoint (safetensors or PyTorch) or .onnx file"


def export(
    grader: Annotated[Path, typer.Option(help=f"{_FILE} of the grader.")],
    levels: Annotated[Path, typer.Option(help="The same for the network that finds the levels.")],
    cord: Annotated[Path, typer.Option(help="The same for the network that measures the cord.")],
    out: Annotated[Path, typer.Option(help="New folder for the pack.")],
    spec: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with the input and output of each model, or `reference` for the example."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override the spec: grader.input.size=[456,456]; repeatable."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the pack. [default: the spec's, or unknown]")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Licence of the models. [default: as --name]")
    ] = None,
    intended_use: Annotated[
        str | None, typer.Option(help="Intended use of the models. [default: as --name]")
    ] = None,
    ignore_key: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Entry of a checkpoint beside its weights to ignore; repeatable."),
    ] = None,
    check_studies: Annotated[
        Path | None, typer.Option(help="Studies to compare model and checkpoint on. [default: phantoms]")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Also convert as `quantise` does; comma-separated: fp16, int8. [default: FP32 only]"
        ),
    ] = "",
    calibration_studies: Annotated[
        Path | None,
        typer.Option(help="With --precision: studies to calibrate INT8 on. [default: 8 phantoms]"),
    ] = None,
    validation_studies: Annotated[
        Path | None, typer.Option(help="With --precision: studies of the gate. [default: 20 phantoms]")
    ] = None,
    calibration_method: Annotated[
        str | None, typer.Option(help="With --precision: entropy, max or percentile. [default: entropy]")
    ] = None,
    signing_key: SigningKeyOption = None,
) -> None:
    """Convert trained checkpoints to a model pack, and compare the models with the checkpoints.

    Exit code 0: the pack was written; 1: it was, without a precision that failed the gate; 2: a checkpoint
    or the spec cannot be used, or a model differs from its checkpoint.
    """
    from stenosis_trt.engine.support.atomic_files import check_writable

    with exit_on_failure("Interrupted. No pack was written."):
        # The key is read first, so that a wrong passphrase ends the command before minutes of work.
        key = None if signing_key is None else read_signing_key(signing_key)
        checkpoints = {"grader": grader, "levels": levels, "cord": cord}
        texts = {"name": name, "licence": licence, "intended_use": intended_use}
        overrides = [f"pack.{entry}={_toml_text(text)}" for entry, text in texts.items() if text is not None]
        request = _ExportRequest(
            checkpoints, spec, [*(settings or []), *overrides], check_studies, ignore_key or []
        )
        if precision:
            options = _quantise_options(
                precision, calibration_method, calibration_studies, validation_studies, key
            )
            if out.exists():
                fail(f"{out} is there already. Give a new folder with --out, or remove it.")
            check_writable(out)
            with TemporaryDirectory(prefix="stenosis-export-") as folder:
                plain = _export(request, Path(folder) / "pack", None)
                raise typer.Exit(quantise_and_report(plain, out, options))
        refuse_unused_options(
            "--precision",
            {
                "calibration-studies": calibration_studies,
                "validation-studies": validation_studies,
                "calibration-method": calibration_method,
            },
        )
        made = _export(request, out, key)
    typer.echo(f"{made.path}: pack {made.name} {made.version}, SHA-256 {made.sha256}")
    if key is not None:
        typer.echo(signed_by_line(key))


@dataclass(frozen=True)
class _ExportRequest:
    """Checkpoints by model, the spec and its overrides, studies to check with, ignored entries."""

    checkpoints: dict[str, Path]
    spec: Path | None
    settings: list[str]
    check_studies: Path | None
    ignored_keys: list[str]


def _toml_text(text: str) -> str:
    """Quote a text as a TOML string, so that it is not read as a number."""
    return json.dumps(text, ensure_ascii=False)


def _export(request: _ExportRequest, out: Path, key: PrivateKey | None) -> Pack:
    with needs_package(_NEEDS):
        from stenosis_trt.export.packs.export import export_pack
        from stenosis_trt.export.spec_file import read_spec
    _must_exist(request.check_studies, "--check-studies")
    spec = read_spec(request.spec, request.settings)
    return export_pack(
        request.checkpoints, spec, out, request.check_studies, typer.echo, key, request.ignored_keys
    )


def _quantise_options(
    precision: str,
    calibration_method: str | None,
    calibration_studies: Path | None,
    validation_studies: Path | None,
    key: PrivateKey | None,
) -> QuantiseOptions:
    """Check the options of the conversion before the export, which takes minutes."""
    with needs_package(_NEEDS):
        from stenosis_trt.export.precision.convert import Int8Options, require_modelopt
        from stenosis_trt.export.precision.quantise import QuantiseOptions
        from stenosis_trt.export.precision.studies import ValidationOptions
    _must_exist(calibration_studies, "--calibration-studies")
    _must_exist(validation_studies, "--validation-studies")
    require_modelopt()
    if parse_names(precision) == ("fp16",):
        refuse_unused_options("int8 in --precision", {"calibration-method": calibration_method})
    with exit_on_invalid_value():
        int8 = Int8Options() if calibration_method is None else Int8Options(calibration_method)
        return QuantiseOptions(
            parse_names(precision),
            int8,
            calibration_studies=calibration_studies,
            validation=ValidationOptions(() if validation_studies is None else (validation_studies,)),
            signing_key=key,
        )


def _must_exist(studies: Path | None, option: str) -> None:
    if studies is not None and not studies.exists():
        fail(f"There are no studies at {studies}. Give a folder of studies with {option}, or leave it out.")
