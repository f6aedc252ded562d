"""The command `stenosis-trt quantise`, and the gate that `verify --validate` repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stenosis_trt.engine.cli.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    exit_on_error,
    exit_on_invalid_value,
    fail,
    fail_with_memory_error,
    fail_with_os_error,
    needs_package,
    refuse_unused_options,
)
from stenosis_trt.engine.cli.sign import (
    RequireSignatureOption,
    SignOption,
    read_trusted_keys,
    signed_by_line,
    signing_key,
)

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.pack import Pack
    from stenosis_trt.export.precision.gate import GateResult
    from stenosis_trt.export.precision.quantise import QuantiseOptions


def quantise(
    out: Annotated[Path, typer.Option(help="New folder for the pack with what passed the gate.")],
    pack: Annotated[
        Path | None, typer.Argument(help="Model pack: a folder or a zip. [default: the reference pack]")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp16, int8, or both with a comma.")] = "fp16,int8",
    calibrate: Annotated[
        Path | None, typer.Option(help="Studies to calibrate on. [default: 8 phantoms]")
    ] = None,
    validate: Annotated[
        Path | None, typer.Option(help="Studies to compare with FP32 on. [default: 20 phantoms]")
    ] = None,
    calibrator: Annotated[
        str | None, typer.Option(help="Of INT8: entropy, max or percentile. [default: entropy]")
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Of the calibrator of that name. [default: 99.99]")
    ] = None,
    elsewhere: Annotated[
        str | None,
        typer.Option(
            help="What runs between INT8 layers: fp16, or fp32 for machines without FP16. [default: fp16]"
        ),
    ] = None,
    inputs: Annotated[int, typer.Option(min=1, help="Inputs of each model to calibrate on.")] = 64,
    rewrite: Annotated[
        str | None,
        typer.Option(
            help="Squeeze-excite out of INT8: on, off, or auto: off where the gate says so. [default: auto]"
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Where INT8 fails, search for the blocks to leave out of it.")
    ] = False,
    time_budget: Annotated[
        float | None, typer.Option(help="Minutes that a search may take. [default: 60]", show_default=False)
    ] = None,
    trail: Annotated[
        Path | None,
        typer.Option(help="Folder of a search's trail, which it goes on from. [default: OUT.search]"),
    ] = None,
    sign: SignOption = None,
    require_signature: RequireSignatureOption = None,
) -> None:
    """Make FP16 and INT8 of a pack's models, and publish those that grade as FP32 does.

    Exit code 0: all passed the gate; 1: some did not and were left out; 2: wrong usage or no usable pack.
    """
    from stenosis_trt.engine.cli.build_options import parse_names

    with exit_on_export_error():
        from stenosis_trt.engine.packs.pack import open_pack
        from stenosis_trt.export.precision.convert import Int8Options
        from stenosis_trt.export.precision.quantise import QuantiseOptions
        from stenosis_trt.export.precision.rewrites import REWRITE_MODES
        from stenosis_trt.export.precision.search import DEFAULT_MINUTES, SearchOptions

        if not search and (time_budget is not None or trail is not None):
            fail("--time-budget and --trail are of a search. Give --search as well.")
        how: dict[str, Any] = {"calibrator": calibrator, "percentile": percentile, "elsewhere": elsewhere}
        if parse_names(precision) == ("fp16",):
            refuse_unused_options("int8 in --precision", {**how, "rewrite": rewrite})
        if calibrator != "percentile":
            refuse_unused_options("--calibrator percentile", {"percentile": percentile})
        with exit_on_invalid_value():
            int8 = Int8Options(**{name: value for name, value in how.items() if value is not None})
            kept_in = trail or out.with_name(f"{out.name}.search")
            minutes = DEFAULT_MINUTES if time_budget is None else time_budget
            options = QuantiseOptions(
                parse_names(precision),
                int8,
                calibration_inputs=inputs,
                calibration_studies=calibrate,
                validation_studies=validate,
                squeeze_excite_rewrite=rewrite or REWRITE_MODES[0],
                search=SearchOptions(kept_in, minutes) if search else None,
                signing_key=None if sign is None else signing_key(sign),
            )
        loaded = open_pack(pack, read_trusted_keys(require_signature))
    raise typer.Exit(quantise_and_report(loaded, out, options))


def quantise_and_report(pack: Pack, out: Path, options: QuantiseOptions) -> int:
    """Write a pack with the precisions that pass to `out`, print what the gate found, give the exit code.

    Raises:
        typer.Exit: it cannot be done; why was printed.
    """
    with exit_on_export_error():
        from stenosis_trt.export.precision.quantise import quantise_pack

        try:
            found = quantise_pack(pack, out, options)
        except KeyboardInterrupt:
            if options.search is None or not options.search.log_folder.exists():
                raise
            typer.echo(
                f"Interrupted. No pack was written; the trail is in {options.search.log_folder}, "
                "and the same command goes on from it.",
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
        typer.echo(f"{name} was made without rewrites: with them it does not pass the gate.")
    kept = ", ".join(found.pack.precisions)
    typer.echo(f"{out} holds {kept}. SHA-256 {found.pack.sha256}", err=True)
    if options.signing_key is not None:
        typer.echo(signed_by_line(options.signing_key), err=True)
    return 0 if all(outcome.passed for outcome in found.outcomes.values()) else EXIT_INCOMPLETE


def int8_advice(searched: bool) -> str:
    """What to do about INT8 that the gate refused."""
    first = "" if searched else "Search for the blocks to leave out of it (--search). "
    also = "Train" if searched else "Where that is not enough, train"
    return (
        f"{first}{also} the network's last steps as INT8: "
        "python -m stenosis_trt.export.training.train --as-int8 0.2 does it for networks of this project."
    )


def search_lines(record: Mapping[str, Any] | None, trail: Path) -> Iterator[str]:
    """What came of a search, for a person."""
    if record is None:
        yield "int8 was not searched: it passes as it is."
        return
    tried = f"{record['candidates_on_validation']} candidates were held against the validation studies"
    ended = "" if record["in_time"] else " The time was over before the search was; more may be possible."
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
        yield f"  On {on}, which it was not searched on, {verdict}."
    yield f"  Trail: {trail}"


def report_gate(pack: Pack, validate: Path) -> bool:
    """Repeat the gate for each precision in a pack, print it, and say whether all passed."""
    with exit_on_export_error():
        from stenosis_trt.export.precision.quantise import repeat_gate

        outcomes = repeat_gate(pack, validate)
    if not outcomes:
        typer.echo("The pack holds nothing but FP32: there is nothing to compare with it.")
    _print(outcomes, {})
    return all(outcome.passed for outcome in outcomes.values())


def variant_lines(pack: Pack) -> Iterator[str]:
    """The variants of a pack, one a line."""
    for name, model in pack.models.items():
        for precision, variant in model.variants.items():
            verdict = "passed the gate" if variant.passed else "did NOT pass the gate"
            where = variant.gate.get("validated_on", "unknown studies")
            yield f"  {name} in {precision}: {variant.file}, {verdict} on {where}"


def _print(outcomes: Mapping[str, GateResult], by_model: Mapping[str, Mapping[str, GateResult]]) -> None:
    from stenosis_trt.export.precision.gate import gate_report_lines

    for precision, outcome in outcomes.items():
        for line in gate_report_lines(outcome):
            typer.echo(line)
        for model, alone in by_model.get(precision, {}).items():
            failed = ", ".join(check.figure for check in alone.failures)
            verdict = f"FAILS: {failed}" if failed else "passes"
            typer.echo(f"  With only {model} in {precision} it {verdict}.")


@contextmanager
def exit_on_export_error() -> Iterator[None]:
    """`exit_on_error`, and messages for missing packages, the file system, memory and Ctrl-C."""
    try:
        with (
            needs_package("{} is not installed. Install it: pip install 'stenosis-trt[export]'"),
            exit_on_error(),
        ):
            try:
                yield
            except OSError as error:
                fail_with_os_error(error)
            except MemoryError as error:
                fail_with_memory_error(error)
    except KeyboardInterrupt:
        typer.echo("Interrupted. Nothing was written.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
