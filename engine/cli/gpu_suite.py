"""The command `stenosis-trt bench gpu-suite`."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stenosis_trt.engine.cli.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    exit_on_error,
    exit_on_invalid_value,
    fail,
)
from stenosis_trt.engine.cli.options import FlavourOption, PackOption, parse_batches, parse_names

if TYPE_CHECKING:
    from stenosis_trt.bench.speed.suite.system import SuiteOptions

_QUICK_STUDIES, _STUDIES = 16, 100
_QUICK_BATCHES, _BATCHES = "1,6,16,32", "1,2,4,6,8,16,32"
_QUICK_GAPS, _GAPS = (0.0, 0.1, 1.0), (0.0, 0.1, 1.0, 10.0)


def gpu_suite(
    out: Annotated[Path, typer.Option(help="Folder for the record, studies and plans.")],
    pack: PackOption = None,
    precision: Annotated[
        str, typer.Option(help="Comma-separated: fp32, fp16, int8. [default: all in the pack]")
    ] = "",
    flavour: FlavourOption = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Run only this scenario; repeatable. [default: all]"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run for about four minutes; what exceeds that is skipped.")
    ] = False,
    studies: Annotated[
        int | None, typer.Option(min=1, help="Phantoms to grade on GPU and CPU. [default: 100; quick: 16]")
    ] = None,
    batch: Annotated[
        str, typer.Option(help=f"Comma-separated batch sizes. [default: {_BATCHES}; quick: {_QUICK_BATCHES}]")
    ] = "",
    workers: Annotated[str, typer.Option(help="Comma-separated numbers of reading processes.")] = "1,2,4,8",
    idle_seconds: Annotated[
        list[float] | None,
        typer.Option(
            min=0.0, metavar="SECONDS", help="Idle time before a study; repeatable. [default: 0 to 10]"
        ),
    ] = None,
    existing_studies: Annotated[
        Path | None, typer.Option(help="Folder with a folder per study, used instead of new phantoms.")
    ] = None,
    single_study: Annotated[
        Path | None, typer.Option(help="Study for the scenarios of one study, instead of a new phantom.")
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare-only", help="Write the studies and exit; needs no GPU.")
    ] = False,
) -> None:
    """Build plans, compare results of GPU and CPU, measure speed, and write the record to OUT.

    Needs no network. Exit code 0: the results agree within their limits; 1: they do not, or a scenario
    failed; 2: wrong usage, no pack, or no GPU. Speed does not change the exit code.
    """
    from stenosis_trt.bench.speed.gpu_suite import SCENARIOS, make_studies
    from stenosis_trt.bench.speed.suite.system import SuiteOptions
    from stenosis_trt.engine.packs.pack import PRECISIONS, reference_pack

    for what, given, known in (
        ("scenario", scenario or [], tuple(SCENARIOS)),
        ("precision", parse_names(precision), PRECISIONS),
    ):
        for name in given:
            if name not in known:
                fail(f"There is no {what} {name!r}. Give one of {', '.join(known)}.")
    for path in (existing_studies, single_study):
        if path is not None and not path.is_dir():
            fail(f"There is no folder {path}. Give one with studies.")
    with exit_on_invalid_value():
        options = SuiteOptions(
            out=out,
            pack=pack or reference_pack(),
            precisions=parse_names(precision),
            flavour=flavour,
            batches=parse_batches(batch or (_QUICK_BATCHES if quick else _BATCHES)),
            studies=studies or (_QUICK_STUDIES if quick else _STUDIES),
            workers=_counts(workers),
            gaps_seconds=tuple(idle_seconds) if idle_seconds else (_QUICK_GAPS if quick else _GAPS),
            scenarios=tuple(name for name in SCENARIOS if name in scenario) if scenario else (),
            quick=quick,
            command=shlex.join(["stenosis-trt", *sys.argv[1:]]),
            phantoms=existing_studies,
            one_study=single_study,
            peer=_efficientnet if importlib.util.find_spec("torch") else None,
        )
    try:
        if prepare:
            typer.echo(f"Made: {make_studies(options)}. Take it along as a folder of --out.", err=True)
            return
        _run(options)
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. What was measured is in {out}.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OSError as error:
        fail(f"{error.filename or out} cannot be used ({error.strerror}). Give another folder.")


def _counts(text: str) -> tuple[int, ...]:
    """Parse numbers of processes: "8,1" is (1, 8).

    Raises:
        ValueError: an item is not a positive integer.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"{text!r} are no numbers of processes. Give some, such as --workers 1,8.")
    return tuple(sorted({int(part) for part in parts}))


def _run(options: SuiteOptions) -> None:
    from stenosis_trt.bench.speed.gpu_suite import run_suite

    with exit_on_error():
        passed, table = run_suite(options)
    for line in table:
        typer.echo(line)
    raise typer.Exit(0 if passed else EXIT_INCOMPLETE)


def _efficientnet(classes: int) -> Any:
    """Return the network of the grader with random weights, to time it in PyTorch."""
    from stenosis_trt.export.models.efficientnet import EfficientNetB5

    return EfficientNetB5(classes)
