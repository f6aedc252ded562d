"""Check what a section hands over before it becomes part of the record."""

from __future__ import annotations

import math
from dataclasses import replace

from stenosis_trt.bench.record.files import json_value
from stenosis_trt.bench.record.record import Absence, Chart, Figure, Section, Series


def checked_section(section: Section) -> Section:
    """Return the section as the record keeps it.

    Figures without a finite value become absences. Intervals that are not finite are dropped, and so are
    points of charts that are not finite, or not positive on a logarithmic axis. Details become values of
    JSON.

    Raises:
        ValueError: two figures have one name, a figure lacks the section's prefix, or a series has columns of
            different lengths.
        TypeError: the details hold something that is no JSON.
    """
    names = [figure.name for figure in section.figures]
    for name in names:
        if not name.startswith(f"{section.name}."):
            raise ValueError(f"figure {name} is not one of section {section.name}")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"figure {min(repeated)} is there twice")
    missing = [figure for figure in section.figures if not math.isfinite(figure.value)]
    return replace(
        section,
        figures=tuple(_figure(figure) for figure in section.figures if math.isfinite(figure.value)),
        absences=(
            *section.absences,
            *(Absence(figure.name, f"{figure.text}: the result is no number.") for figure in missing),
        ),
        charts=tuple(chart for chart in map(_chart, section.charts) if chart.series),
        details=json_value(section.details),
        seconds=float(section.seconds),
    )


def _figure(figure: Figure) -> Figure:
    ends = (figure.low, figure.high)
    whole = all(end is not None and math.isfinite(end) for end in ends)
    low, high = (float(end) for end in ends if end is not None) if whole else (None, None)
    target = None if figure.target is None else float(figure.target)
    return replace(
        figure, value=float(figure.value), low=low, high=high, runs=int(figure.runs), target=target
    )


def _chart(chart: Chart) -> Chart:
    return replace(
        chart, series=tuple(series for series in (_series(chart, one) for one in chart.series) if series.x)
    )


def _series(chart: Chart, series: Series) -> Series:
    lengths = {len(series.x), len(series.y)}
    lengths |= {len(column) for column in (series.low, series.high, series.labels) if column}
    if len(lengths) > 1:
        raise ValueError(f"series {series.name} of chart {chart.title} has columns of different lengths")
    kept = [
        index
        for index, (x, y) in enumerate(zip(series.x, series.y, strict=True))
        if _drawable(x, chart.log_x) and _drawable(y, chart.log_y)
    ]
    x = tuple(_coordinate(series.x[index]) for index in kept)
    y = tuple(float(series.y[index]) for index in kept)
    with_interval = bool(series.low and series.high) and all(
        _drawable(end, chart.log_y) for index in kept for end in (series.low[index], series.high[index])
    )
    return replace(
        series,
        x=x,
        y=y,
        low=tuple(float(series.low[index]) for index in kept) if with_interval else (),
        high=tuple(float(series.high[index]) for index in kept) if with_interval else (),
        labels=tuple(str(series.labels[index]) for index in kept) if series.labels else (),
    )


def _coordinate(value: float | str) -> float | str:
    return value if isinstance(value, str) else float(value)


def _drawable(value: float | str, log: bool) -> bool:
    if isinstance(value, str):
        return True
    return math.isfinite(value) and (value > 0 or not log)
