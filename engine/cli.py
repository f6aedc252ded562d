"""The command line. Thin: every command parses, calls one function, prints; heavy imports happen inside."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli_build import build
from stenosis_trt.engine.cli_errors import INTERRUPTED, NOT_ALL, fail, usage_errors, wrong_values
from stenosis_trt.engine.cli_export import export
from stenosis_trt.engine.cli_quantise import quantise, validate_variants, variant_lines

if TYPE_CHECKING:
    from stenosis_trt.engine.batch import GradeOptions, Outcome
    from stenosis_trt.engine.dicom.limits import ReadLimits

app = typer.Typer(
    name="stenosis-trt",
    help="Grade cervical spinal stenosis from MR: Kang grade and cord compression ratio per disc level.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

bench_app = typer.Typer(help="Measure how fast things are on this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

PathsArgument = Annotated[list[Path], typer.Argument(help="Folders, files or DICOMDIRs.", show_default=False)]
PackOption = Annotated[
    Path | None, typer.Option(help="Model pack: a folder or a zip. [default: the reference pack]")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or gpu; gpu never falls back to the CPU.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Processes that read files.")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A limit of reading, such as max_file_bytes=4GiB; repeatable."),
]


def main() -> None:
    """Entry point of the command `stenosis-trt`."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that cannot show a character gets its code, instead of this a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


def _some_exist(paths: list[Path]) -> None:
    if not any(map(os.path.lexists, paths)):
        shown = ", ".join(map(str, paths))
        fail(f"There is nothing at {shown}. Give folders, files or DICOMDIRs that are there.")


def _version(shown: bool) -> None:
    if shown:
        from stenosis_trt.engine.run_record import package_version

        typer.echo(package_version("stenosis-trt"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print tracebacks of failed studies.")] = False,
) -> None:
    if verbose:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
        for noisy in ("pydicom", "matplotlib"):
            logging.getLogger(noisy).setLevel(logging.WARNING)


def _limits(settings: list[str] | None) -> ReadLimits:
    from stenosis_trt.engine.dicom.limits import with_settings

    return with_settings(settings or [])


@app.command()
def grade(
    paths: PathsArgument,
    out: Annotated[Path, typer.Option(help="Folder for results.csv, results.jsonl, errors.csv, run.json.")],
    pack: PackOption = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8: what the pack holds.")] = "fp32",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
    workers: WorkersOption = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with. [default: all cores]")
    ] = None,
    keep_identifiers: Annotated[
        bool, typer.Option("--keep-identifiers", help="Write the PatientID to the results.")
    ] = False,
    limit: LimitOption = None,
) -> None:
    """Grade every study below PATHS.

    Exit code 0: all graded; 1: something could not be graded (see errors.csv); 2: wrong usage or no pack;
    130: interrupted.
    """
    from stenosis_trt.engine.batch import GradeOptions

    _some_exist(paths)
    with wrong_values():
        options = GradeOptions(
            pack=pack,
            device=device,
            precision=precision,
            resume=resume,
            workers=workers,
            threads=threads,
            keep_identifiers=keep_identifiers,
            limits=_limits(limit),
        )
    raise typer.Exit(_grade(paths, out, options))


def _grade(paths: list[Path], out: Path, options: GradeOptions) -> int:
    from stenosis_trt.engine.batch import grade_paths

    try:
        with usage_errors():
            outcome = grade_paths(paths, out, options)
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. What was graded is in {out}; --resume goes on from there.", err=True)
        return INTERRUPTED
    typer.echo(_summary(outcome), err=True)
    return outcome.exit_code


def _summary(outcome: Outcome) -> str:
    if outcome.studies:
        parts = [f"{outcome.graded} of {outcome.studies} studies graded"]
    else:
        parts = ["No study was found"]
    if outcome.skipped:
        parts.append(f"{outcome.skipped} done before")
    if outcome.failed:
        parts.append(f"{outcome.failed} could not be graded")
    if outcome.problems:
        problems = "1 problem" if outcome.problems == 1 else f"{outcome.problems} problems"
        parts.append(f"{problems} in {outcome.out / 'errors.csv'}")
    return f"{', '.join(parts)}. Results: {outcome.out / 'results.csv'}"


@app.command()
def inspect(paths: PathsArgument, workers: WorkersOption = 1, limit: LimitOption = None) -> None:
    """Show the series found below PATHS, which would be graded, and why not the others."""
    from stenosis_trt.engine.choose import choose
    from stenosis_trt.engine.dicom.reader import DicomReader
    from stenosis_trt.engine.inspection import inspection_lines, inspection_tables, visible

    _some_exist(paths)
    with wrong_values():
        limits = _limits(limit)
    with usage_errors(), DicomReader(limits, workers) as reader:
        scan = reader.scan(paths)
    choices = [choose(study) for study in sorted(scan.studies, key=attrgetter("path", "study_uid"))]
    if sys.stdout.isatty():
        from rich.console import Console

        # A description is no markup, whatever brackets it has.
        console = Console(markup=False, emoji=False)
        for table in inspection_tables(choices):
            console.print(table)
    else:
        for line in inspection_lines(choices):
            typer.echo(line)
    for number, choice in enumerate(choices, start=1):
        if choice.problem is not None:
            typer.echo(f"Study {number}: {choice.problem.reason} {choice.problem.advice}", err=True)
        elif choice.flags:
            typer.echo(f"Study {number}: can be graded; {', '.join(choice.flags)}.", err=True)
    if not choices:
        typer.echo("No study was found.", err=True)
    for problem in scan.problems:
        typer.echo(f"{visible(problem.path)}: {problem.reason} {problem.advice}", err=True)
    raise typer.Exit(0 if choices and all(choice.problem is None for choice in choices) else NOT_ALL)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    studies: Annotated[int, typer.Option(help="How many.")] = 3,
    seed: Annotated[int, typer.Option(help="The same seed gives the same studies.")] = 0,
    grade: Annotated[
        int | None, typer.Option(help="Kang grade of every stenosis, 0–3. [default: mixed]")
    ] = None,
    syntax: Annotated[
        str,
        typer.Option(
            help="Transfer syntax: explicit, implicit, big-endian, deflated, rle, jpeg-ls or jpeg2000."
        ),
    ] = "explicit",
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
) -> None:
    """Write synthetic cervical spine studies with exact truth (truth.csv)."""
    from stenosis_trt.bench.phantom import PhantomOptions, write_studies
    from stenosis_trt.engine.progress import show_progress

    with wrong_values():
        options = PhantomOptions(studies, seed, grade, syntax, workers)
    try:
        with show_progress("Making phantoms", "studies") as progress:
            truth = write_studies(out, options, progress.advance)
    except OSError as error:
        fail(f"{out} cannot be written ({error.strerror}). Give another folder.")
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. The studies that were finished are in {out}, with their truth.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"{studies} {'study' if studies == 1 else 'studies'} with truth in {truth}", err=True)


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Keep the studies and results here. [default: a temporary folder]")
    ] = None,
) -> None:
    """Make three synthetic studies, grade them and print the results beside the truth."""
    from tempfile import TemporaryDirectory

    from stenosis_trt.engine.demo import run_demo

    try:
        with usage_errors():
            if out is not None:
                code = run_demo(out)
            else:
                with TemporaryDirectory(prefix="stenosis-demo-") as folder:
                    code = run_demo(Path(folder))
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        code = INTERRUPTED
    raise typer.Exit(code)


@app.command()
def verify(
    pack: Annotated[Path | None, typer.Argument(help="Model pack. [default: the reference pack]")] = None,
    validate: Annotated[
        Path | None, typer.Option(help="Studies on which FP16 and INT8 are compared with FP32 again.")
    ] = None,
) -> None:
    """Check that a pack is whole, that each file is what its manifest names, and that each model runs.

    Exit code 0: all is well; 1: a precision no longer passes the gate; 2: the pack cannot be used.
    """
    from stenosis_trt.engine.backends.selection import decide, open_backend
    from stenosis_trt.engine.pack import Pack, reference_pack

    with usage_errors():
        found = Pack.load(pack or reference_pack())
        for precision in found.precisions:
            open_backend(found.in_precision(precision), decide("cpu")).close()
    typer.echo(f"{found.name} {found.version}: every file is what pack.json names, and every model runs.")
    typer.echo(f"SHA-256 {found.sha256}")
    typer.echo(f"Intended use: {found.intended_use}")
    for name, model in found.models.items():
        size = f"{model.input.channels} × {model.input.height} × {model.input.width}"
        typer.echo(f"  {name}: {model.file}, input {size} at {model.input.spacing_mm} mm, {model.precision}")
    for line in variant_lines(found):
        typer.echo(line)
    if validate is not None and not validate_variants(found, validate):
        raise typer.Exit(NOT_ALL)


app.command()(export)
app.command()(quantise)
app.command()(build)


@app.command()
def doctor(pack: PackOption = None, device: DeviceOption = "auto") -> None:
    """Show what this machine has, what `grade` would take and why, and what to install for more."""
    from stenosis_trt.engine.backends.selection import check_device
    from stenosis_trt.engine.doctor import examine

    with usage_errors():
        check_device(device)
    if pack is not None and not pack.exists():
        fail(f"There is no pack at {pack}. Give a pack's folder or zip.")
    for finding in examine(pack, device):
        typer.echo(f"{finding.name:17} {finding.value}")
        if finding.advice:
            typer.echo(f"{'':17} → {finding.advice}")


@bench_app.command("kernels")
def bench_kernels(
    out: Annotated[Path, typer.Option(help="Folder for the JSON file.")] = Path(),
    pack: PackOption = None,
    peers: Annotated[bool, typer.Option(help="Also time PyTorch and CuPy, where they are installed.")] = True,
) -> None:
    """Time each device kernel against the bytes it must move, other libraries, and the CPU."""
    from stenosis_trt.bench.kernels import lines, run
    from stenosis_trt.engine.pack import Pack, reference_pack

    with usage_errors():
        models = Pack.load(pack or reference_pack())
    figures, without_gpu = run(out, models, peers)
    for line in lines(figures):
        typer.echo(line)
    if without_gpu:
        typer.echo(f"No figures of a GPU: {without_gpu}", err=True)
