"""Progress, messages and tables for a person at a terminal. What a run keeps is not written here.

The results are the product: a stream that is closed, or broken, or on a full disk must not end a run. So the
command line puts streams in the place of its own that drop what they cannot write (`guard_streams`), and the
engine writes nothing to a terminal but by this module.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_NAMES = ("stdin", "stdout", "stderr")
_NOBODY_READS = (errno.EPIPE, errno.EBADF)


def print_message(text: str) -> None:
    """Print a line on standard error, where that can be written."""
    _write(sys.stderr, text)


def print_output(text: str) -> None:
    """Print a line on standard output, where that can be written."""
    _write(sys.stdout, text)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        # Broken, closed, or of an encoding that lacks a character: there is no other place to say it.
        return


def stderr_is_terminal() -> bool:
    """Whether a person sees standard error."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (OSError, ValueError):
        return False


def line_width() -> int:
    """Columns of the terminal that standard output is; without one, more than any line has."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if terminal else sys.maxsize


def rich_console(stderr: bool = False) -> Console:
    """Where rich draws: standard output, or standard error. What it is given is not taken for markup."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=io.StringIO() if stream is None else stream, markup=False, emoji=False)


def guard_streams() -> None:
    """Put streams in the place of sys.stdout and sys.stderr that no write fails on; open what is closed.

    Descriptors 0 to 2 that are closed are opened on the null device: the next file that is opened would get
    their number, and whatever a library prints would be written to it. Characters that the encoding lacks are
    written as backslash escapes.
    """
    for number in range(len(_NAMES)):
        _occupy(number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open
    sys.stdout = _guarded(1, sys.stdout, line_buffering=os.isatty(1))
    sys.stderr = _guarded(2, sys.stderr, line_buffering=True)


def stdout_error() -> OSError | None:
    """Why a part of standard output is lost that somebody wanted; None where nothing is."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, _Guarded) else None
    return None if error is None or error.errno in _NOBODY_READS else error


def _occupy(number: int) -> None:
    """Open the null device as descriptor `number` where that is closed."""
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)


def _guarded(number: int, stream: TextIO | None, line_buffering: bool) -> io.TextIOWrapper:
    # With descriptor 1 or 2 closed Python starts without the stream, and a file may have the number since.
    raw = _Guarded(os.devnull if stream is None else number, "w", closefd=stream is None)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=None if stream is None else stream.encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
        write_through=getattr(stream, "write_through", False),
    )


class _Guarded(io.FileIO):
    """A file that drops what it cannot write. `error` is why it first did."""

    error: OSError | None = None

    def write(self, data: object) -> int:
        try:
            # None where the descriptor is not blocking, and whoever reads is behind.
            written = super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            self.error = self.error or error
            written = None
        return memoryview(data).nbytes if written is None else written  # type: ignore[arg-type]
