"""Charts of a record as SVG: curves and points. Bars are in `bar_charts`.

A chart is drawn twice, for wide and for narrow screens, so that its text has one size on both. Colours are
classes of the page's style: "s0" to "s7" for the series. Each point with a tip is a group of class "p" whose
`data-tip` the page's script shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from stenosis_trt.bench.record import svg
from stenosis_trt.bench.record.axes import Axis, apart, axis_over
from stenosis_trt.bench.record.bar_charts import draw_bars, draw_waterfall
from stenosis_trt.bench.record.record import Chart, Series
from stenosis_trt.bench.record.wording import number_text, round_text

COLOURS = 8
WIDE, NARROW = 620, 340
"""Widths in pixels."""
_HEIGHTS = {WIDE: 340, NARROW: 280}
_CDF_POINTS = 240
"""Points of a curve; more cannot be told apart."""
PERCENTILES = (50, 90, 99)
_CEILING = "ceiling"
_MOST_LABELS = 14


@dataclass(frozen=True)
class Plot:
    """Area and axes of a chart."""

    x: Axis
    y: Axis
    width: float
    height: float


def draw_chart(chart: Chart, width: int, label_id: str) -> str:
    """Return the chart as an SVG element of this width, labelled by the element with this id."""
    if chart.kind == "bars":
        content, height = draw_bars(chart, width)
    elif chart.kind == "waterfall":
        content, height = draw_waterfall(chart, width)
    else:
        height = _HEIGHTS.get(width, _HEIGHTS[WIDE])
        draw = {"cdf": _draw_cdf, "lines": _draw_lines, "roofline": _draw_roofline}[chart.kind]
        content = draw(chart, width, height)
    return svg.element(
        "svg",
        content,
        class_="chart " + ("wide" if width == WIDE else "narrow"),
        viewBox=f"0 0 {width} {height:.0f}",
        width=width,
        height=f"{height:.0f}",
        role="img",
        aria_labelledby=label_id,
    )


def is_ceiling(series: Series) -> bool:
    """Return True for a line of a roofline."""
    return series.name.lower().startswith(_CEILING)


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least so many percent of the values do not exceed."""
    return sorted_values[max(0, math.ceil(percent / 100 * len(sorted_values)) - 1)]


def cdf_values(series: Series) -> list[float]:
    """Return the x of the series at each whole percent, by its y as shares: what tips and tables show."""
    pairs = sorted(zip(series.y, map(float, series.x), strict=True))
    return [next((x for y, x in pairs if y >= percent / 100 - 1e-9), pairs[-1][1]) for percent in range(101)]


def _draw_cdf(chart: Chart, width: float, height: float) -> str:
    xs = [float(x) for series in chart.series for x in series.x]
    plot = _plot(chart, width, height, xs, [0.0, 1.0])
    plot = Plot(plot.x, Axis(0.0, 1.02, plot.y.start, plot.y.end), width, height)
    parts = [_x_ticks(plot, chart), _axis_titles(plot, chart)]
    for share in (0.0, 0.25, 0.5, 0.75, 0.9, 0.99):
        y = plot.y.position(share)
        parts.append(svg.line(plot.x.start, y, plot.x.end, y, class_="grid"))
        offset = {0.9: 10.0, 0.99: 2.0}.get(share, 4.0)
        parts.append(svg.text(plot.x.start - 6, y + offset, f"{share * 100:.0f} %", "end"))
    for number, series in enumerate(chart.series):
        pairs = sorted(zip(map(float, series.x), series.y, strict=True))
        step = max(1, len(pairs) // _CDF_POINTS)
        thinned = [*pairs[:-1:step], pairs[-1]]
        curve = [(plot.x.position(x), plot.y.position(y)) for x, y in thinned]
        curve = [(curve[0][0], plot.y.position(0.0)), *_stairs(curve)] if len(pairs) < 40 else curve
        parts.append(svg.path(curve, class_=f"curve s{number % COLOURS} d{number // MARKED}"))
        values = cdf_values(series)
        for percent in (1, 5, 10, 25, 50, 75, 90, 95, 99, 100):
            tip = f"{series.name}: {percent} % within {number_text(values[percent])}"
            shown = percent in PERCENTILES
            parts.append(_point(plot, values[percent], percent / 100, number, tip, shown))
    return "".join(parts)


MARKED = 4
"""Series that differ by colour and marker before dashes are used."""


def _stairs(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the steps of an empirical distribution, whose few points are not to look like a smooth one."""
    points = [curve[0]]
    for (_, y_before), (x, y) in pairwise(curve):
        points += [(x, y_before), (x, y)]
    return points


def _draw_lines(chart: Chart, width: float, height: float) -> str:
    names = [x for series in chart.series for x in series.x if isinstance(x, str)]
    order = {name: float(index) for index, name in enumerate(dict.fromkeys(names))}
    columns = [[order[x] if isinstance(x, str) else float(x) for x in series.x] for series in chart.series]
    ys = [y for series in chart.series for y in (*series.y, *series.low, *series.high)]
    plot = _plot(chart, width, height, [x for column in columns for x in column], ys, from_zero=True)
    parts = [_y_ticks(plot), _axis_titles(plot, chart)]
    if order:
        parts += [
            svg.text(plot.x.position(index), plot.y.start + 18, name, "middle")
            for name, index in order.items()
        ]
    else:
        parts.append(_x_ticks(plot, chart, sorted({x for column in columns for x in column})))
    for number, (series, xs) in enumerate(zip(chart.series, columns, strict=True)):
        if series.low and series.high:
            band = list(zip(xs, series.low, strict=True)) + list(zip(xs, series.high, strict=True))[::-1]
            parts.append(
                svg.path(
                    [(plot.x.position(x), plot.y.position(y)) for x, y in band],
                    closed=True,
                    class_=f"band s{number % COLOURS}",
                )
            )
        parts.append(
            svg.path(
                [(plot.x.position(x), plot.y.position(y)) for x, y in zip(xs, series.y, strict=True)],
                class_=f"curve s{number % COLOURS} d{number // MARKED}",
            )
        )
        for index, (x, y) in enumerate(zip(xs, series.y, strict=True)):
            parts.append(_point(plot, x, y, number, point_tip(chart, series, index)))
    return "".join(parts)


def point_tip(chart: Chart, series: Series, index: int) -> str:
    """Return the text of one point: its label or coordinates, the value and its interval."""
    x = series.x[index]
    where = x if isinstance(x, str) else f"{chart.x_label} {number_text(x)}"
    if series.labels:
        where = f"{series.labels[index]}, {where}"
    value = f"{series.name}: {number_text(series.y[index])}"
    if series.low and series.high:
        value += f" ({number_text(series.low[index])}–{number_text(series.high[index])})"
    return f"{value} at {where}"


def _draw_roofline(chart: Chart, width: float, height: float) -> str:
    xs = [float(x) for series in chart.series for x in series.x]
    ys = [y for series in chart.series for y in series.y]
    plot = _plot(Chart("roofline", "", "", "", (), True, True), width, height, xs, ys)
    parts = [_y_ticks(plot), _x_ticks(plot, chart), _axis_titles(plot, chart)]
    ceilings = [series for series in chart.series if is_ceiling(series)]
    parts += [_ceiling(plot, series) for series in ceilings]
    points = [series for series in chart.series if not is_ceiling(series)]
    labels = sum(len(series.labels) for series in points)
    taken: list[tuple[float, float]] = []
    for number, series in enumerate(points):
        for index, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            parts.append(_point(plot, float(x), y, number, point_tip(chart, series, index)))
            if series.labels and labels <= _MOST_LABELS and width == WIDE:
                at = (plot.x.position(float(x)), plot.y.position(y))
                parts.append(_point_label(plot, series.labels[index], at, taken))
    return "".join(parts)


def _point_label(plot: Plot, content: str, at: tuple[float, float], taken: list[tuple[float, float]]) -> str:
    """Return the label right of a point, or left of it at the edge, moved down where another one stands."""
    wide = len(content) * svg.CHARACTER_WIDTH * 0.92
    left = at[0] + 8 + wide > plot.x.end
    x, y = at[0] + (-8 if left else 8), at[1] + 4
    while any(abs(y - other_y) < 12 and abs(x - other_x) < wide for other_x, other_y in taken):
        y += 12
    taken.append((x, y))
    return svg.text(x, y, content, "end" if left else "start", class_="small halo")


def _ceiling(plot: Plot, series: Series) -> str:
    curve = [(plot.x.position(float(x)), plot.y.position(y)) for x, y in zip(series.x, series.y, strict=True)]
    name = series.labels[0] if series.labels else series.name[len(_CEILING) :].strip(" :,") or series.name
    (x1, y1), (x2, y2) = curve[0], curve[-1]
    if abs(y2 - y1) < 2:
        label = svg.text(x2 - 4, y2 - 6, name, "end", class_="small halo ceiling-name")
    else:
        angle = math.degrees(math.atan2(curve[1][1] - y1, curve[1][0] - x1))
        place = (x1 + 14, y1 + 14 * math.tan(math.radians(angle)) - 11)
        label = svg.text(
            *place,
            name,
            class_="small halo ceiling-name",
            transform=f"rotate({angle:.1f} {place[0]:.1f} {place[1]:.1f})",
        )
    return svg.path(curve, class_="ceiling") + label


def _plot(
    chart: Chart,
    width: float,
    height: float,
    xs: Sequence[float],
    ys: Sequence[float],
    from_zero: bool = False,
) -> Plot:
    top, bottom = 14.0, height - 46
    y = axis_over(ys, bottom, top, chart.log_y, from_zero)
    longest = max((len(round_text(tick)) for tick in y.ticks(6)), default=4)
    left = 28 + max(longest, 4) * svg.CHARACTER_WIDTH
    x = axis_over(xs, left, width - 16, chart.log_x)
    return Plot(x, y, width, height)


def _y_ticks(plot: Plot) -> str:
    parts = []
    for tick in apart(plot.y.ticks(6), plot.y, 16):
        y = plot.y.position(tick)
        parts.append(svg.line(plot.x.start, y, plot.x.end, y, class_="grid"))
        parts.append(svg.text(plot.x.start - 6, y + 4, round_text(tick), "end"))
    return "".join(parts)


def _x_ticks(plot: Plot, chart: Chart, values: Sequence[float] = ()) -> str:
    """Return ticks at the values of the data if they are few, else at round ones."""
    ticks = list(values) if 0 < len(values) <= 12 else plot.x.ticks(6)
    widest = max((len(round_text(tick)) for tick in ticks), default=1) * svg.CHARACTER_WIDTH + 8
    base = plot.y.start
    parts = [svg.line(plot.x.start, base, plot.x.end, base, class_="axis")]
    for tick in apart(ticks, plot.x, widest):
        x = plot.x.position(tick)
        parts.append(svg.line(x, base, x, base + 4, class_="axis"))
        parts.append(svg.text(x, base + 18, round_text(tick), "middle"))
    return "".join(parts)


def _axis_titles(plot: Plot, chart: Chart) -> str:
    middle = (plot.y.start + plot.y.end) / 2
    return svg.text(
        (plot.x.start + plot.x.end) / 2, plot.height - 8, chart.x_label, "middle", class_="label"
    ) + svg.text(
        12, middle, chart.y_label, "middle", class_="label", transform=f"rotate(-90 12 {middle:.1f})"
    )


def _point(plot: Plot, x: float, y: float, number: int, tip: str, shown: bool = True) -> str:
    drawn = svg.marker(plot.x.position(x), plot.y.position(y), number)
    return svg.element("g", drawn, class_=f"p s{number % COLOURS}{'' if shown else ' quiet'}", data_tip=tip)
