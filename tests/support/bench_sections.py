"""Sections of a benchmark that measure nothing, in place of the real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from bench_records import figure

from stenosis_trt.bench import benchmark
from stenosis_trt.bench.benchmark_options import SECTION_MODULES
from stenosis_trt.bench.record.record import Section
from stenosis_trt.bench.systems.context import BenchContext

Measure = Callable[[BenchContext], Section]


def quiet_section(name: str, value: float = 1.0) -> Measure:
    """Return a function that gives a section with one figure."""
    return lambda context: Section(name, name.title(), (figure(f"{name}.a", value),))


def replace_sections(monkeypatch: pytest.MonkeyPatch, **sections: Measure) -> None:
    """Replace every section: those that are not given by `quiet_section`."""
    for name in SECTION_MODULES:
        module = ModuleType(f"section_{name}")
        module.measure = sections.get(name, quiet_section(name))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(SECTION_MODULES, name, module.__name__)
    # Nothing is to be waited for.
    monkeypatch.setattr(benchmark.BusyWatch, "watch_before", lambda self: None)
