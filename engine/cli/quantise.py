"""The command `stenosis-trt quantise`, and the reports of the gate for `export` and `verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stenosis_trt.engine.cli.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    exit_on_failure,
    exit_on_invalid_value,
    fail,
    needs_package,
    refuse_unused_options,
)
from stenosis_trt.engine.cli.options import (
    SigningKeyOption,
    TrustedKeyOption,
    ValidationStudiesOption,
    ValidationSubjectOption,
    ValidationVolumesOption,
    parse_names,
)
from stenosis_trt.engine.cli.sign import read_signing_key, read_trusted_keys, signed_by_line

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.pack import Pack
    from stenosis_trt.export.precision.gate_result import GateResult
    from stenosis_trt.export.precision.quantise import QuantiseOptions
    from stenosis_trt.export.precision.studies import ValidationOptions


def quantise(
    out: Annotated[
        Path, typer.Option(help="New folder for the pack with the precisions that pass the gate.")
    ],
    pack: Annotated[
        Path | None, typer.Argument(help="Model pack: a folder or a zip. [default: the reference pack]")
    ] = None,
    precision: Annotated[str, typer.Option(help="Comma-separated: fp16, int8.")] = "fp16,int8",
    calibration_studies: Annotated[
        Path | None, typer.Option(help="Studies to calibrate INT8 on. [default: 8 phantoms]")
    ] = None,
    validation_studies: ValidationStudiesOption = None,
    validation_volumes: ValidationVolumesOption = None,
    validation_subject: ValidationSubjectOption = None,
    calibration_method: Annotated[
        str | None, typer.Option(help="entropy, max or percentile. [default: entropy]")
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Of --calibration-method percentile. [default: 99.99]")
    ] = None,
    high_precision_dtype: Annotated[
        str | None,
        typer.Option(help="Type of layers not in INT8: fp16, or fp32 for GPUs without FP16. [default: fp16]"),
    ] = None,
    calibration_inputs: Annotated[int, typer.Option(min=1, help="Calibration inputs per model.")] = 64,
    squeeze_excite_rewrite: Annotated[
        str | None,
        typer.Option(
            help="Keep squeeze-excite out of INT8: on, off, or auto: off if the gate fails. [default: auto]"
        ),
    ] = None,
    leave_out: Annotated[
        float | None,
        typer.Option(
            help="Share of the multiply-adds left in FP16 where INT8 errs most; 0 for none. [default: 0.02]",
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="If INT8 fails the gate, search for blocks to leave out of it.")
    ] = False,
    search_minutes: Annotated[
        float | None, typer.Option(help="Time limit of the search. [default: 60]", show_default=False)
    ] = None,
    search_log: Annotated[
        Path | None,
        typer.Option(help="Folder of the log that a search continues from. [default: OUT.search]"),
    ] = None,
    signing_key: SigningKeyOption = None,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Convert the models of a pack to FP16 and INT8, and keep the precisions that grade like FP32.

    Exit code 0: all passed the gate; 1: some failed and were left out; 2: wrong usage or no usable pack.
    """
    with exit_on_export_error():
        from stenosis_trt.engine.packs.pack import open_pack
        from stenosis_trt.export.precision.convert import Int8Options
        from stenosis_trt.export.precision.exclusion import LEFT_OUT_SHARE
        from stenosis_trt.export.precision.quantise import QuantiseOptions
        from stenosis_trt.export.precision.rewrites import REWRITE_MODES
        from stenosis_trt.export.precision.search import DEFAULT_MINUTES, SearchOptions
        from stenosis_trt.export.precision.studies import ValidationOptions

        if not search and (search_minutes is not None or search_log is not None):
            fail("--search-minutes and --search-log are options of a search. Give --search as well.")
        if parse_names(precision) == ("fp16",):
            refuse_unused_options(
                "int8 in --precision",
                {
                    "calibration-method": calibration_method,
                    "percentile": percentile,
                    "high-precision-dtype": high_precision_dtype,
                    "squeeze-excite-rewrite": squeeze_excite_rewrite,
                    "leave-out": leave_out,
                },
            )
        if calibration_method != "percentile":
            refuse_unused_options("--calibration-method percentile", {"percentile": percentile})
        given: dict[str, Any] = {
            "calibration_method": calibration_method,
            "percentile": percentile,
            "high_precision_dtype": high_precision_dtype,
        }
        with exit_on_invalid_value():
            int8 = Int8Options(**{name: value for name, value in given.items() if value is not None})
            log_folder = search_log or out.with_name(f"{out.name}.search")
            minutes = DEFAULT_MINUTES if search_minutes is None else search_minutes
            options = QuantiseOptions(
                parse_names(precision),
                int8,
                calibration_inputs=calibration_inputs,
                calibration_studies=calibration_studies,
                validation=ValidationOptions(
                    tuple(validation_studies or ()), validation_volumes, tuple(validation_subject or ())
                ),
                squeeze_excite_rewrite=squeeze_excite_rewrite or REWRITE_MODES[0],
                left_out_share=LEFT_OUT_SHARE if leave_out is None else leave_out,
                search=SearchOptions(log_folder, minutes) if search else None,
                signing_key=None if signing_key is None else read_signing_key(signing_key),
            )
        loaded = open_pack(pack, read_trusted_keys(trusted_key))
    raise typer.Exit(quantise_and_report(loaded, out, options))


def quantise_and_report(pack: Pack, out: Path, options: QuantiseOptions) -> int:
    """Write a pack with the precisions that pass the gate to `out`, and print the results of the gate.

    Returns:
        The exit code.

    Raises:
        typer.Exit: the pack cannot be converted; the reason was printed.
    """
    with exit_on_export_error():
        from stenosis_trt.export.precision.quantise import quantise_pack

        try:
            found = quantise_pack(pack, out, options)
        except KeyboardInterrupt:
            if options.search is None or not options.search.log_folder.exists():
                raise
            typer.echo(
                f"Interrupted. No pack was written. The search log is in {options.search.log_folder}; "
                "the same command continues from it.",
                err=True,
            )
            raise typer.Exit(EXIT_INTERRUPTED) from None
    _print(found.outcomes, found.by_model)
    if options.search is not None:
        for line in search_lines(found.search, options.search.log_folder):
            typer.echo(line)
    int8 = found.outcomes.get("int8")
    if int8 is not None and not int8.passed:
        typer.echo(int8_advice(searched=options.search is not None))
    for name in found.without_rewrites:
        typer.echo(f"{name} was converted without the squeeze-excite rewrite: with it, it fails the gate.")
    kept = ", ".join(found.pack.precisions)
    typer.echo(f"{out} contains {kept}. SHA-256 {found.pack.sha256}", err=True)
    if options.signing_key is not None:
        typer.echo(signed_by_line(options.signing_key), err=True)
    return 0 if all(outcome.passed for outcome in found.outcomes.values()) else EXIT_INCOMPLETE


def int8_advice(searched: bool) -> str:
    """Return advice for INT8 models that failed the gate."""
    first = "" if searched else "Search for the blocks to leave out of it (--search). "
    also = "Train" if searched else "If that is not enough, train"
    return (
        f"{first}{also} the network's last steps as INT8: "
        "python -m stenosis_trt.export.training.train --as-int8 0.2 does this for networks of this project."
    )


def search_lines(record: Mapping[str, Any] | None, log_folder: Path) -> Iterator[str]:
    """Yield the lines that report a search."""
    if record is None:
        yield "int8 was not searched: it passes as it is."
        return
    tried = (
        f"{record['candidates_on_validation']} candidates were compared with FP32 on the validation studies"
    )
    ended = "" if record["in_time"] else " The time ran out before the search ended; more may be possible."
    if record["found"]:
        yield f"int8 was searched: {tried}.{ended}"
    else:
        why = "no candidate passed" if record["in_time"] else "none was found in time"
        yield f"int8 was searched, and {why}: {tried}."
    for model, share in record["quantised_share"].items():
        left = ", ".join(record["left_out"].get(model, ())) or "nothing"
        yield f"  {model}: {share:.1%} of the multiply-adds in INT8; left out of it: {left}."
    if "elsewhere" in record:
        failed, on = record["elsewhere"]["failed"], record["elsewhere"]["on"]
        figures = ", ".join(f"{figure} fails by {excess:.4g}" for figure, excess in failed.items())
        verdict = f"{figures}: it may have passed by chance" if failed else "nothing fails"
        yield f"  On {on}, which the search did not use, {verdict}."
    yield f"  Search log: {log_folder}"


def report_gate(pack: Pack, studies: ValidationOptions) -> bool:
    """Repeat the gate for each precision of a pack, print the results, and return True if all pass."""
    with exit_on_export_error():
        from stenosis_trt.export.precision.quantise import repeat_gate

        outcomes = repeat_gate(pack, studies)
    if not outcomes:
        typer.echo("The pack contains only FP32: there is nothing to compare.")
    _print(outcomes, {})
    return all(outcome.passed for outcome in outcomes.values())


def variant_lines(pack: Pack) -> Iterator[str]:
    """Yield one line per variant of a pack."""
    for name, model in pack.models.items():
        for precision, variant in model.variants.items():
            verdict = "passed the gate" if variant.passed else "did NOT pass the gate"
            where = variant.gate.get("validated_on", "unknown studies")
            yield f"  {name} in {precision}: {variant.file}, {verdict} on {where}"


def _print(outcomes: Mapping[str, GateResult], by_model: Mapping[str, Mapping[str, GateResult]]) -> None:
    from stenosis_trt.export.precision.gate_result import gate_report_lines

    for precision, outcome in outcomes.items():
        for line in gate_report_lines(outcome):
            typer.echo(line)
        for model, alone in by_model.get(precision, {}).items():
            failed = ", ".join(check.figure for check in alone.failures)
            verdict = f"FAILS: {failed}" if failed else "passes"
            typer.echo(f"  With only {model} in {precision} it {verdict}.")


@contextmanager
def exit_on_export_error() -> Iterator[None]:
    """`exit_on_failure`, and a message for a missing package."""
    with (
        exit_on_failure("Interrupted. Nothing was written."),
        needs_package("{} is not installed. Install it: pip install 'stenosis-trt[export]'"),
    ):
        yield
