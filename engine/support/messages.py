"""Output to the terminal: messages, and the streams of the command line.

A stream that is closed, broken or on a full disk must not end a run, whose product is the result files. So
`guard_streams` replaces sys.stdout and sys.stderr by streams that drop what they cannot write, and the engine
prints through this module only.
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

_STANDARD_DESCRIPTORS = (0, 1, 2)
_NO_READER = (errno.EPIPE, errno.EBADF)
"""Errors of a standard output that nobody reads: a pipe whose reader ended, a closed descriptor."""


def print_message(text: str) -> None:
    """Print a line on standard error; do nothing where that fails."""
    _write(sys.stderr, text)


def print_output(text: str) -> None:
    """Print a line on standard output; do nothing where that fails."""
    _write(sys.stdout, text)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        # Broken, closed, or its encoding lacks a character. There is no other stream to report it on.
        return


def stderr_is_terminal() -> bool:
    """Return True if standard error is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (OSError, ValueError):
        return False


def line_width() -> int:
    """Return the width of the terminal on standard output in columns; sys.maxsize without a terminal."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if terminal else sys.maxsize


def rich_console(stderr: bool = False) -> Console:
    """Return rich's console on standard output or standard error, without markup and emoji codes."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=io.StringIO() if stream is None else stream, markup=False, emoji=False)


def guard_streams() -> None:
    """Replace sys.stdout and sys.stderr by streams whose writes do not fail, and open closed descriptors.

    Descriptors 0 to 2 that are closed are opened on the null device: otherwise the next file that is opened
    gets their number, and receives what a library prints. Characters that the encoding lacks become backslash
    escapes.
    """
    for number in _STANDARD_DESCRIPTORS:
        _open_if_closed(number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open
    sys.stdout = _guarded(1, sys.stdout, line_buffering=os.isatty(1))
    sys.stderr = _guarded(2, sys.stderr, line_buffering=True)


def stdout_error() -> OSError | None:
    """Return the first error of writing to standard output; None where there is none, or no reader."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, _LossyFile) else None
    return None if error is None or error.errno in _NO_READER else error


def _open_if_closed(number: int) -> None:
    """Open the null device as descriptor `number` if that is closed."""
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)


def _guarded(number: int, stream: TextIO | None, line_buffering: bool) -> io.TextIOWrapper:
    # With descriptor 1 or 2 closed Python starts without the stream, and a file may have its number by now.
    raw = _LossyFile(os.devnull if stream is None else number, "w", closefd=stream is None)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=None if stream is None else stream.encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
        write_through=getattr(stream, "write_through", False),
    )


class _LossyFile(io.FileIO):
    """File that drops what it cannot write. `error` is the first failure."""

    error: OSError | None = None

    def write(self, data: object) -> int:
        try:
            # None where the descriptor is non-blocking and its reader is slow.
            written = super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            self.error = self.error or error
            written = None
        return memoryview(data).nbytes if written is None else written  # type: ignore[arg-type]
