"""Figure of a robustness evaluation: three panels for each condition, against its strength."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_DECLARED, _PLAIN = "#eef4ea", "#b0b0b0"
_COLUMNS = 4
_CELL_INCHES = (2.75, 2.75)
_HEAD_INCHES = 0.95
"""Height of title and legend, the same for any number of rows."""
_DPI = 110
_CLOSE_TICKS = 0.13
"""Tick labels that are closer, as a share of the axis, would touch."""


@dataclass(frozen=True)
class _Panel:
    """One of the panels of a condition.

    Attributes:
        label: of the vertical axis.
        top: its end; larger values are drawn there, with their number.
        ticks: on it.
        height: relative to the other panels.
        form: of the numbers of larger values.
    """

    label: str
    top: float
    ticks: tuple[float, ...]
    height: float
    form: str


_PANELS = (
    _Panel("levels (%)", 100.0, (0.0, 50.0, 100.0), 1.15, "{:.0f}"),
    _Panel("silent (%)", 20.0, (0.0, 5.0, 10.0, 20.0), 1.0, "{:.0f}"),
    _Panel("ratio error", 0.10, (0.0, 0.05, 0.10), 0.9, "{:.2f}"),
)


def draw(
    figures: Sequence[Figures], ordinary: Figures, declared: Sequence[DeclaredRange], title: str
) -> Mapping[str, bytes]:
    """Draw the figures of all sources together.

    Args:
        figures: of every condition and strength.
        ordinary: of the ordinary studies, drawn at the strength that these have.
        declared: the range of each condition, in the order in which they are drawn.
        title: above the panels.

    Returns:
        The picture by the ending of its file: "svg" and "png".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(declared) // _COLUMNS)
    width, height = _CELL_INCHES
    total = height * rows + _HEAD_INCHES
    figure = Figure(figsize=(width * _COLUMNS, total), facecolor="white")
    FigureCanvasAgg(figure)
    top, bottom = 1.0 - (_HEAD_INCHES + 0.1) / total, 0.3 / total
    grid = figure.add_gridspec(
        rows, _COLUMNS, left=0.062, right=0.99, top=top, bottom=bottom, wspace=0.12, hspace=0.26
    )
    heights = [panel.height for panel in _PANELS]
    for number, found in enumerate(declared):
        row, column = divmod(number, _COLUMNS)
        cell = grid[row, column].subgridspec(len(_PANELS), 1, height_ratios=heights, hspace=0.16)
        axes = [figure.add_subplot(cell[k]) for k in range(len(_PANELS))]
        items = [item for item in figures if item.condition == found.condition and item.source == "all"]
        _draw_condition(axes, items, ordinary, found)
        for one, panel in zip(axes, _PANELS, strict=True):
            one.tick_params(labelleft=column == 0)
            if column == 0:
                one.set_ylabel(panel.label, fontsize=7.5)
    figure.align_ylabels()
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


def _draw_condition(
    axes: Sequence[Axes], items: Sequence[Figures], ordinary: Figures, found: DeclaredRange
) -> None:
    plain = ordinary_strength(found.condition)
    points = sorted([(plain, ordinary), *((item.strength, item) for item in items)], key=lambda pair: pair[0])
    strengths = [x for x, _ in points]
    levels, silent, ratio = _PANELS
    _line(axes[0], levels, strengths, [_percent(item.accuracy) for _, item in points], _ACCURACY, "o")
    ungraded = [_percent(1.0 - item.graded / item.levels if item.levels else None) for _, item in points]
    _line(axes[0], levels, strengths, ungraded, _UNGRADED, "s")
    changes = [0.0 if item is ordinary else _percent(item.silent_changes) for _, item in points]
    _line(axes[1], silent, strengths, changes, _SILENT, "D")
    axes[1].axhline(100.0 * MOST_SILENT_CHANGES, color=_SILENT, linewidth=0.8, linestyle="--", zorder=1)
    errors = [item.ratio_mean_absolute_error for _, item in points]
    _line(axes[2], ratio, strengths, errors, _RATIO, "o")
    unit = f" ({found.unit})" if found.unit else ""
    axes[0].set_title(f"{words(found.condition)}{unit}", loc="left", fontsize=9, pad=3)
    # Nothing was made at the strength that stands for ordinary fields of view.
    ticks = [x for x in strengths if x != plain or found.condition != "field_mm"]
    margin = 0.06 * (max(strengths) - min(strengths))
    for one, panel in zip(axes, _PANELS, strict=True):
        one.axvspan(found.low, found.high, color=_DECLARED, zorder=0)
        one.axvline(plain, color=_PLAIN, linewidth=0.8, linestyle=":", zorder=1)
        one.set_xlim(min(strengths) - margin, max(strengths) + margin)
        one.set_ylim(-0.04 * panel.top, 1.06 * panel.top)
        one.set_yticks(panel.ticks)
        one.set_xticks(ticks, _tick_labels(ticks))
        one.tick_params(labelsize=6.5, length=2, labelbottom=panel is _PANELS[-1])
        one.grid(color="#e4e4e4", linewidth=0.6)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """Labels of ticks, empty where one would touch the one before."""
    least = _CLOSE_TICKS * (max(ticks) - min(ticks))
    labels, last = [], -float("inf")
    for tick in ticks:
        fits = tick - last >= least
        labels.append(f"{tick:g}".replace("-", "−") if fits else "")
        last = tick if fits else last
    return labels


def _line(
    axes: Axes,
    panel: _Panel,
    strengths: Sequence[float],
    values: Sequence[float | None],
    colour: str,
    marker: str,
) -> None:
    shown = [(x, y) for x, y in zip(strengths, values, strict=True) if y is not None]
    axes.plot(
        [x for x, _ in shown],
        [min(y, panel.top) for _, y in shown],
        color=colour,
        marker=marker,
        markersize=3.0,
        linewidth=1.2,
        clip_on=False,
        zorder=3,
    )
    for x, y in shown:
        if y > panel.top:
            text, place = panel.form.format(y), (x, 0.9 * panel.top)
            axes.annotate(text, place, fontsize=6.5, ha="center", va="top", color=colour)


def _legend(figure: Figure, top: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def line(colour: str, marker: str, label: str, style: Literal["-", "--", ":"] = "-") -> Line2D:
        return Line2D([], [], color=colour, marker=marker, markersize=4, linestyle=style, label=label)

    figure.legend(
        handles=[
            line(_ACCURACY, "o", "accuracy of the graded levels"),
            line(_UNGRADED, "s", "levels that were not graded"),
            line(_SILENT, "D", "silent: grade changed without a flag"),
            line(_SILENT, "", f"limit of silent changes, {100 * MOST_SILENT_CHANGES:g} %", "--"),
            line(_RATIO, "o", "mean absolute error of the ratio"),
            line(_PLAIN, "", "ordinary study", ":"),
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
