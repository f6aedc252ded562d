"""Progress of a build in percent, from the nested phases of TensorRT's progress monitor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class _Phase:
    steps: int
    parent: str | None
    done: int = 0
    running: set[str] = field(default_factory=set)


class BuildProgress:
    """Combines nested phases into one percentage, which never decreases.

    A nested phase counts as part of the current step of its parent. Thread-safe.
    """

    def __init__(self, report: Callable[[int, int], None]) -> None:
        """`report(percent, 100)` is called whenever the percentage increases."""
        self._report = report
        self._phases: dict[str, _Phase] = {}
        self._percent = -1
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Start a phase."""
        with self._lock:
            self._phases[name] = _Phase(max(steps, 1), parent)
            if parent in self._phases:
                self._phases[parent].running.add(name)
        self._show()

    def step(self, name: str, index: int) -> None:
        """Finish step `index` (0-based) of a phase."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = index + 1
        self._show()

    def finish(self, name: str) -> None:
        """Finish a phase; one without a parent is the whole build."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None and phase.parent in self._phases:
                self._phases[phase.parent].running.discard(name)
            over = phase is not None and phase.parent is None and not self._phases
        self._show(over)

    def _show(self, over: bool = False) -> None:
        with self._lock:
            roots = [name for name, phase in self._phases.items() if phase.parent is None]
            percent = 100 if over else min(99, int(100 * max(map(self._share, roots), default=0.0)))
            if percent <= self._percent:
                return
            self._percent = percent
            self._report(percent, 100)

    def _share(self, name: str) -> float:
        phase = self._phases[name]
        within = max(map(self._share, phase.running), default=0.0)
        return min(1.0, (phase.done + within) / phase.steps)
