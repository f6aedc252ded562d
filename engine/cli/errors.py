"""How commands end that cannot do what was asked: one line that says why, and an exit code."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import typer

EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""


def fail(message: str) -> NoReturn:
    """Print one line and leave with exit code 2."""
    typer.echo(f"stenosis-trt: {message}", err=True)
    raise typer.Exit(EXIT_USAGE)


def refuse_unused_options(needed: str, given: Mapping[str, object]) -> None:
    """Refuse options that nothing would read for want of another; those of the value None were not given."""
    unread = [f"--{name}" for name, value in given.items() if value is not None]
    if unread:
        fail(f"Nothing reads {' and '.join(unread)} without {needed}. Leave out the one, or give the other.")


def fail_with_os_error(error: OSError) -> NoReturn:
    """The same for what the system refused: which file, why, and what to do where that is known.

    What is written piece by piece meets a full disk without its file's name. Whoever reads the output and
    stopped that is told nothing.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    place = "" if error.filename is None else f"{error.filename}: "
    advice = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = (
            f" Make room where --out lies and in {tempfile.gettempdir()}, where work in progress lies: "
            "TMPDIR names another folder for that."
        )
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = " Give a folder that you may write to."
    fail(f"{place}{error.strerror or error}.{advice}")


def fail_with_memory_error(error: MemoryError) -> NoReturn:
    """The same for what does not fit into memory; NumPy says how much of what."""
    fail(
        f"There is not enough memory for this{f' ({error})' if str(error) else ''}. See input.size and "
        "input.channels of each network, or go where there is more."
    )


@contextmanager
def needs_package(message: str) -> Iterator[None]:
    """Say which package is missing, in place of {} in the message. A module of this program that is missing
    is a bug."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stenosis_trt"):
            raise
        fail(message.format(error.name))


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print the reason and the advice of a `StenosisError` as one line, and exit with code 2."""
    from stenosis_trt.engine.errors import StenosisError

    try:
        yield
    except StenosisError as error:
        fail(str(error))


@contextmanager
def exit_on_failure(interrupted: str) -> Iterator[None]:
    """`exit_on_error`, and messages for the file system, memory and Ctrl-C, which prints `interrupted`."""
    try:
        with exit_on_error():
            yield
    except OSError as error:
        fail_with_os_error(error)
    except MemoryError as error:
        fail_with_memory_error(error)
    except KeyboardInterrupt:
        typer.echo(interrupted, err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def exit_on_invalid_value() -> Iterator[None]:
    """The same for options out of range. It holds only what checks them: elsewhere a ValueError is a bug."""
    try:
        yield
    except ValueError as error:
        fail(str(error))
