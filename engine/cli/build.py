"""The command `stenosis-trt build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    exit_on_error,
    exit_on_invalid_value,
)
from stenosis_trt.engine.cli.options import (
    SigningKeyOption,
    TrustedKeyOption,
    parse_batches,
    parse_capabilities,
    parse_names,
)
from stenosis_trt.engine.cli.sign import read_signing_key, read_trusted_keys

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.signature import TrustedKeys
    from stenosis_trt.engine.plans.build import BuildRequest


def build(
    pack: Annotated[
        Path | None, typer.Argument(help="Model pack's folder. [default: the reference pack]")
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
    """Build TensorRT plans in a pack, for this machine's GPU or ahead of time.

    With --signing-key, existing plans that are not signed with this key are rebuilt.
    Exit code 0: all plans exist; 1: some could not be built; 2: wrong usage, no TensorRT or no such pack.
    """
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

    failures = 0
    try:
        with exit_on_error():
            found = open_pack(pack, trust)
            for outcome in build_plans(found, request, query_nvidia_driver(), show_progress):
                typer.echo(build_outcome_line(outcome), err=bool(outcome.reason))
                failures += bool(outcome.reason)
    except KeyboardInterrupt:
        typer.echo("Interrupted. The plans that were finished are in the pack.", err=True)
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if failures else 0
