"""Print rich's tables on standard output, as wide as the terminal is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from stenosis_trt.engine.support.messages import line_width, rich_console

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDTH_WITHOUT_TERMINAL = 120


def print_tables(make: Callable[[int], Iterable[RenderableType]]) -> None:
    """Print what `make` gives for a width in columns; 120 columns for a file or a pipe."""
    width = min(line_width(), _WIDTH_WITHOUT_TERMINAL)
    console = rich_console()
    console.width = width
    for item in make(width):
        console.print(item, highlight=False)
