"""The command `stenosis-trt build`. As thin as the others: it parses, calls one function, prints."""

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
from stenosis_trt.engine.cli.sign import RequireSignatureOption, SignOption, read_trusted_keys, signing_key

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.signature import TrustedKeys
    from stenosis_trt.engine.plans.build import BuildRequest


def build(
    pack: Annotated[
        Path | None, typer.Argument(help="Model pack's folder. [default: the reference pack]")
    ] = None,
    flavour: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx. [default: what is installed]")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of fp32, fp16 and int8, with commas. [default: all in the pack]")
    ] = "",
    model: Annotated[str, typer.Option(help="Of levels, grader and cord, with commas. [default: all]")] = "",
    batch: Annotated[str, typer.Option(help="Batches to build for, with commas.")] = "1,2,4,6,8,16,32",
    builder_level: Annotated[
        int | None, typer.Option(help="0 to 5: slower to build, faster to run. [default: TensorRT's]")
    ] = None,
    workspace: Annotated[
        str, typer.Option(help="Scratch memory a plan may take, such as 2GiB. [default: all]")
    ] = "",
    tf32: Annotated[bool, typer.Option("--tf32", help="Let FP32 plans compute in TF32.")] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later versions of TensorRT too.")
    ] = False,
    hardware_compatible: Annotated[
        str, typer.Option(help="For other GPUs too: same-compute-capability or ampere-plus.")
    ] = "",
    compute_capability: Annotated[
        str, typer.Option(help="TensorRT-RTX: GPUs to build for, such as 8.6,8.9. [default: 8.0 and later]")
    ] = "",
    dla_core: Annotated[
        int | None, typer.Option(help="Deep learning accelerator of a Jetson to run on.")
    ] = None,
    detailed: Annotated[
        bool, typer.Option("--detailed", help="Keep details of layers for profilers.")
    ] = False,
    timing_cache: Annotated[
        bool, typer.Option(help="Keep measurements of layers for the next build.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Build also what is there already.")] = False,
    sign: SignOption = None,
    require_signature: RequireSignatureOption = None,
) -> None:
    """Build TensorRT plans of a pack's models into the pack, for this machine's GPU or ahead of time.

    With --sign, what is there and not signed with that key is built again: a signature vouches for them.
    Exit code 0: all are there; 1: some could not be built; 2: wrong usage, no TensorRT or no such pack.
    """
    from stenosis_trt.engine.cli.build_options import (
        parse_batches,
        parse_capabilities,
        parse_names,
        parse_size,
    )
    from stenosis_trt.engine.plans.build import BuildRequest
    from stenosis_trt.engine.trt.flavours import BuildSettings

    with exit_on_error():
        key = None if sign is None else signing_key(sign)
        trust = read_trusted_keys(require_signature)
    with exit_on_invalid_value():
        settings = BuildSettings(
            batches=parse_batches(batch),
            builder_level=builder_level,
            workspace_bytes=parse_size(workspace),
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

    troubles = 0
    try:
        with exit_on_error():
            found = open_pack(pack, trust)
            for outcome in build_plans(found, request, query_nvidia_driver(), show_progress):
                typer.echo(build_outcome_line(outcome), err=bool(outcome.reason))
                troubles += bool(outcome.reason)
    except KeyboardInterrupt:
        typer.echo("Interrupted. The plans that were finished are in the pack.", err=True)
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if troubles else 0
