"""How far a run is: a bar with rate and time left on a terminal, plain lines elsewhere. On standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """Counts what is done of a total."""

    def advance(self, done: int, total: int) -> None:
        """`done` of `total` are finished; the total may be 0 while it is not known."""
        ...


class _Lines:
    def __init__(self, what: str) -> None:
        self._what, self._start, self._last = what, time.monotonic(), 0.0

    def advance(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and done != total:
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        of = f" of {total}" if total else ""
        left = f", {(total - done) / rate:.0f} s left" if total and done and done < total else ""
        print(f"{self._what}: {done}{of}, {rate:.1f} a second{left}", file=sys.stderr, flush=True)


@contextmanager
def show_progress(what: str, unit: str) -> Iterator[Progress]:
    """Progress of one task, shown while the context lasts.

    Args:
        what: the task, as a heading.
        unit: what is counted, in the plural.
    """
    if not sys.stderr.isatty():
        yield _Lines(f"{what} ({unit})")
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None, rate="")
        start = time.monotonic()

        class _Bar:
            def advance(self, done: int, total: int) -> None:
                rate = done / max(time.monotonic() - start, 1e-9)
                bars.update(task, completed=done, total=total or None, rate=f"{rate:.1f} {unit}/s")

        yield _Bar()
