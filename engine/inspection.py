"""The table that `inspect` prints: every series, its role, and the reason. No identifier of the patient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table

from stenosis_trt.engine.choose import Choice, Verdict

_COLUMNS = ("study", "series", "plane", "slices", "description", "role", "reason")


def rows(choices: Iterable[Choice]) -> Iterator[tuple[str, ...]]:
    """One row a series, as text; studies are numbered in their order."""
    for number, choice in enumerate(choices, start=1):
        for place, verdict in enumerate(choice.verdicts, start=1):
            yield str(number), str(place), *_cells(verdict)


def _cells(verdict: Verdict) -> tuple[str, ...]:
    pose = verdict.series.frames[0].pose
    return (
        pose.orientation if pose is not None else "",
        str(len(verdict.series.frames)),
        verdict.series.description,
        verdict.role or "–",
        verdict.reason,
    )


def inspection_table(choices: Sequence[Choice]) -> Table:
    """The table for a terminal; a line between studies."""
    table = Table(*_COLUMNS, show_lines=False)
    last = ""
    for row in rows(choices):
        if last and row[0] != last:
            table.add_section()
        table.add_row(*row, style=None if row[5] != "–" else "dim")
        last = row[0]
    return table


def inspection_lines(choices: Sequence[Choice]) -> Iterator[str]:
    """The same, tab-separated with a heading, for files and pipes."""
    yield "\t".join(_COLUMNS)
    for row in rows(choices):
        yield "\t".join(cell.replace("\t", " ") for cell in row)
