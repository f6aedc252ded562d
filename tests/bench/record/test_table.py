"""Tables of records fit the terminal and leave nothing out."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from bench_records import figure, full_record, record
from rich.console import Console, RenderableType

from stenosis_trt.bench.record.compare import compare_records
from stenosis_trt.bench.record.record import BenchRecord
from stenosis_trt.bench.record.table import comparison_tables, record_tables

WIDTHS = (40, 60, 80, 120)


def _shown(width: int, *items: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    for item in items:
        console.print(item)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    return text


def _words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_shows_every_figure_absence_note_and_failure(width: int) -> None:
    made = full_record()
    text = _shown(width, *record_tables(made, width))
    assert "…" not in text
    words = _words(text)
    for one in made.figures().values():
        assert f"{one.value:.3g}" in text
    for section in made.sections:
        assert section.title in words
        for absence in section.absences:
            assert absence.name in words
            if width >= 60:
                assert absence.reason in words
    assert "scaling failed: The archive could not be written" in words
    assert "3 of 5 targets are met." in words
    assert "other processes took up to 0.70 of 2 cores" in words


def test_targets_intervals_and_computed_figures_are_marked() -> None:
    text = _shown(120, *record_tables(full_record(), 120))
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "≥ 2.2, met" in rows["Models against ONNX Runtime"]
    assert "≥ 1, missed" in rows["Models against the best of OpenVINO"]
    assert "265–271" in rows["SingleStream, whole path: p90 of a study"]
    assert "(computed)" in rows["Floor of a study's models"]


def _compared(before: BenchRecord, after: BenchRecord, width: int = 120, everything: bool = False) -> str:
    found = compare_records(before, after)
    return _shown(width, *comparison_tables(found, before, after, width, everything))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_says_first_what_else_is_different(width: int) -> None:
    old = record(figure("load.a", 10.0), figure("load.b", 10.0))
    new = replace(record(figure("load.a", 25.0), figure("load.b", 10.0)), machine={**old.machine, "cores": 4})
    words = _words(_compared(old, new, width))
    assert words.index("of different machines") < words.index("machine, cores: 2 -> 4")
    assert words.index("machine, cores: 2 -> 4") < words.index("2.50 times slower")
    assert "1 worse, 0 better" in words
    assert "load.b" not in words


def test_a_comparison_lists_what_did_not_move_when_asked() -> None:
    old = record(figure("load.a", 10.0), figure("load.b", 10.0))
    assert "load.b" in _compared(old, old, everything=True)
    assert "not moved" in _compared(old, old, everything=True)
