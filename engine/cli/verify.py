"""The command `stenosis-trt verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    exit_on_error,
    exit_on_failure,
    exit_on_invalid_value,
    fail,
    refuse_unused_options,
)
from stenosis_trt.engine.cli.options import (
    TrustedKeyOption,
    ValidationStudiesOption,
    ValidationSubjectOption,
    ValidationVolumesOption,
    parse_names,
)
from stenosis_trt.engine.cli.quantise import exit_on_export_error, report_gate, variant_lines
from stenosis_trt.engine.cli.sign import read_trusted_keys, signature_line

if TYPE_CHECKING:
    from stenosis_trt.engine.backends.base import Float32Array
    from stenosis_trt.engine.packs.pack import Pack
    from stenosis_trt.engine.plans.check import PlanState
    from stenosis_trt.engine.plans.sidecar import RuntimeTarget
    from stenosis_trt.engine.plans.store import StoredPlan
    from stenosis_trt.export.precision.parity import ParityResult
    from stenosis_trt.export.precision.studies import ValidationOptions

_DEVICES = ("", "cpu", "gpu")


def verify(
    pack: Annotated[Path | None, typer.Argument(help="Model pack. [default: the reference pack]")] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Repeat the gate: grades of FP16 and INT8 against those of FP32.")
    ] = False,
    device: Annotated[
        str,
        typer.Option(help="With --gate: cpu for the models, gpu for the plans of this GPU. [default: cpu]"),
    ] = "",
    precision: Annotated[
        str, typer.Option(help="With --device gpu: comma-separated. [default: all in the pack]")
    ] = "",
    validation_studies: ValidationStudiesOption = None,
    validation_volumes: ValidationVolumesOption = None,
    validation_subject: ValidationSubjectOption = None,
    parity: Annotated[
        bool,
        typer.Option("--parity", help="Compare FP16, INT8 and plans with FP32; record the outcome of plans."),
    ] = False,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Print Polygraphy's summary of each model and plan.")
    ] = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Check that a pack is complete, that its files have the hashes of its manifest, and that its models run.

    Plans are checked too. Inputs for --parity are cut from --validation-studies, or from phantoms. With
    studies or volumes, or --device, the gate is repeated without --gate too.
    Exit code 0: all checks pass; 1: a precision fails the gate, or a plan is changed, stale or differs from
    FP32; 2: the pack cannot be used.
    """
    from stenosis_trt.engine.backends.cpu.backend import CpuBackend
    from stenosis_trt.engine.packs.pack import open_pack
    from stenosis_trt.engine.plans.check import INTACT, check_plans, state_lines
    from stenosis_trt.engine.support.hardware import query_nvidia_driver

    if device not in _DEVICES:
        fail(f"There is no device {device!r} to repeat the gate on. Give one of {', '.join(_DEVICES[1:])}.")
    if device != "gpu":
        refuse_unused_options("--device gpu", {"precision": precision or None})
    with exit_on_invalid_value():
        from stenosis_trt.export.precision.studies import ValidationOptions

        validation = ValidationOptions(
            tuple(validation_studies or ()), validation_volumes, tuple(validation_subject or ())
        )
    with exit_on_error():
        found = open_pack(pack, read_trusted_keys(trusted_key))
        for each in found.precisions:
            CpuBackend(found.in_precision(each)).close()
    typer.echo(f"{found.name} {found.version}: every file is what pack.json names, and every model runs.")
    typer.echo(f"SHA-256 {found.sha256}")
    typer.echo(signature_line(found))
    typer.echo(f"Intended use: {found.intended_use}")
    typer.echo(f"Clinical use: {'declared' if found.clinical_use else 'not declared'}")
    for name, model in found.models.items():
        size = f"{model.input.channels} × {model.input.height} × {model.input.width}"
        typer.echo(f"  {name}: {model.file}, input {size} at {model.input.spacing_mm} mm, {model.precision}")
    for line in variant_lines(found):
        typer.echo(line)
    with exit_on_error():
        plans = list(check_plans(found, query_nvidia_driver()))
    for plan in plans:
        for line in state_lines(found, plan):
            typer.echo(line)
    well = all(plan.state == INTACT for plan in plans)
    if inspect:
        _inspect(found, plans)
    if parity:
        well &= _compare(found, plans, validation.studies[0] if validation.studies else None)
    if device == "gpu":
        well &= _report_plan_gate(found, parse_names(precision), validation)
    elif gate or device or validation != ValidationOptions():
        well &= report_gate(found, validation)
    raise typer.Exit(0 if well else EXIT_INCOMPLETE)


def _report_plan_gate(pack: Pack, precisions: Sequence[str], validation: ValidationOptions) -> bool:
    """Run the gate on plans, print and record the results, and return True if all pass.

    Without precisions, those are measured that have plans for this GPU.
    """
    from stenosis_trt.export.precision.gate_result import gate_report_lines
    from stenosis_trt.export.precision.plan_gate import find_plans, measure_plans, record_outcome

    well = True
    with exit_on_failure("Interrupted. The precisions that were finished have their outcome."):
        chosen = find_plans(pack, precisions)
        for found in measure_plans(pack, chosen, validation.resolve()):
            for line in gate_report_lines(found.outcome):
                typer.echo(line)
            well &= found.outcome.passed
            if found.decides_nothing:
                typer.echo("  Not recorded: give more studies, or such as show every figure.", err=True)
                continue
            for name in record_outcome(found):
                typer.echo(
                    f"  Not recorded for {name}: its sidecar is signed. Compare before stenosis-trt sign.",
                    err=True,
                )
    return well


def _compare(pack: Pack, plans: Sequence[PlanState], studies: Path | None) -> bool:
    """Compare variants and loadable plans with FP32, print the outcomes, and return True if all agree."""
    loadable = [(state.plan, state.target) for state in plans if state.plan and state.target]
    if not loadable and not any(model.variants for model in pack.models.values()):
        typer.echo(
            "The pack holds nothing but FP32, and no plan that can be loaded here: nothing to compare."
        )
        return True
    well = True
    with exit_on_export_error():
        from stenosis_trt.export.precision.parity import compare_files, parity_inputs

        try:
            inputs, source = parity_inputs(pack, studies)
            typer.echo(f"Compared with FP32 in ONNX Runtime, on inputs from {source}:")
            for found in compare_files(pack, inputs):
                well &= _show(found)
            for plan, here in loadable:
                well &= _compare_plan(pack, plan, here, inputs[plan.sidecar.model], source)
        except KeyboardInterrupt:
            typer.echo("Interrupted. The plans that were finished have their outcome.", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    return well


def _compare_plan(
    pack: Pack, plan: StoredPlan, here: RuntimeTarget, inputs: Float32Array, source: str
) -> bool:
    """Compare a plan with FP32 and record the outcome in its sidecar; return True if it agrees."""
    from stenosis_trt.engine.errors import TensorRTError
    from stenosis_trt.engine.plans.store import record_measurement
    from stenosis_trt.engine.trt.api import TensorRT
    from stenosis_trt.engine.trt.flavours import FLAVOURS
    from stenosis_trt.export.errors import PreparationError
    from stenosis_trt.export.precision.parity import compare_plan, parity_record

    batches = []
    try:
        for found in compare_plan(pack, plan, TensorRT(FLAVOURS[here.flavour]), inputs):
            _show(found)
            batches.append(found)
    except (TensorRTError, PreparationError) as error:
        typer.echo(f"  {plan.path.relative_to(pack.path)}: not compared. {error}", err=True)
        return False
    if plan.signature is None:
        record_measurement(plan, parity_record(batches, source, here))
    else:
        typer.echo("    Not recorded: its sidecar is signed. Compare before stenosis-trt sign.", err=True)
    return all(found.passed for found in batches)


def _show(found: ParityResult) -> bool:
    from stenosis_trt.export.precision.parity import parity_lines

    for line in parity_lines(found):
        typer.echo(line)
    return found.passed


def _inspect(pack: Pack, plans: Sequence[PlanState]) -> None:
    """Print Polygraphy's summaries of the models, and of the plans that can be loaded here."""
    with exit_on_export_error():
        from stenosis_trt.engine.plans.store import model_files, read_model_file
        from stenosis_trt.engine.trt.api import TensorRT
        from stenosis_trt.engine.trt.flavours import FLAVOURS
        from stenosis_trt.export.onnx.comparator import onnx_summary, plan_summary

        for name in pack.models:
            for file in model_files(pack, name).values():
                typer.echo(f"\n{file.file}\n{onnx_summary(read_model_file(pack, name, file))}")
        for state in plans:
            if state.plan and state.target:
                tensorrt = TensorRT(FLAVOURS[state.target.flavour])
                typer.echo(f"\n{state.path}\n{plan_summary(pack, state.plan, tensorrt)}")
            else:
                typer.echo(f"{state.path}: not shown: {state.reason or state.load_blocker}.", err=True)
