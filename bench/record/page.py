"""The page of a benchmark record: one HTML file that needs nothing else and asks for nothing.

Charts are SVG made here; a short script shows the values of their points. The content security policy lets
through the page's own style and script, by their hashes, and nothing else. The template escapes all text.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stenosis_trt.bench.record.charts import (
    COLOURS,
    MARKED,
    NARROW,
    PERCENTILES,
    WIDE,
    cdf_values,
    draw_chart,
    is_ceiling,
)
from stenosis_trt.bench.record.facts import (
    busy_text,
    machine_text,
    models_text,
    product_text,
    studies_text,
    target_counts,
)
from stenosis_trt.bench.record.record import BenchRecord, Chart, Figure, Section, Series
from stenosis_trt.bench.record.svg import line, marker
from stenosis_trt.bench.record.wording import interval_text, number_text, target_text, value_text
from stenosis_trt.engine.support.atomic_files import write_text_atomically
from stenosis_trt.engine.support.html_pages import content_security_policy, page_template
from stenosis_trt.engine.support.safe_text import escape_controls

if TYPE_CHECKING:
    from markupsafe import Markup

_MOST_FIGURES = 20
"""Figures of a section that are shown at once; more are folded."""
_MOST_ROWS = 400
"""Rows of a chart's data that the page shows; the record has all."""


def write_page(path: Path, record: BenchRecord) -> None:
    """Write the page of a record.

    Raises:
        OSError: the file cannot be written; what was there is unchanged.
    """
    write_text_atomically(path, record_page(record))


def record_page(record: BenchRecord) -> str:
    """Return the page of a record as HTML."""
    from markupsafe import Markup

    style, script = _file("page.css"), _file("page.js")
    met, targets = target_counts(record)
    return page_template(__name__.rpartition(".")[0], "page.html.j2").render(
        policy=content_security_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        started=record.started.replace("T", " ", 1),
        machine=machine_text(record.machine),
        facts=_facts(record),
        busy=busy_text(record),
        invalid=[section.title for section in record.sections if section.valid is False],
        tiles=[_figure(figure) for figure in record.figures().values() if figure.target is not None],
        met=met,
        targets=targets,
        sections=[_section(section) for section in record.sections],
        failures=record.failures,
        command=record.command,
        lists=_lists(record),
    )


def _facts(record: BenchRecord) -> list[tuple[str, str]]:
    sections = [section.name for section in record.sections]
    minutes = sum(section.seconds for section in record.sections) / 60
    facts = [
        ("Machine", machine_text(record.machine)),
        ("System", _system(record.machine)),
        ("Product", product_text(record.product)),
        ("Models", models_text(record.product)),
        ("Studies", studies_text(record.studies)),
        ("Measured", f"{', '.join(sections)}; {minutes:.0f} minutes" if sections else "nothing"),
    ]
    return [(name, escape_controls(text)) for name, text in facts if text]


def _system(machine: Mapping[str, Any]) -> str:
    python = machine.get("python")
    parts = [machine.get("system"), f"Python {python}" if python else "", *machine.get("instructions", ())]
    return ", ".join(str(part) for part in parts if part)


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "text": figure.text,
        "name": figure.name,
        "value": number_text(figure.value),
        "unit": figure.unit,
        "full": value_text(figure),
        "interval": interval_text(figure),
        "runs": figure.runs if figure.runs > 1 else "",
        "target": target_text(figure),
        "met": figure.target_met,
        "computed": figure.source == "computed",
        "note": figure.note,
    }


def _main_figures(section: Section) -> tuple[Figure, ...]:
    """Return the figures that are shown at once: all if they are few, else the first ones and the targets."""
    if len(section.figures) <= _MOST_FIGURES:
        return section.figures
    targets = sum(figure.target is not None for figure in section.figures)
    first = section.figures[: max(0, _MOST_FIGURES - targets)]
    return tuple(figure for figure in section.figures if figure in first or figure.target is not None)


def _section(section: Section) -> dict[str, Any]:
    shown = _main_figures(section)
    return {
        "name": section.name,
        "title": section.title,
        "valid": section.valid,
        "seconds": f"{section.seconds:.0f}",
        "short": section.name.capitalize(),
        "figures": [_figure(figure) for figure in shown],
        "more": [_figure(figure) for figure in section.figures if figure not in shown],
        "targets": any(figure.target is not None for figure in section.figures),
        "intervals": any(interval_text(figure) for figure in section.figures),
        "charts": [_chart(chart, f"{section.name}-{number}") for number, chart in enumerate(section.charts)],
        "notes": section.notes,
        "absences": section.absences,
    }


def _chart(chart: Chart, name: str) -> dict[str, Any]:
    from markupsafe import Markup

    label = f"title-{name}"
    return {
        "id": label,
        "title": chart.title,
        "note": chart.note,
        "kind": chart.kind,
        "pictures": [Markup(draw_chart(chart, width, label)) for width in (WIDE, NARROW)],
        "legend": _legend(chart),
        "data": _data(chart),
    }


def _legend(chart: Chart) -> list[tuple[Markup, str]]:
    """Return swatch and name of each series; none where there is one, whose name the title says."""
    from markupsafe import Markup

    series = [one for one in chart.series if not (chart.kind == "roofline" and is_ceiling(one))]
    if len(series) < 2:
        return []
    swatches = []
    for number, one in enumerate(series):
        colour = f"s{number % COLOURS}"
        if chart.kind in ("bars", "waterfall"):
            drawn = f'<rect class="bar {colour}" x="2" y="2" width="14" height="10" rx="2"/>'
        else:
            curve = "" if chart.kind == "roofline" else line(0, 7, 18, 7, class_=f"curve d{number // MARKED}")
            drawn = f'<g class="p {colour}">{curve}{marker(9, 7, number)}</g>'
        swatches.append((Markup(f'<svg width="18" height="14" aria-hidden="true">{drawn}</svg>'), one.name))
    return swatches


def _data(chart: Chart) -> dict[str, Any]:
    """Return the values as a table, for whoever cannot see the chart or wants the numbers."""
    if chart.kind == "cdf":
        heads = ("series", *(f"{percent} %" for percent in (0, *PERCENTILES, 100)))
        rows = [
            (one.name, *(number_text(values[percent]) for percent in (0, *PERCENTILES, 100)))
            for one in chart.series
            for values in [cdf_values(one)]
        ]
        return {"heads": heads, "rows": rows, "left_out": 0}
    rows = [row for one in chart.series for row in _rows(one)]
    labels = any(one.labels for one in chart.series)
    intervals = any(one.low for one in chart.series)
    x, y = (chart.x_label or "x"), (chart.y_label or "y")
    keep = (True, True, True, intervals, labels)
    heads = tuple(
        name for name, kept in zip(("series", x, y, "95 % interval", "point"), keep, strict=True) if kept
    )
    shown = [tuple(cell for cell, kept in zip(row, keep, strict=True) if kept) for row in rows]
    return {"heads": heads, "rows": shown[:_MOST_ROWS], "left_out": max(0, len(shown) - _MOST_ROWS)}


def _rows(series: Series) -> list[tuple[str, ...]]:
    return [
        (
            series.name,
            x if isinstance(x, str) else number_text(x),
            number_text(y),
            f"{number_text(series.low[index])}–{number_text(series.high[index])}" if series.low else "",
            series.labels[index] if series.labels else "",
        )
        for index, (x, y) in enumerate(zip(series.x, series.y, strict=True))
    ]


def _lists(record: BenchRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what is needed to repeat the run, as lists of names and values."""
    groups: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("Machine", record.machine),
        ("Product", record.product),
        ("Studies", record.studies),
        ("Settings", record.settings),
        ("Versions", record.versions),
        ("Other load", record.busy),
    )
    return [(title, list(_flat(values))) for title, values in groups if values]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += _flat(value, f"{label}, ")
        elif isinstance(value, list | tuple):
            found.append((label, ", ".join(map(str, value))))
        elif value not in (None, ""):
            found.append(
                (label, {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value))
            )
    return [(name, escape_controls(text)) for name, text in found if text]


@cache
def _file(name: str) -> str:
    return files(__name__.rpartition(".")[0]).joinpath("templates").joinpath(name).read_text("utf-8")
