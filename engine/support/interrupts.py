"""Signals that end a program before its work is done: SIGINT (Ctrl-C), SIGTERM (`docker stop`, the time limit
of Slurm) and SIGHUP (a lost connection). All three end it as Ctrl-C does: by a KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ONE_EVENT_SECONDS = 1.0
"""Signals of one event come together: `timeout` and a shell whose terminal is gone send theirs twice."""


class Ended(KeyboardInterrupt):
    """A signal asked the program to end; which one is the message."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__("Interrupted" if number == signal.SIGINT else f"Ended by {name}")


class _First:
    """Which signal came first. A second one, of another event, ends the program at once."""

    def __init__(self, act: Callable[[int], object]) -> None:
        self._act = act
        self.number, self.time = 0, 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self.time = number, time.monotonic()
            self._act(number)
        elif time.monotonic() - self.time > _ONE_EVENT_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _raise(number: int) -> None:
    raise Ended(number)


def install_signal_handlers() -> Callable[[], int]:
    """Have the first of SIGNALS raise `Ended` in the main thread, from where it is, and a later one end the
    program at once. A signal that is ignored (`nohup`, a background job of a shell) stays ignored.

    Returns:
        A function that gives the exit code of a program that was ended: 128 + the signal, 0 if none came.
    """
    first = _First(_raise)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, first)
    return lambda: 128 + first.number if first.number else 0


@contextmanager
def defer_signals(note: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold signals back that would raise an exception; they raise it when the context ends.

    A second one, of another event, ends the program at once. Outside the main thread, where no signal raises,
    nothing is done.

    Args:
        note: called when a signal comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int) -> None:
        held.append(number)
        note()

    before = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    first = _First(hold)
    for handler in before.values():
        if isinstance(handler, _First):
            # One that came before this context began is the first.
            first.number, first.time = handler.number, handler.time
    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            before[signal.Signals(held[0])](held[0], None)
