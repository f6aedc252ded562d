"""Figure of training logs: loss, learning rate and validation figures, one row per network.

    python -m stenosis_trt.export.training.curves WORK --out curves.png

Every log below the work folder gets a row, including those of folds and of unfinished runs.
"""

from __future__ import annotations

import argparse
import errno
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stenosis_trt.engine.support.atomic_files import write_bytes_atomically
from stenosis_trt.export.training.logs import LOG_SUFFIX, read_rows

_LINE, _BEST, _OTHER = "#0072B2", "#D55E00", "#8c8c8c"
"""Blue and vermilion of the Okabe-Ito palette, which is safe for colour-blind readers."""
_PANEL_INCHES = (2.9, 1.9)
_MIN_COLUMNS = 4
"""Minimum number of panels per row, so that the titles fit."""
_LOG_AXIS_RATIO = 5.0
"""Ratio of largest to smallest loss from which the axis is logarithmic."""
_NOT_FIGURES = ("step", "loss", "rate", "seconds_a_step", "int8", "judged_by", "best_step", "best_figure")
"""Entries of a row that are not validation figures."""

Rows = Sequence[Mapping[str, Any]]


def plot_curves(folder: Path, out: Path) -> None:
    """Draw the logs below a work folder as PNG.

    Args:
        folder: contains `<name>.log.jsonl` files at any depth.
        out: the PNG file.

    Raises:
        FileNotFoundError: there is no log with a row.
        ValueError: a log contains other data.
        OSError: a log cannot be read or the PNG not written.
    """
    logs = _logs(folder)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = {network: _figure_names(rows) for network, rows in logs.items()}
    columns = max(_MIN_COLUMNS, 2 + max(map(len, names.values())))
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * len(logs) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(logs), columns)
    for row, (network, rows) in enumerate(logs.items()):
        for column, figures in enumerate(("loss", "rate", *names[network])):
            axes = figure.add_subplot(grid[row, column])
            _draw_panel(axes, rows, figures)
            if column == 0:
                axes.set_ylabel(network.replace("/", "/\n"), fontsize=9, fontweight="bold")
            if row == len(logs) - 1:
                axes.set_xlabel("step", fontsize=8)
    figure.align_ylabels()
    figure.legend(handles=_legend(logs), loc="outside upper right", ncols=4, fontsize=8, frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    write_bytes_atomically(out, stream.getvalue())


def _logs(folder: Path) -> dict[str, Rows]:
    """Rows of each non-empty log, by path without suffix."""
    paths = sorted(folder.rglob(f"*{LOG_SUFFIX}"))
    named = {path.relative_to(folder).as_posix().removesuffix(LOG_SUFFIX): read_rows(path) for path in paths}
    logs: dict[str, Rows] = {name: rows for name, rows in named.items() if rows}
    if not logs:
        what = (
            "none of its logs has a row yet"
            if named
            else f"there is no training log (*{LOG_SUFFIX}) below it"
        )
        raise FileNotFoundError(
            errno.ENOENT, f"{what}; give the --work folder of a training that has validated", str(folder)
        )
    return logs


def _figure_names(rows: Rows) -> list[str]:
    """Names of validation figures, in the order of the log."""
    return [name for name in dict.fromkeys(key for row in rows for key in row) if name not in _NOT_FIGURES]


def _draw_panel(axes: Any, rows: Rows, name: str) -> None:
    """Plot a figure over the steps and mark the best network."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    steps, values = [step for step, _ in points], [value for _, value in points]
    axes.plot(steps, values, color=_LINE, linewidth=1.2, marker="o", markersize=2.5)
    if name == "loss" and max(values) > _LOG_AXIS_RATIO * min(values) > 0.0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
        axes.yaxis.get_offset_text().set_fontsize(8)
    best, judged_by = rows[-1].get("best_step"), rows[-1].get("judged_by")
    if best is not None:
        axes.axvline(best, color=_BEST, linewidth=0.9, linestyle="--", zorder=0)
    if judged_by == name:
        axes.plot([best], [rows[-1]["best_figure"]], "o", color=_BEST, markersize=6)
    begun = _first_int8_step(rows)
    if begun is not None:
        axes.axvline(begun, color=_OTHER, linewidth=0.9, linestyle=":", zorder=0)
    title = {"loss": "training loss", "rate": "learning rate"}.get(name, name)
    chosen = judged_by == name
    axes.set_title(
        f"{title}: {rows[-1]['best_figure']:.4g} at step {best}" if chosen else title,
        # Beside an axis' factor, which stands at the left.
        loc="center",
        fontsize=9,
        color=_BEST if chosen else "black",
    )
    axes.set_xlim(left=0)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _first_int8_step(rows: Rows) -> int | None:
    """First validated step with simulated INT8."""
    return next((int(row["step"]) for row in rows if row.get("int8")), None)


def _legend(logs: Mapping[str, Rows]) -> list[Any]:
    """Handles of all marks in use."""
    from matplotlib.lines import Line2D

    handles = []
    if any("best_step" in rows[-1] for rows in logs.values()):
        handles.append(Line2D([], [], color=_BEST, linestyle="--", linewidth=0.9, label="best step"))
        handles.append(
            Line2D(
                [],
                [],
                color=_BEST,
                linestyle="",
                marker="o",
                markersize=6,
                label="the figure it was judged by",
            )
        )
    if any(_first_int8_step(rows) is not None for rows in logs.values()):
        handles.append(
            Line2D([], [], color=_OTHER, linestyle=":", linewidth=0.9, label="first validated as INT8")
        )
    return handles


def main() -> None:
    """Draw the curves of a work folder."""
    parser = argparse.ArgumentParser(description="Draw the curves of a training.")
    parser.add_argument("work", type=Path, help="the --work folder of stenosis_trt.export.training.train")
    parser.add_argument("--out", type=Path, required=True, help="the picture, PNG")
    arguments = parser.parse_args()
    try:
        plot_curves(arguments.work, arguments.out)
    except (OSError, ValueError) as error:
        text = f"{error.filename}: {error.strerror}." if isinstance(error, OSError) else str(error)
        raise SystemExit(text) from error
    print(arguments.out)


if __name__ == "__main__":
    main()
