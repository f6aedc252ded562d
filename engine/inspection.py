"""The table that `inspect` prints: every series, its role, and the reason. No identifier of the patient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from stenosis_trt.engine.choose import Choice, Verdict

_COLUMNS = ("study", "series", "plane", "slices", "description", "role", "reason")
_NO_ROLE = "–"
_LONGEST = 64
"""Characters of a description: what the standard allows it (LO), and what a table has room for."""


def _printable(text: str) -> str:
    """On one line and without control characters, which a terminal would obey."""
    shown = "".join(c if c.isprintable() else " " for c in text[: _LONGEST + 1]).strip()
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _cells(verdict: Verdict) -> tuple[str, ...]:
    frames = verdict.series.frames
    pose = frames[0].pose if frames else None
    return (
        pose.orientation if pose is not None else "",
        str(len(frames)),
        _printable(verdict.series.description),
        verdict.role or _NO_ROLE,
        verdict.reason,
    )


def _rows(choices: Iterable[Choice]) -> Iterator[tuple[str, ...]]:
    """One row a series, as text; studies are numbered in their order."""
    for number, choice in enumerate(choices, start=1):
        for place, verdict in enumerate(choice.verdicts, start=1):
            yield str(number), str(place), *_cells(verdict)


def inspection_table(choices: Sequence[Choice]) -> Table:
    """The table for a terminal: a line between studies, the series that would be graded standing out.

    Descriptions are put in as plain text: brackets in them are no markup.
    """
    table = Table(*_COLUMNS)
    last = ""
    for row in _rows(choices):
        if last and row[0] != last:
            table.add_section()
        last = row[0]
        style = "dim" if row[_COLUMNS.index("role")] == _NO_ROLE else "bold"
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def inspection_lines(choices: Sequence[Choice]) -> Iterator[str]:
    """The same, tab-separated with a heading, for files and pipes; the study's folder is the last column."""
    yield "\t".join((*_COLUMNS, "folder"))
    folders = [" ".join(choice.study.path.split()) for choice in choices]
    for row in _rows(choices):
        yield "\t".join((*row, folders[int(row[0]) - 1]))
