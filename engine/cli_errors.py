"""How commands end that cannot do what was asked: one line that says why, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

NOT_ALL = 1
USAGE_ERROR = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""


def fail(message: str) -> NoReturn:
    """Print one line and leave with exit code 2."""
    typer.echo(f"stenosis-trt: {message}", err=True)
    raise typer.Exit(USAGE_ERROR)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Print what keeps a command from running or going on as one line, and leave with exit code 2."""
    from stenosis_trt.engine.backends.selection import DeviceError
    from stenosis_trt.engine.dicom.errors import ReaderError
    from stenosis_trt.engine.outputs import OutputError
    from stenosis_trt.engine.pack import PackError
    from stenosis_trt.engine.tensorrt_flavours import TensorRTError

    try:
        yield
    except (PackError, DeviceError, OutputError, ReaderError, TensorRTError) as error:
        fail(str(error))


@contextmanager
def wrong_values() -> Iterator[None]:
    """The same for options out of range. It holds only what checks them: elsewhere a ValueError is a bug."""
    try:
        yield
    except ValueError as error:
        fail(str(error))
