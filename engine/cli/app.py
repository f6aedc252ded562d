"""The command line: the commands of `stenosis-trt` and its entry point.

A command parses its options, calls one function and prints. Commands are listed in `commands`, and imported
when they are used; heavy imports happen inside them. So `--help` is fast, and a command needs only its own
extra.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stenosis_trt.engine.cli.commands import LazyGroup
from stenosis_trt.engine.cli.errors import EXIT_INTERRUPTED, EXIT_USAGE
from stenosis_trt.engine.support.interrupts import install_signal_handlers
from stenosis_trt.engine.support.messages import guard_streams, print_message, stdout_error

app = typer.Typer(
    name="stenosis-trt",
    cls=LazyGroup,
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
