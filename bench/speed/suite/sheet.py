"""What one scenario has measured so far. It is kept whatever becomes of the scenario."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stenosis_trt.bench.speed.suite.figures import Measurement


class ScenarioSkipped(Exception):
    """A scenario that cannot be measured here, and why: no fault of anything."""


class ScenarioReport:
    """Figures, details and notes of a scenario.

    Attributes:
        figures: in the order in which they were measured.
        details: what else the record keeps, as JSON can.
        notes: what a reader has to know, in sentences.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` shows a line to whoever waits."""
        self._say = say
        self.figures: list[Measurement] = []
        self.details: dict[str, Any] = {}
        self.notes: list[str] = []

    def add(self, figure: Measurement) -> Measurement:
        """Keep a figure, and show it."""
        self.figures.append(figure)
        self._say(f"  {figure.name}: {figure.value:.4g} {figure.unit}".rstrip())
        return figure

    def note(self, text: str) -> None:
        """Keep a note, and show it."""
        self.notes.append(text)
        self._say(f"  {text}")

    def say(self, text: str) -> None:
        """Show what is being done."""
        self._say(f"  {text}")
