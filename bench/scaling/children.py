"""Processes that work for the section "scaling": started together, released together, and collected."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO

from stenosis_trt.bench.scaling.child import ChildRequest, Work
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.engine.errors import StenosisError
from stenosis_trt.engine.support.closeable import Closeable

_COMMAND = (sys.executable, "-m", "stenosis_trt.bench.scaling.child")
_LONGEST = 200


class ChildFailed(StenosisError):
    """A process of the section ended without a result."""


@dataclass(frozen=True)
class ChildResult:
    """Seconds of the work of a process, and its peak memory in bytes."""

    seconds: float
    peak_bytes: int


def child_request(context: BenchContext, work: Work) -> ChildRequest:
    """A request with the product of a context."""
    return ChildRequest(work, str(context.pack.path), context.device, context.precision, context.threads)


class Children(Closeable):
    """Processes that work at the same time, as often as asked. Use it as a context manager.

    Args:
        requests: one for each process.

    Raises:
        ChildFailed: a process ended before it was ready.
    """

    def __init__(self, requests: Sequence[ChildRequest]) -> None:
        with ExitStack() as stack:
            self._children = [stack.enter_context(_Child(request)) for request in requests]
            for child in self._children:
                child.wait_until_ready()
            self._stack = stack.pop_all()

    def work(self) -> list[ChildResult]:
        """Let every process work once, and return their results.

        Raises:
            ChildFailed: one of them ended without a result.
        """
        for child in self._children:
            child.release()
        return [child.result() for child in self._children]

    def close(self) -> None:
        """End the processes."""
        self._stack.close()


class _Child(Closeable):
    def __init__(self, request: ChildRequest) -> None:
        with ExitStack() as stack:
            self._errors: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            self._process = stack.enter_context(
                subprocess.Popen(
                    [*_COMMAND, request.to_json()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    text=True,
                )
            )
            # A process that waits for a line would not end.
            stack.callback(self._process.kill)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def wait_until_ready(self) -> None:
        if self._line() != "ready":
            raise self._error()

    def release(self) -> None:
        assert self._process.stdin is not None
        # One that has ended says so when its result is asked for.
        with suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def result(self) -> ChildResult:
        line = self._line()
        if not line:
            raise self._error()
        return ChildResult(**json.loads(line))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _error(self) -> ChildFailed:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        said = lines[-1][:_LONGEST] if lines else "it said nothing"
        return ChildFailed(f"A process ended without a result ({said}).", "Run the section again.")
