"""Bars and waterfalls of a record as SVG: horizontal, so that long names are readable on narrow screens."""

from __future__ import annotations

from dataclasses import dataclass

from stenosis_trt.bench.record import svg
from stenosis_trt.bench.record.axes import Axis, apart, axis_over
from stenosis_trt.bench.record.record import Chart, Series
from stenosis_trt.bench.record.wording import number_text, round_text

COLOURS = 8
_LABELS_ABOVE = 480
"""Width below which names stand above their bars."""
_BAR, _LINE, _GAP = 15.0, 14.0, 12.0
_FOOT = 44.0
_VALUE_ROOM = 64.0
"""Pixels right of the longest bar, for its value."""


@dataclass(frozen=True)
class _Row:
    """Name of a group of bars as lines, and its position in pixels."""

    lines: list[str]
    top: float
    bars_top: float
    height: float


def draw_bars(chart: Chart, width: float) -> tuple[str, float]:
    """Return one group of bars for each x, with intervals as whiskers; and the height."""
    names = list(dict.fromkeys(str(x) if isinstance(x, str) else number_text(x) for x in _xs(chart)))
    values: list[dict[str, int]] = [
        {str(x) if isinstance(x, str) else number_text(x): index for index, x in enumerate(series.x)}
        for series in chart.series
    ]
    counts = {name: sum(name in known for known in values) for name in names}
    rows, left, bottom = _rows(names, counts, width)
    ends = [y for series in chart.series for y in (*series.y, *series.low, *series.high)]
    axis = axis_over(ends, left, width - _VALUE_ROOM, chart.log_y, from_zero=True)
    parts = [_value_axis(axis, chart, width, bottom)]
    for name, row in zip(names, rows, strict=True):
        parts.append(_name(row, left))
        place = row.bars_top
        for number, (series, known) in enumerate(zip(chart.series, values, strict=True)):
            if name in known:
                parts.append(_bar(axis, series, known[name], number, place, name))
                place += _BAR + 2
    return "".join(parts), bottom + _FOOT


def draw_waterfall(chart: Chart, width: float) -> tuple[str, float]:
    """Return one bar for each x, which starts where the one before ended, and a total; and the height."""
    stages = [
        (number, str(x) if isinstance(x, str) else number_text(x), y)
        for number, series in enumerate(chart.series)
        for x, y in zip(series.x, series.y, strict=True)
    ]
    several = len(chart.series) > 1
    names = [f"{chart.series[number].name}: {name}" if several else name for number, name, _ in stages]
    totals = [sum(series.y) for series in chart.series]
    rows, left, bottom = _rows(
        [*names, *("total" if not several else f"{series.name}: total" for series in chart.series)],
        dict.fromkeys((), 0),
        width,
    )
    axis = axis_over([*totals, 0.0], left, width - _VALUE_ROOM, from_zero=True)
    parts = [_value_axis(axis, chart, width, bottom)]
    reached = [0.0] * len(chart.series)
    for row, name, (number, _, value) in zip(rows, names, stages, strict=False):
        start, reached[number] = reached[number], reached[number] + value
        share = f", {value / totals[number] * 100:.0f} %" if totals[number] else ""
        parts.append(_name(row, left))
        parts.append(
            _span(axis, start, reached[number], row, f"p s{number % COLOURS}", f"{name}: {_n(value)}{share}")
        )
        parts.append(
            svg.text(axis.position(reached[number]) + 6, row.bars_top + 12, _n(value), class_="small")
        )
    for row, total, series in zip(rows[len(stages) :], totals, chart.series, strict=True):
        parts.append(_name(row, left))
        parts.append(_span(axis, 0.0, total, row, "p total", f"{series.name}: total {_n(total)}"))
        parts.append(svg.text(axis.position(total) + 6, row.bars_top + 12, _n(total), class_="small strong"))
    return "".join(parts), bottom + _FOOT


def _n(value: float) -> str:
    return number_text(value)


def _xs(chart: Chart) -> list[float | str]:
    return [x for series in chart.series for x in series.x]


def _rows(names: list[str], counts: dict[str, int], width: float) -> tuple[list[_Row], float, float]:
    """Place the groups: their rows, the left edge of the bars, and the bottom of the last one."""
    above = width < _LABELS_ABOVE
    if above:
        left, characters = 8.0, int((width - 16) / svg.CHARACTER_WIDTH)
    else:
        longest = min(max((len(name) for name in names), default=1), 30)
        left, characters = 20 + longest * svg.CHARACTER_WIDTH, 30
    rows, top = [], 4.0
    for name in names:
        lines = svg.wrapped(name, characters)
        bars = counts.get(name, 1) * (_BAR + 2) - 2
        text = len(lines) * _LINE
        bars_top = top + text + 3 if above else top + max(0.0, (text - bars) / 2)
        height = text + 3 + bars if above else max(text, bars)
        rows.append(_Row(lines, top, bars_top, height))
        top += height + _GAP
    return rows, left, top - _GAP / 2


def _name(row: _Row, left: float) -> str:
    above = left < 20
    start = row.top + 11 if above else row.top + (row.height - len(row.lines) * _LINE) / 2 + 11
    x, anchor = (left, "start") if above else (left - 8, "end")
    return "".join(
        svg.text(x, start + index * _LINE, content, anchor) for index, content in enumerate(row.lines)
    )


def _bar(axis: Axis, series: Series, index: int, number: int, top: float, name: str) -> str:
    value = series.y[index]
    base = axis.position(axis.low if axis.log else 0.0)
    end = axis.position(value)
    parts = [svg.rectangle(min(base, end), top, abs(end - base), _BAR, class_="bar")]
    furthest = max(base, end)
    tip = (
        f"{name}, {series.name}: {_n(value)}"
        if series.name and series.name != name
        else f"{name}: {_n(value)}"
    )
    if series.low and series.high:
        low, high = axis.position(series.low[index]), axis.position(series.high[index])
        middle = top + _BAR / 2
        parts.append(svg.path([(low, middle), (high, middle)], class_="whisker"))
        parts += [svg.path([(x, middle - 4), (x, middle + 4)], class_="whisker") for x in (low, high)]
        furthest = max(furthest, high)
        tip += f" ({_n(series.low[index])}–{_n(series.high[index])})"
    label = series.labels[index] if series.labels else ""
    parts.append(svg.text(furthest + 6, top + 12, _n(value), class_="small"))
    return svg.element(
        "g", *parts, class_=f"p s{number % COLOURS}", data_tip=f"{tip}, {label}" if label else tip
    )


def _span(axis: Axis, start: float, end: float, row: _Row, classes: str, tip: str) -> str:
    x1, x2 = axis.position(start), axis.position(end)
    drawn = svg.rectangle(min(x1, x2), row.bars_top, abs(x2 - x1), _BAR, class_="bar")
    return svg.element("g", drawn, class_=classes, data_tip=tip)


def _value_axis(axis: Axis, chart: Chart, width: float, bottom: float) -> str:
    parts = []
    for tick in apart(axis.ticks(5), axis, 48):
        x = axis.position(tick)
        parts.append(svg.line(x, 0, x, bottom, class_="grid"))
        parts.append(svg.text(x, bottom + 15, round_text(tick), "middle"))
    parts.append(svg.text((axis.start + axis.end) / 2, bottom + 34, chart.y_label, "middle", class_="label"))
    return "".join(parts)
