"""The command `stenosis-trt phantom`."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import (
    EXIT_INTERRUPTED,
    exit_on_error,
    exit_on_invalid_value,
    fail,
    needs_package,
    refuse_unused_options,
)

if TYPE_CHECKING:
    from stenosis_trt.bench.phantom.conditions import Conditions
    from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    studies: Annotated[int, typer.Option(help="Number of studies.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed; equal seeds give equal studies.")] = 0,
    grade: Annotated[
        int | None, typer.Option(help="Kang grade of every stenosis, 0–3. [default: mixed]")
    ] = None,
    transfer_syntax: Annotated[
        str, typer.Option(help="explicit, implicit, big-endian, deflated, rle, jpeg-ls or jpeg2000.")
    ] = "explicit",
    workers: Annotated[int, typer.Option(min=1, help="Processes that write studies.")] = 1,
    anatomy: Annotated[
        Path | None,
        typer.Option(
            metavar="VOLUMES", help="Folder of real volumes to place stenoses in. [default: painted anatomy]"
        ),
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(help="With --anatomy: use only this volume; repeatable. [default: all]"),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=STRENGTH",
            help="How every study differs from an ordinary one, as pitch=10 or noise=0.05; repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run with the same options.")
    ] = False,
) -> None:
    """Write synthetic cervical spine studies with exact truth (truth.csv)."""
    from concurrent.futures.process import BrokenProcessPool

    from stenosis_trt.bench.phantom import PhantomOptions, PhantomSource, parse_conditions, write_studies
    from stenosis_trt.engine.support.progress import show_progress

    if anatomy is None:
        refuse_unused_options("--anatomy", {"subject": subject or None})
    with exit_on_invalid_value():
        conditions = parse_conditions(condition or ())
        options = PhantomOptions(studies, seed, grade, transfer_syntax, workers, PhantomSource(conditions))
        if anatomy is not None:
            options = replace(options, source=_anatomies(anatomy, subject, conditions))
    try:
        with exit_on_error(), show_progress("Making phantoms", "studies") as progress:
            truth = write_studies(out, options, progress.advance, resume)
    except BrokenProcessPool:
        fail(
            "A process was killed, possibly because memory ran out. The finished studies are in "
            f"{out}: continue with --resume and fewer --workers."
        )
    except OSError as error:
        # With --anatomy it may be the cache of straightened volumes.
        place = error.filename or out
        if error.errno == errno.ENOTEMPTY and not resume:
            advice = "Give another folder. --resume continues an interrupted run."
        else:
            advice = "Give another folder."
        fail(f"{place} cannot be written ({error.strerror}). {advice}")
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted. The studies that were finished are in {out}, with their truth; --resume goes on.",
            err=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(f"{studies} {'study' if studies == 1 else 'studies'} with truth in {truth}", err=True)


def _anatomies(volumes: Path, subjects: list[str] | None, conditions: Conditions) -> SemisyntheticSource:
    """Return the subjects below a folder of volumes, or exit with a message."""
    with needs_package("The package {} reads volumes. Install stenosis-trt[bench]."):
        from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
        from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
    try:
        return SemisyntheticSource(tuple(subjects or SUBJECTS), volumes, conditions=conditions)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}. Give a folder with one folder a subject.")
