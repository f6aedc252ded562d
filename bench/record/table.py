"""Benchmark records and comparisons as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stenosis_trt.bench.record.compare import Change, Comparison
from stenosis_trt.bench.record.facts import (
    busy_text,
    machine_text,
    models_text,
    product_text,
    studies_text,
    target_counts,
)
from stenosis_trt.bench.record.record import BenchRecord, Figure, Section
from stenosis_trt.bench.record.wording import change_words, interval_text, target_text, value_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

NARROW = 90
"""Width in columns below which interval and target stand below the value."""
_VALIDITY = {True: "Valid by the rules of its scenarios.", False: "Not valid by the rules of its scenarios."}


def record_tables(record: BenchRecord, width: int) -> Iterator[RenderableType]:
    """Yield what a terminal of so many columns shows of a record: its head, and a table for each section."""
    from rich.text import Text

    for line in head_lines(record):
        yield Text(line)
    for section in record.sections:
        yield Text()
        yield from _section(section, width)
    for failure in record.failures:
        yield Text()
        yield Text(f"{failure.name} failed: {failure.reason}")
    met, targets = target_counts(record)
    if targets:
        yield Text()
        yield Text(f"{met} of {targets} targets are met.")


def head_lines(record: BenchRecord) -> list[str]:
    """Return machine, product, studies and the notice of a busy machine, one line each."""
    lines = [
        f"Machine: {machine_text(record.machine)}",
        f"Product: {product_text(record.product)}",
        models_text(record.product) and f"Models: {models_text(record.product)}",
        studies_text(record.studies) and f"Studies: {studies_text(record.studies)}",
        busy_text(record),
    ]
    return [line for line in lines if line]


def _section(section: Section, width: int) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"{section.title} ({section.name}, {section.seconds:.0f} s)", style="bold")
    if section.valid is not None:
        yield Text(_VALIDITY[section.valid])
    if section.figures:
        yield _figures(section.figures, width)
    notes = dict.fromkeys(figure.note for figure in section.figures if figure.note)
    for note in (*section.notes, *notes):
        yield Text(f"- {note}")
    for absence in section.absences:
        yield Text(f"- Not measured: {absence.name}. {absence.reason}")


def _figures(figures: tuple[Figure, ...], width: int) -> Table:
    table = _table("figure", "value")
    if width < NARROW:
        for figure in figures:
            lines = [_value(figure), interval_text(figure), target_text(figure)]
            table.add_row(figure.text, "\n".join(filter(None, lines)))
        return table
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("target", no_wrap=True)
    for figure in figures:
        table.add_row(figure.text, _value(figure), interval_text(figure), target_text(figure))
    return table


def _value(figure: Figure) -> str:
    return value_text(figure) + (" (computed)" if figure.source == "computed" else "")


def comparison_tables(
    comparison: Comparison, before: BenchRecord, after: BenchRecord, width: int, everything: bool = False
) -> Iterator[RenderableType]:
    """Yield what a terminal shows of a comparison: what the runs have different, then what moved.

    Args:
        comparison: of the two records.
        before, after: the records.
        width: columns of the terminal.
        everything: also list what did not move.
    """
    from rich.text import Text

    for name, record in (("A", before), ("B", after)):
        yield Text(
            f"{name}: {record.started}, {machine_text(record.machine)}; {product_text(record.product)}"
        )
        if busy_text(record):
            yield Text(f"   {busy_text(record)}")
    if comparison.other_machine:
        yield Text("A and B are of different machines: what moved is no effect of the program alone.")
    if comparison.differences:
        yield Text()
        yield Text("Different besides the figures:", style="bold")
        for item in comparison.differences:
            yield Text(f"- {item.group}, {item.name}: {item.before} -> {item.after}")
    shown = comparison.changes if everything else comparison.having("worse", "better", "changed")
    if shown:
        yield Text()
        yield _changes(shown, width)
    yield Text()
    for line in summary_lines(comparison):
        yield Text(line)


def summary_lines(comparison: Comparison) -> Iterator[str]:
    """Yield sentences: how many figures moved, and which could not be compared."""
    counts = {
        verdict: len(comparison.having(verdict))
        for verdict in ("worse", "better", "changed", "same", "contention", "not judged")
    }
    judged = sum(counts.values()) - counts["not judged"]
    if not comparison.changes:
        yield "The records have no figure in common."
    elif not counts["worse"] + counts["better"] + counts["changed"]:
        yield f"Nothing moved beyond the noise, of {judged} figures."
    else:
        changed = f", {counts['changed']} changed" if counts["changed"] else ""
        yield (
            f"Beyond the noise, of {judged} figures: {counts['worse']} worse, "
            f"{counts['better']} better{changed}."
        )
    if counts["contention"]:
        yield (
            f"Not counted: {_figures_word(counts['contention'])} that changed by no more than what other "
            "processes explain, which took part of the cores. Repeat the runs on a quiet machine."
        )
    if counts["not judged"]:
        yield f"Not judged: {_figures_word(counts['not judged'])} without an interval, or in another unit."
    yield (
        "A figure moved if its 95 % intervals are disjoint, p < 0.05 after Holm's correction, and it changed "
        f"by at least {comparison.minimum_effect * 100:g} %."
    )
    for letter, missing in (("A", comparison.only_before), ("B", comparison.only_after)):
        for name, reason in missing:
            yield f"Only in {letter}: {name}{f' ({reason})' if reason else ''}"


def _figures_word(count: int) -> str:
    return f"{count} figure{'s' if count > 1 else ''}"


def _changes(changes: tuple[Change, ...], width: int) -> Table:
    if width < NARROW:
        table = _table("figure", "A, B, change")
        for change in changes:
            lines = (_in_interval(change.before), _in_interval(change.after), _words(change))
            table.add_row(f"{change.after.text}\n{change.after.name}", "\n".join(lines))
        return table
    table = _table("figure", "A")
    table.add_column("B", justify="right", no_wrap=True)
    table.add_column("change")
    for change in changes:
        name = f"{change.after.text}\n{change.after.name}"
        table.add_row(name, _in_interval(change.before), _in_interval(change.after), _words(change))
    return table


def _in_interval(figure: Figure) -> str:
    interval = interval_text(figure)
    return value_text(figure) + (f" ({interval})" if interval else "")


def _words(change: Change) -> str:
    words = change_words(change.before, change.after)
    if change.verdict == "same":
        return "not moved"
    return words if change.verdict in ("worse", "better", "changed") else f"{words}; {change.verdict}"


def _table(first: str, second: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold")
    table.add_column(second, justify="right", overflow="fold")
    return table
