"""Figures of a record as one bar chart in an SVG file, for documents.

    python -m stenosis_trt.bench.record.picture RECORD.json --title TITLE \\
        --figure peers.whole.user_script "a script, one slice at a time" --out picture.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from stenosis_trt.bench.record import svg
from stenosis_trt.bench.record.charts import WIDE, draw_chart
from stenosis_trt.bench.record.files import read_record
from stenosis_trt.bench.record.record import BenchRecord, Chart, Figure, Series
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically

_TITLE_ROOM = 34.0
_LABEL_ID = "title"
_STYLE = """
svg { --surface: #ffffff; --ink: #16202a; --muted: #52606d; --line: #dfe5ea; --strong-line: #8696a5;
  --c: #1f6fb2;
  font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --surface: #151c22; --ink: #e5eaef; --muted: #9fadb9; --line: #29343d; --strong-line: #667683;
    --c: #6db7f2; }
}
.ground { fill: var(--surface); }
text { fill: var(--ink); }
.label { fill: var(--muted); }
.small { font-size: 11px; }
.strong, .heading { font-weight: 650; }
.heading { font-size: 14px; }
.grid { stroke: var(--line); }
.axis { stroke: var(--strong-line); }
.bar { fill: var(--c); }
.whisker { fill: none; stroke: var(--ink); stroke-width: 1.4; }
"""


def figures_chart(record: BenchRecord, names: Sequence[tuple[str, str]], title: str) -> Chart:
    """Return a bar chart of figures.

    Args:
        record: has the figures.
        names: name of each figure in the record, and its text in the chart.
        title: heading.

    Raises:
        InputError: the record lacks a figure, or their units differ.
    """
    known = record.figures()
    for name, _ in names:
        if name not in known:
            raise InputError(f"The record has no figure {name}.", "Give a name that `bench all` printed.")
    figures = [known[name] for name, _ in names]
    units = {figure.unit for figure in figures}
    if len(units) > 1:
        raise InputError("The figures have different units.", "Draw a picture for each unit.")
    (unit,) = units or {""}
    low, high = zip(*map(_interval, figures), strict=True)
    texts = tuple(text for _, text in names)
    series = Series("", texts, tuple(figure.value for figure in figures), low, high)
    return Chart("bars", title, unit or "times", "", (series,))


def draw_picture(chart: Chart) -> str:
    """Return a chart with its title as an SVG document, in light and dark."""
    content = draw_chart(chart, WIDE, _LABEL_ID)
    height = float(content.split('height="', 1)[1].split('"', 1)[0]) + _TITLE_ROOM
    return svg.element(
        "svg",
        svg.element("style", _STYLE),
        svg.rectangle(0, 0, WIDE, height, class_="ground"),
        svg.text(8, 22, chart.title, class_="heading", id=_LABEL_ID),
        svg.element("g", content, transform=f"translate(0 {_TITLE_ROOM:.0f})"),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDE} {height:.0f}",
        width=WIDE,
        height=f"{height:.0f}",
        role="img",
        aria_labelledby=_LABEL_ID,
    )


def _interval(figure: Figure) -> tuple[float, float]:
    if figure.low is None or figure.high is None:
        return figure.value, figure.value
    return figure.low, figure.high


def main() -> None:
    """Write the picture of a record's figures."""
    parser = argparse.ArgumentParser(description="Bar chart of figures of a benchmark record, as SVG.")
    parser.add_argument("record", type=Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--figure", nargs=2, action="append", required=True, metavar=("NAME", "TEXT"))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        names = [(name, text) for name, text in arguments.figure]
        chart = figures_chart(read_record(arguments.record), names, arguments.title)
    except InputError as error:
        parser.error(str(error))
    write_bytes_atomically(arguments.out, draw_picture(chart).encode())


if __name__ == "__main__":
    main()
