"""Handling of SIGINT (Ctrl-C), SIGTERM (`docker stop`, Slurm's time limit) and SIGHUP (a lost connection).

All three raise a KeyboardInterrupt, so that a run that is ended writes its tables first.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_EVENT_SECONDS = 1.0
"""Signals this close together count as one: `timeout`, and a shell that loses its terminal, send two."""


class EndedBySignal(KeyboardInterrupt):
    """Exception raised by the signal handler; its message names the signal."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__("Interrupted" if number == signal.SIGINT else f"Ended by {name}")


class _FirstSignal:
    """Signal handler that calls `act` for the first signal and ends the process at a later one.

    `number` and `time` are those of the first signal; `number` is 0 before it.
    """

    def __init__(self, act: Callable[[int], object]) -> None:
        self._act = act
        self.number, self.time = 0, 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self.time = number, time.monotonic()
            self._act(number)
        elif time.monotonic() - self.time > _SAME_EVENT_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _raise(number: int) -> None:
    raise EndedBySignal(number)


def install_signal_handlers() -> Callable[[], int]:
    """Install handlers that raise `EndedBySignal` in the main thread; a second signal ends the process.

    A signal that is ignored (`nohup`, a background job of a shell) stays ignored.

    Returns:
        A function that gives the exit code: 128 + the number of the first signal, 0 if there was none.
    """
    handler = _FirstSignal(_raise)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
    return lambda: 128 + handler.number if handler.number else 0


@contextmanager
def defer_signals(on_signal: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Defer signals that raise an exception until the context exits. A second signal ends the process.

    Outside the main thread, where no signal raises, this does nothing.

    Args:
        on_signal: called when a signal arrives.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deferred: list[int] = []

    def defer(number: int) -> None:
        deferred.append(number)
        on_signal()

    before = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    first = _FirstSignal(defer)
    for handler in before.values():
        if isinstance(handler, _FirstSignal):
            # A signal that arrived before this context is the first one.
            first.number, first.time = handler.number, handler.time
    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if deferred:
            before[signal.Signals(deferred[0])](deferred[0], None)
