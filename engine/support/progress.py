"""Progress on standard error: a bar with rate and time left on a terminal, lines of text elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from stenosis_trt.engine.support.messages import print_message, rich_console, stderr_is_terminal

_SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """Display of how much of a task is done."""

    def advance(self, done: int, total: int) -> None:
        """Show that `done` of `total` items are finished; `total` is 0 while it is unknown."""
        ...


@contextmanager
def show_progress(what: str, unit: str) -> Iterator[Progress]:
    """Show the progress of a task while the context is open.

    Args:
        what: name of the task, as a heading.
        unit: name of the items, in the plural.
    """
    if stderr_is_terminal():
        with _bar(what, unit) as bar:
            yield bar
    else:
        yield _Lines(what, unit)


class _Lines:
    """Progress as lines for a log: one every 5 s, and one each at the start and end of a known total."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._start = self._last = time.monotonic()

    def advance(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and done not in (0, total):
            return
        self._last = now
        line = f"{self._what}: {done}{f' of {total}' if total else ''} {self._unit}"
        if done:
            rate = done / max(now - self._start, 1e-9)
            line += f", {_rate(rate)} a second"
            if done < total:
                line += f", {timedelta(seconds=round((total - done) / rate))} left"
        print_message(line)


@contextmanager
def _bar(what: str, unit: str) -> Iterator[Progress]:
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=rich_console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None, rate="")
        start = time.monotonic()

        class _Bar:
            def advance(self, done: int, total: int) -> None:
                rate = _rate(done / max(time.monotonic() - start, 1e-9))
                bars.update(
                    task,
                    completed=done,
                    total=total or None,
                    rate=f"{rate} {unit}/s" if done else "",
                    refresh=done == 0,
                )

        yield _Bar()


def _rate(value: float) -> str:
    """Format a rate: two decimals below 10, none above."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
