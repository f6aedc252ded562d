"""Figure of a robustness evaluation: for each condition, shares of levels above the error of the ratio."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from stenosis_trt.bench.robustness.declared import MOST_SILENT_CHANGES, DeclaredRange
from stenosis_trt.bench.robustness.figures import Figures
from stenosis_trt.bench.robustness.plan import ordinary_strength
from stenosis_trt.bench.robustness.tables import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACCURACY, _SILENT, _UNGRADED, _RATIO = "#0072B2", "#D55E00", "#8c8c8c", "#009E73"
"""Colours of Okabe and Ito's palette, which are told apart with any colour vision, and grey."""
_DECLARED = "#eef4ea"
_COLUMNS = 4
_CELL_INCHES = (2.75, 2.6)
_RATIO_LIMIT = 0.10
_DPI = 110


def draw(
    figures: Sequence[Figures], ordinary: Figures, declared: Sequence[DeclaredRange], title: str
) -> Mapping[str, bytes]:
    """Draw the figures of all sources together.

    Args:
        figures: of every condition and strength.
        ordinary: of the ordinary studies, drawn at the strength that these have.
        declared: the range of each condition, in the order of the cells.
        title: above the cells.

    Returns:
        The picture by the ending of its file: "svg" and "png".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(declared) // _COLUMNS)
    width, height = _CELL_INCHES
    # The head has the same height for any number of rows.
    head = 0.95
    figure = Figure(figsize=(width * _COLUMNS, height * rows + head), facecolor="white")
    FigureCanvasAgg(figure)
    total = height * rows + head
    grid = figure.add_gridspec(
        rows,
        _COLUMNS,
        left=0.062,
        right=0.992,
        top=1.0 - head / total - 0.12 / total,
        bottom=0.35 / total,
        wspace=0.14,
        hspace=0.42,
    )
    for number, found in enumerate(declared):
        row, column = divmod(number, _COLUMNS)
        cell = grid[row, column].subgridspec(2, 1, height_ratios=(1.7, 1.0), hspace=0.12)
        upper = figure.add_subplot(cell[0])
        lower = figure.add_subplot(cell[1], sharex=upper)
        items = [item for item in figures if item.condition == found.condition and item.source == "all"]
        _draw_cell(upper, lower, items, ordinary, found)
        if column == 0:
            upper.set_ylabel("levels (%)", fontsize=8)
            lower.set_ylabel("ratio error", fontsize=8)
        else:
            upper.tick_params(labelleft=False)
            lower.tick_params(labelleft=False)
    figure.text(0.062, 1.0 - 0.22 / total, title, fontsize=11, va="center")
    _legend(figure, 1.0 - 0.36 / total)
    return {"svg": _saved(figure, "svg"), "png": _saved(figure, "png")}


def _saved(figure: Figure, form: str) -> bytes:
    import matplotlib

    stream = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    # Ids of an SVG are hashed with a fixed salt, so that equal figures give equal files.
    with matplotlib.rc_context({"svg.hashsalt": "robustness", "svg.fonttype": "path"}):
        figure.savefig(stream, format=form, dpi=_DPI, facecolor="white", metadata=metadata)
    return stream.getvalue()


def _draw_cell(
    upper: Axes, lower: Axes, items: Sequence[Figures], ordinary: Figures, found: DeclaredRange
) -> None:
    plain = ordinary_strength(found.condition)
    points = sorted([(plain, ordinary), *((item.strength, item) for item in items)], key=lambda pair: pair[0])
    for axes in (upper, lower):
        axes.axvspan(found.low, found.high, color=_DECLARED, zorder=0)
        axes.axvline(plain, color="#b0b0b0", linewidth=0.8, linestyle=":", zorder=1)
    _line(upper, [(x, item.accuracy) for x, item in points], _ACCURACY, "o", 100.0)
    ungraded = [(x, 1.0 - item.graded / item.levels if item.levels else None) for x, item in points]
    _line(upper, ungraded, _UNGRADED, "s", 100.0)
    silent = [(x, 0.0 if item is ordinary else item.silent_changes) for x, item in points]
    _line(upper, silent, _SILENT, "D", 100.0)
    upper.axhline(100.0 * MOST_SILENT_CHANGES, color=_SILENT, linewidth=0.8, linestyle="--", zorder=1)
    _line(lower, [(x, _clipped(item.ratio_mean_absolute_error)) for x, item in points], _RATIO, "o", 1.0)
    for x, item in points:
        error = item.ratio_mean_absolute_error
        if error is not None and error > _RATIO_LIMIT:
            lower.annotate(f"{error:.2f}", (x, _RATIO_LIMIT * 0.93), fontsize=6, ha="center", va="top")
    upper.set_ylim(-4, 104)
    upper.set_yticks([0, 25, 50, 75, 100])
    lower.set_ylim(0, _RATIO_LIMIT * 1.08)
    lower.set_yticks([0.0, 0.05, 0.10])
    unit = f" ({found.unit})" if found.unit else ""
    upper.set_title(f"{words(found.condition)}{unit}", loc="left", fontsize=9, pad=3)
    ticks = sorted({x for x, _ in points} - ({plain} if found.condition == "field_mm" else set()))
    lower.set_xticks(ticks, [f"{x:g}" for x in ticks])
    upper.tick_params(labelbottom=False)
    for axes in (upper, lower):
        axes.margins(x=0.06)
        axes.tick_params(labelsize=7, length=2)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def _clipped(error: float | None) -> float | None:
    return None if error is None else min(error, _RATIO_LIMIT)


def _line(
    axes: Axes, points: Sequence[tuple[float, float | None]], colour: str, marker: str, factor: float
) -> None:
    shown = [(x, factor * y) for x, y in points if y is not None]
    if shown:
        x, y = zip(*shown, strict=True)
        axes.plot(x, y, color=colour, marker=marker, markersize=3.2, linewidth=1.3, clip_on=False, zorder=3)


def _legend(figure: Figure, top: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def line(colour: str, marker: str, label: str, style: Literal["-", "--", ":"] = "-") -> Line2D:
        return Line2D([], [], color=colour, marker=marker, markersize=4, linestyle=style, label=label)

    figure.legend(
        handles=[
            line(_ACCURACY, "o", "accuracy of graded levels"),
            line(_SILENT, "D", "grade changed without a flag"),
            line(_SILENT, "", f"limit of that, {MOST_SILENT_CHANGES:.0%}", "--"),
            line(_UNGRADED, "s", "not graded"),
            line(_RATIO, "o", "mean absolute error of the ratio"),
            line("#b0b0b0", "", "ordinary study", ":"),
            Patch(color=_DECLARED, label="declared range"),
        ],
        loc="upper left",
        bbox_to_anchor=(0.055, top),
        ncols=4,
        fontsize=8,
        frameon=False,
        borderpad=0.0,
        columnspacing=1.6,
    )
