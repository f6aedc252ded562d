"""The command `stenosis-trt build`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    exit_on_error,
    exit_on_invalid_value,
    fail,
)
from stenosis_trt.engine.cli.options import (
    SigningKeyOption,
    TrustedKeyOption,
    parse_batches,
    parse_capabilities,
    parse_names,
)
from stenosis_trt.engine.cli.sign import read_signing_key, read_trusted_keys

_DEVICES = ("gpu", "cpu")
_ONLY_CPU = ("studies", "threads")
_ONLY_GPU = (
    *("flavour", "precision", "model", "batch", "builder_level", "workspace", "tf32", "version_compatible"),
    *("hardware_compatible", "compute_capability", "dla_core", "detailed", "timing_cache", "force"),
)
"""Parameters that only one device reads."""

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.signature import TrustedKeys
    from stenosis_trt.engine.plans.build import BuildOutcome, BuildRequest
    from stenosis_trt.engine.support.hardware import NvidiaDriver


def build(
    context: typer.Context,
    pack: Annotated[
        Path | None, typer.Argument(help="Model pack's folder. [default: the reference pack]")
    ] = None,
    device: Annotated[
        str, typer.Option(help="gpu for TensorRT plans; cpu for the table of this machine's CPU.")
    ] = "gpu",
    studies: Annotated[
        Path | None,
        typer.Option(help="With cpu: studies that the gate compares with FP32. [default: 20 phantoms]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With cpu: as grade --threads. [default: all cores]")
    ] = None,
    flavour: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx. [default: the installed one]")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Comma-separated: fp32, fp16, int8. [default: all in the pack]")
    ] = "",
    model: Annotated[str, typer.Option(help="Comma-separated: levels, grader, cord. [default: all]")] = "",
    batch: Annotated[str, typer.Option(help="Comma-separated batch sizes.")] = "1,2,4,6,8,16,32",
    builder_level: Annotated[
        int | None,
        typer.Option(
            help="Optimization level, 0 to 5: higher builds longer, runs faster. [default: TensorRT's]"
        ),
    ] = None,
    workspace: Annotated[
        str, typer.Option(help="Limit of scratch memory of a plan, such as 2GiB. [default: all memory]")
    ] = "",
    tf32: Annotated[bool, typer.Option("--tf32", help="Allow TF32 in FP32 plans.")] = False,
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="Build plans that later versions of TensorRT also load."),
    ] = False,
    hardware_compatible: Annotated[
        str, typer.Option(help="Build plans for other GPUs too: same-compute-capability or ampere-plus.")
    ] = "",
    compute_capability: Annotated[
        str,
        typer.Option(
            help="TensorRT-RTX: compute capabilities of the GPUs, such as 8.6,8.9. [default: 8.0 and later]"
        ),
    ] = "",
    dla_core: Annotated[
        int | None, typer.Option(help="Number of the Jetson's deep learning accelerator to run on.")
    ] = None,
    detailed: Annotated[
        bool, typer.Option("--detailed-profiling", help="Keep details of layers for profilers.")
    ] = False,
    timing_cache: Annotated[bool, typer.Option(help="Keep timings of layers for later builds.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Rebuild plans that exist.")] = False,
    signing_key: SigningKeyOption = None,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Build TensorRT plans in a pack, for this machine's GPU or ahead of time; or measure this CPU.

    With --device cpu, how each model runs fastest on this CPU is measured, in bfloat16 and INT8 too, and kept
    in the pack for `grade`, if the gate finds the grades of FP32.
    With --signing-key, existing plans that are not signed with this key are rebuilt.
    Exit code 0: all plans exist, or every precision passed the gate; 1: some could not be built, or failed;
    2: wrong usage, no TensorRT or no such pack.
    """
    if device not in _DEVICES:
        fail(f"There is no device {device!r} to build for. Give one of {', '.join(_DEVICES)}.")
    others = _ONLY_GPU if device == "cpu" else _ONLY_CPU
    sources = {name: context.get_parameter_source(name) for name in others}
    given = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        fail(f"Nothing reads {names} with --device {device}. Leave out the one, or give another device.")
    if device == "cpu":
        from stenosis_trt.engine.cli.build_cpu import build_for_cpu

        raise typer.Exit(build_for_cpu(pack, studies, threads, signing_key, trusted_key))
    from stenosis_trt.engine.plans.build import BuildRequest
    from stenosis_trt.engine.support.sizes import parse_size
    from stenosis_trt.engine.trt.flavours import BuildSettings

    with exit_on_error():
        key = None if signing_key is None else read_signing_key(signing_key)
        trust = read_trusted_keys(trusted_key)
    with exit_on_invalid_value():
        settings = BuildSettings(
            batches=parse_batches(batch),
            builder_level=builder_level,
            workspace_bytes=parse_size(workspace) if workspace else None,
            tf32=tf32,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            compute_capabilities=parse_capabilities(compute_capability),
            dla_core=dla_core,
            detailed=detailed,
        )
        request = BuildRequest(
            flavour, parse_names(precision), parse_names(model), settings, force, timing_cache, key
        )
    raise typer.Exit(_build(pack, request, trust))


def _build(pack: Path | None, request: BuildRequest, trust: TrustedKeys | None) -> int:
    from stenosis_trt.engine.packs.pack import open_pack
    from stenosis_trt.engine.plans.build import build_outcome_line, build_plans
    from stenosis_trt.engine.support.hardware import query_nvidia_driver
    from stenosis_trt.engine.support.progress import show_progress

    failures, driver = 0, query_nvidia_driver()
    try:
        with exit_on_error():
            found = open_pack(pack, trust)
            for outcome in _advise_cpu(build_plans(found, request, driver, show_progress), driver):
                typer.echo(build_outcome_line(outcome), err=bool(outcome.reason))
                failures += bool(outcome.reason)
    except KeyboardInterrupt:
        typer.echo("Interrupted. The plans that were finished are in the pack.", err=True)
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if failures else 0


def _advise_cpu(outcomes: Iterator[BuildOutcome], driver: NvidiaDriver) -> Iterator[BuildOutcome]:
    """Yield the outcomes; where there is no GPU, an error names the build for a CPU too."""
    from stenosis_trt.engine.errors import TensorRTError

    try:
        yield from outcomes
    except TensorRTError as error:
        if driver.gpus:
            raise
        advice = f"{error.advice} Without a GPU, measure the CPU instead: stenosis-trt build --device cpu"
        raise TensorRTError(error.reason, advice.strip()) from error
