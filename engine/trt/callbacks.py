"""Callbacks of TensorRT: logger and progress monitor, subclassed from a flavour's module."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stenosis_trt.engine.support.interrupts import defer_signals
from stenosis_trt.engine.trt.progress import BuildProgress

_LOG = logging.getLogger(__name__)


def make_logger(trt: Any) -> Any:
    """Create a TensorRT logger that forwards to `logging` and collects errors for exception messages."""
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
    }

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, level: Any, text: str) -> None:
            if levels.get(level) == logging.ERROR:
                self.errors.append(" ".join(text.split()).rstrip("."))
            if level in levels:
                # At most INFO: Python prints warnings if logging is not configured, and errors are raised.
                _LOG.log(min(levels[level], logging.INFO), "%s", text)

    return Log()


def make_progress_monitor(trt: Any, phases: BuildProgress, stopped: threading.Event) -> Any:
    """Create a progress monitor that updates `phases`, and aborts the build once `stopped` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step)
            return not stopped.is_set()

        def phase_finish(self, phase_name: str) -> None:
            if not stopped.is_set():
                phases.finish(phase_name)

    return Monitor()


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Context manager that yields an event set by Ctrl-C, and raises KeyboardInterrupt at its end.

    TensorRT's calls into Python must not raise KeyboardInterrupt.
    """
    stopped = threading.Event()
    with defer_signals(stopped.set):
        yield stopped
