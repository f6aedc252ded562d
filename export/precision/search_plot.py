"""Figure of a mixed-precision search: error and work of each block, and the result of every trial."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stenosis_trt.engine.support.atomic_files import write_bytes_atomically

_QUANTISED, _LEFT_OUT, _OTHER = "#0072B2", "#D55E00", "#8c8c8c"
"""Blue and vermilion of Okabe and Ito's palette, which are told apart with any colour vision."""
_ROW_INCHES = 0.24


def plot_search_log(log: Mapping[str, Any], path: Path) -> None:
    """Draw the content of a search log as PNG; draws nothing if no block was measured.

    Args:
        log: `SearchLog.content`.
        path: the PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    sensitivity = log["sensitivity"]
    if not sensitivity:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left_out = (log["result"] or {}).get("left_out", {})
    found = bool((log["result"] or {}).get("found"))
    rows = [len(blocks) for blocks in sensitivity.values()]
    heights = [_ROW_INCHES * count + 1.0 for count in rows] + [3.4]
    figure = Figure(figsize=(10.0, sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=(2.0, 1.0))
    for row, (model, blocks) in enumerate(sensitivity.items()):
        out = set(left_out.get(model, ())) if found else set()
        _draw_blocks(figure, grid[row, 0], grid[row, 1], model, blocks, out)
    _draw_trials(figure.add_subplot(grid[len(rows), :]), log)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    write_bytes_atomically(path, stream.getvalue())


def _draw_blocks(
    figure: Any, errors: Any, shares: Any, model: str, blocks: list[Mapping[str, Any]], out: set[str]
) -> None:
    """One bar per block in graph order: error on the left, share of the multiply-adds on the right."""
    names = [block["block"] for block in blocks]
    colours = [_LEFT_OUT if name in out else _QUANTISED for name in names]
    left = figure.add_subplot(errors)
    right = figure.add_subplot(shares, sharey=left)
    values = [max(block["relative_rms"], 1e-12) for block in blocks]
    # Dots and no bars: on a logarithmic axis the length of a bar means nothing.
    left.scatter(values, names, color=colours, s=34, zorder=2)
    left.set_xscale("log")
    left.set_xlim(min(values) / 2, max(values) * 2)
    left.invert_yaxis()
    left.grid(axis="y", color="#eeeeee", linewidth=0.6)
    left.set_xlabel("error at the output with this block alone in INT8 (RMS, relative)")
    left.set_title(f"{model}: what a block loses", loc="left", fontsize=10)
    right.barh(names, [100 * block["share"] for block in blocks], color=colours)
    right.set_xlabel("share of the quantised multiply-adds (%)")
    kept = 100 * sum(block["share"] for block in blocks if block["block"] not in out)
    right.set_title(f"and saves: {kept:.1f} % of them in INT8", loc="left", fontsize=10)
    right.tick_params(labelleft=False)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(y=0.01)
    for label, name in zip(left.get_yticklabels(), names, strict=True):
        if name in out:
            label.set_color(_LEFT_OUT)
            label.set_fontweight("bold")
    handles = [left.scatter([], [], color=colour, s=34) for colour in (_QUANTISED, _LEFT_OUT)]
    _legend(left, handles, ["INT8", "left out of INT8"])


def _legend(axes: Any, *what: Any) -> None:
    """Legend above the upper right corner, outside of the axes."""
    axes.legend(
        *what, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, borderpad=0.2
    )


def _draw_trials(axes: Any, log: Mapping[str, Any]) -> None:
    """Share of multiply-adds in INT8 for each trial, and which trials passed."""
    trials, models = log["trials"], list(log["sensitivity"])
    shares = [[100 * trial["quantised_share"][model] for model in models] for trial in trials]
    means = [sum(row) / len(row) for row in shares]
    numbers = [trial["trial"] for trial in trials]
    result = log["result"] or {}
    taken = None
    if result.get("found"):
        taken = next(
            place
            for place, trial in enumerate(trials)
            if {name: left for name, left in trial["unquantised"].items() if left} == result["left_out"]
            and None not in trial["unquantised"].values()
        )
    axes.plot(numbers, means, color=_OTHER, linewidth=0.8, zorder=1)
    for passed, marker, colour, word in ((True, "o", _QUANTISED, "passes"), (False, "X", _LEFT_OUT, "fails")):
        points = [
            (number, mean)
            for number, mean, trial in zip(numbers, means, trials, strict=True)
            if trial["passed"] is passed
        ]
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            marker=marker,
            s=46,
            color=colour,
            label=f"{word} the gate",
            zorder=2,
        )
    axes.set_ylim(-5, 105)
    axes.set_xlabel("candidate held against the validation studies")
    of = models[0] if len(models) == 1 else f"{', '.join(models)} (mean)"
    axes.set_ylabel(f"multiply-adds in INT8 (%)\nof {of}", fontsize=9)
    axes.set_title("Trials", loc="left", fontsize=10)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if taken is not None:
        axes.scatter(
            [numbers[taken]],
            [means[taken]],
            marker="o",
            s=170,
            facecolors="none",
            edgecolors="black",
            label="taken",
        )
    _legend(axes)
