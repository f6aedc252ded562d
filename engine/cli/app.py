"""The command line. Thin: every command parses, calls one function, prints; heavy imports happen inside."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.bench import gpu_suite
from stenosis_trt.engine.cli.build import build
from stenosis_trt.engine.cli.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    exit_on_error,
    exit_on_invalid_value,
    fail,
    needs_package,
    refuse_unused_options,
)
from stenosis_trt.engine.cli.export import export
from stenosis_trt.engine.cli.grade import grade
from stenosis_trt.engine.cli.options import (
    DeviceOption,
    LimitOption,
    NoPathsOption,
    PackOption,
    PathsArgument,
    WorkersOption,
    read_limits,
)
from stenosis_trt.engine.cli.quantise import quantise
from stenosis_trt.engine.cli.roofline import roofline
from stenosis_trt.engine.cli.sign import sign
from stenosis_trt.engine.cli.verify import verify
from stenosis_trt.engine.support.interrupts import install_signal_handlers
from stenosis_trt.engine.support.messages import guard_streams, print_message, rich_console, stdout_error

if TYPE_CHECKING:
    from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource

app = typer.Typer(
    name="stenosis-trt",
    help="Grade cervical spinal stenosis from MR: Kang grade and cord compression ratio per disc level.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

bench_app = typer.Typer(help="Measure how fast things are on this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


def main() -> None:
    """Entry point of the command `stenosis-trt`."""
    guard_streams()
    code_of_signal = install_signal_handlers()
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.stdout.flush()
    lost = stdout_error()
    if lost is not None and not code:
        print_message(f"stenosis-trt: Standard output cannot be written ({lost.strerror}).")
        code = EXIT_USAGE
    sys.exit((code_of_signal() or code) if code == EXIT_INTERRUPTED else code)


def _version(shown: bool) -> None:
    if shown:
        from stenosis_trt.engine.support.versions import package_version

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


# Lists of commands have one line of 80 columns for each: a first sentence that is longer would be cut.
app.command(short_help="Grade every study below PATHS.")(grade)


@app.command(short_help="Show which series would be graded, and why not the others.")
def inspect(
    paths: PathsArgument,
    workers: WorkersOption = 1,
    limit: LimitOption = None,
    no_paths: NoPathsOption = False,
    files: Annotated[
        bool, typer.Option("--files", help="List the files instead, numbered as `grade --no-paths` does.")
    ] = False,
) -> None:
    """Show the series found below PATHS, which would be graded, and why not the others.

    Exit code 0: every study can be graded, by its headers; 1: one cannot, or a file that may be an image
    cannot be read, or there is no study.
    """
    from stenosis_trt.engine.cli.inspection import (
        file_lines,
        inspection_lines,
        inspection_tables,
        problem_lines,
        study_lines,
    )
    from stenosis_trt.engine.dicom.find import check_paths
    from stenosis_trt.engine.dicom.reader import DicomReader
    from stenosis_trt.engine.runs.path_names import HiddenPaths, PathNames
    from stenosis_trt.engine.selection.select import select_series

    with exit_on_invalid_value():
        limits = read_limits(limit)
    with exit_on_error():
        check_paths(paths, no_paths)
    with exit_on_error(), DicomReader(limits, workers) as reader:
        scan = reader.scan(paths)
    studies = sorted(scan.studies, key=attrgetter("path", "key"))
    if files:
        for line in file_lines(studies, scan.problems):
            typer.echo(line)
        raise typer.Exit
    names = HiddenPaths() if no_paths else PathNames()
    choices = [select_series(replace(study, path=names.of_study(study))) for study in studies]
    if sys.stdout.isatty():
        screen = rich_console()
        for table in inspection_tables(choices):
            screen.print(table)
    else:
        for line in inspection_lines(choices):
            typer.echo(line)
    for line in (*study_lines(choices), *problem_lines(names.of_no_study(scan.problems))):
        print_message(line)
    if not choices:
        print_message("No study was found.")
    graded = choices and all(choice.problem is None for choice in choices)
    lost = any(not problem.harmless for problem in scan.problems)
    raise typer.Exit(0 if graded and not lost else EXIT_INCOMPLETE)


@app.command(short_help="Write synthetic studies with exact truth.")
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
    anatomy: Annotated[
        Path | None,
        typer.Option(
            metavar="VOLUMES", help="Folder of real volumes to make stenoses in, instead of painting."
        ),
    ] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="With --anatomy: this volume alone; repeatable. [default: all]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run of the same options.")
    ] = False,
) -> None:
    """Write synthetic cervical spine studies with exact truth (truth.csv)."""
    from concurrent.futures.process import BrokenProcessPool

    from stenosis_trt.bench.phantom import PhantomOptions, write_studies
    from stenosis_trt.engine.support.progress import show_progress

    if anatomy is None:
        refuse_unused_options("--anatomy", {"subject": subject or None})
    with exit_on_invalid_value():
        options = PhantomOptions(studies, seed, grade, syntax, workers)
        if anatomy is not None:
            options = replace(options, source=_anatomies(anatomy, subject))
    try:
        with exit_on_error(), show_progress("Making phantoms", "studies") as progress:
            truth = write_studies(out, options, progress.advance, resume)
    except BrokenProcessPool:
        fail(
            "A process that shares the work was killed, perhaps for want of memory. The studies that were "
            f"finished are in {out}: go on with --resume and fewer --workers."
        )
    except OSError as error:
        # With --anatomy it may be the cache that straight volumes are kept in.
        place = error.filename or out
        if error.errno == errno.ENOTEMPTY and not resume:
            advice = "Give another folder. --resume goes on with an interrupted run."
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


def _anatomies(volumes: Path, subjects: list[str] | None) -> SemisyntheticSource:
    """The subjects below a folder of volumes; ends the command where they cannot be used."""
    with needs_package("The package {} reads volumes. Install stenosis-trt[bench]."):
        from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
        from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
    try:
        return SemisyntheticSource(tuple(subjects or SUBJECTS), volumes)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}. Give a folder with one folder a subject.")


@app.command(short_help="Make three synthetic studies, and grade them.")
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Keep the studies and results here. [default: a temporary folder]")
    ] = None,
) -> None:
    """Make three synthetic studies, grade them and print the results beside the truth."""
    from tempfile import TemporaryDirectory

    from stenosis_trt.engine.cli.demo import run_demo

    try:
        with exit_on_error():
            if out is not None:
                code = run_demo(out)
            else:
                with TemporaryDirectory(prefix="stenosis-demo-") as folder:
                    code = run_demo(Path(folder))
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        code = EXIT_INTERRUPTED
    raise typer.Exit(code)


app.command(short_help="Make a model pack of trained checkpoints.")(export)
app.command(short_help="Make FP16 and INT8 of a pack's models.")(quantise)
app.command(short_help="Build TensorRT plans of a pack's models.")(build)
app.command(short_help="Sign a pack and the plans in it.")(sign)
app.command(short_help="Check that a pack is whole and runs.")(verify)


@app.command(short_help="Show what this machine has, and what to install for more.")
def doctor(pack: PackOption = None, device: DeviceOption = "auto") -> None:
    """Show what this machine has, what `grade` would take and why, and what to install for more."""
    from stenosis_trt.engine.backends.selection import check_device
    from stenosis_trt.engine.cli.doctor import collect_findings, report_lines

    with exit_on_error():
        check_device(device)
    if pack is not None and not pack.exists():
        fail(f"There is no pack at {pack}. Give a pack's folder or zip.")
    for line in report_lines(collect_findings(pack, device)):
        typer.echo(line)


bench_app.command(short_help="Compute what no device can beat.")(roofline)
bench_app.command("gpu-suite", short_help="Measure everything of this GPU, offline.")(gpu_suite)


@bench_app.command("kernels", short_help="Time each device kernel, beside other libraries.")
def bench_kernels(
    out: Annotated[Path, typer.Option(help="Folder for the JSON file.")] = Path(),
    pack: PackOption = None,
    peers: Annotated[bool, typer.Option(help="Also time PyTorch and CuPy, where they are installed.")] = True,
) -> None:
    """Time each device kernel against the bytes it must move, other libraries, and the CPU."""
    from stenosis_trt.bench.speed.kernels import run_kernel_benchmark, table_lines
    from stenosis_trt.engine.packs.pack import open_pack

    with exit_on_error():
        models = open_pack(pack)
    figures, without_gpu = run_kernel_benchmark(out, models, peers)
    for line in table_lines(figures):
        typer.echo(line)
    if without_gpu:
        typer.echo(f"No figures of a GPU: {without_gpu}", err=True)
