"""The command line: the commands of `stenosis-trt` and its entry point.

A command parses its options, calls one function and prints. Heavy imports happen inside commands, so that
`--help` is fast and a command needs only its own extra.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stenosis_trt.engine.cli.bench import bench_app
from stenosis_trt.engine.cli.build import build
from stenosis_trt.engine.cli.demo import demo
from stenosis_trt.engine.cli.doctor import doctor
from stenosis_trt.engine.cli.errors import EXIT_INTERRUPTED, EXIT_USAGE
from stenosis_trt.engine.cli.evaluate import evaluate
from stenosis_trt.engine.cli.export import export
from stenosis_trt.engine.cli.grade import grade
from stenosis_trt.engine.cli.inspect import inspect
from stenosis_trt.engine.cli.phantom import phantom
from stenosis_trt.engine.cli.quantise import quantise
from stenosis_trt.engine.cli.report import report
from stenosis_trt.engine.cli.schema import schema
from stenosis_trt.engine.cli.sign import sign
from stenosis_trt.engine.cli.verify import verify
from stenosis_trt.engine.support.interrupts import install_signal_handlers
from stenosis_trt.engine.support.messages import guard_streams, print_message, stdout_error

app = typer.Typer(
    name="stenosis-trt",
    help="Grade cervical spinal stenosis from MR: Kang grade and cord compression ratio per disc level.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run `stenosis-trt` and exit with its exit code."""
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


# The list of commands has 80 columns: longer first sentences would be cut.
app.command(short_help="Grade every study below PATHS.")(grade)
app.command(short_help="Write reports of graded studies: DICOM, pictures, a page, text.")(report)
app.command(short_help="Show which series would be graded, and why not the others.")(inspect)
app.command(short_help="Write synthetic studies with exact truth.")(phantom)
app.command(short_help="Grade three synthetic studies and compare with the truth.")(demo)
app.command(short_help="Compare results with a truth and with readers.")(evaluate)
app.command(short_help="Convert trained checkpoints to a model pack.")(export)
app.command(short_help="Convert a pack's models to FP16 and INT8.")(quantise)
app.command(short_help="Build TensorRT plans of a pack's models.")(build)
app.command(short_help="Sign a pack and the plans in it.")(sign)
app.command(short_help="Check that a pack is intact and runs.")(verify)
app.command(short_help="Show what this machine has, and what to install for more.")(doctor)
app.command(short_help="Print the JSON Schema of a file that this program writes.")(schema)
app.add_typer(bench_app, name="bench")
