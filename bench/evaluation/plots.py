"""Plots of an evaluation as PNG: confusion matrices, kappas, Bland-Altman, ROC."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from stenosis_trt.bench.evaluation.cohort import Cohort
from stenosis_trt.bench.evaluation.evaluation import Evaluation
from stenosis_trt.bench.evaluation.grading import POSITIVE_FROM
from stenosis_trt.bench.evaluation.measuring import MeasureFigures, measured_differences
from stenosis_trt.bench.evaluation.raters import MEASURES
from stenosis_trt.bench.evaluation.wording import MEASURE_NAMES, with_interval
from stenosis_trt.bench.statistics.kappa import WEIGHTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150
_MARKERS = "os^Dv"
# Okabe & Ito's colours, which differ with colour blindness as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def plots(found: Evaluation, cohort: Cohort) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, PNG) of each plot. A plot without data is left out."""
    yield "confusion.png", _png(_confusion(found))
    if any(rater.kappas["quadratic"].value is not None for rater in found.raters):
        yield "kappas.png", _png(_kappas(found))
    if found.area.area.value is not None:
        yield "roc.png", _png(_roc(found, cohort))
    for reference in (cohort.truth, *cohort.readers):
        measures = [item for item in found.measures if item.reference == reference.name]
        if measures:
            place = "truth" if reference is cohort.truth else f"reader_{cohort.readers.index(reference) + 1}"
            yield f"bland_altman_{place}.png", _png(_bland_altman(cohort, measures))


def _figure(columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, [figure.add_subplot(1, columns, place + 1) for place in range(columns)]


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


def _confusion(found: Evaluation) -> Figure:
    figure, axes = _figure(len(found.raters), 3.6, 4.2)
    for axis, rater in zip(axes, found.raters, strict=True):
        counts = np.array(rater.confusion)
        rows = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(counts / rows, cmap="Blues", vmin=0.0, vmax=1.0)
        for (row, column), value in np.ndenumerate(counts):
            colour = "white" if counts[row, column] > 0.6 * rows[row, 0] else "black"
            axis.text(column, row, str(value), ha="center", va="center", color=colour)
        axis.set_xticks(range(len(counts)))
        axis.set_yticks(range(len(counts)))
        axis.set_xlabel(f"Kang grade of {rater.rater}")
        axis.set_ylabel("true Kang grade")
        axis.set_title(f"{rater.rater}, {rater.levels} levels\nshade: share of the true grade", fontsize=9)
    return figure


def _kappas(found: Evaluation) -> Figure:
    named = [(f"{rater.rater} – truth", rater.kappas) for rater in found.raters]
    named += [(f"{pair.first} – {pair.second}", pair.kappas) for pair in found.pairs]
    figure, (axis,) = _figure(1, 7.0, 1.2 + 0.5 * len(named))
    for place, weighting in enumerate(WEIGHTINGS):
        for row, (_, kappas) in enumerate(named):
            figure_of = kappas[weighting]
            if figure_of.value is None:
                continue
            height = row + 0.22 * (place - 1)
            label = weighting if row == 0 else None
            axis.plot(figure_of.value, height, _MARKERS[place], color=_COLOURS[place], label=label)
            if figure_of.low is not None and figure_of.high is not None:
                axis.plot([figure_of.low, figure_of.high], [height] * 2, color=_COLOURS[place])
    axis.set_yticks(range(len(named)), [name for name, _ in named])
    axis.invert_yaxis()
    axis.set_xlabel("Cohen's kappa with 95 % interval (bootstrap over patients)")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(title="weighting", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _roc(found: Evaluation, cohort: Cohort) -> Figure:
    from sklearn.metrics import roc_curve

    figure, (axis,) = _figure(1, 4.6, 4.6)
    used = cohort.truth.graded & np.isfinite(cohort.model.p_grade_2_or_3)
    false, true, _ = roc_curve(cohort.truth.grades[used] >= POSITIVE_FROM, cohort.model.p_grade_2_or_3[used])
    axis.plot(false, true, color=_COLOURS[0], label=f"model, area {with_interval(found.area.area)}")
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    for place, rater in enumerate(found.raters):
        item = rater.grade_2_or_3
        if item.sensitivity.value is not None and item.specificity.value is not None:
            axis.plot(
                1 - item.specificity.value,
                item.sensitivity.value,
                _MARKERS[place % len(_MARKERS)],
                color=_COLOURS[place % len(_COLOURS)],
                label=f"{rater.rater}, by its grades",
            )
    axis.set_xlabel("1 − specificity")
    axis.set_ylabel("sensitivity")
    axis.set_title("Kang grade 2 or 3", fontsize=10)
    axis.set_aspect("equal")
    axis.legend(loc="lower right", fontsize=7)
    return figure


def _bland_altman(cohort: Cohort, measures: list[MeasureFigures]) -> Figure:
    figure, axes = _figure(len(measures), 4.2, 3.6)
    for axis, item in zip(axes, measures, strict=True):
        reference = next(r for r in (cohort.truth, *cohort.readers) if r.name == item.reference)
        model, other, _ = measured_differences(cohort, reference, MEASURES.index(item.measure))
        axis.plot((model + other) / 2, model - other, ".", color=_COLOURS[0], markersize=3)
        for limit, style in ((item.limits.bias, "-"), (item.limits.low, "--"), (item.limits.high, "--")):
            if limit.value is None:
                continue
            axis.axhline(limit.value, linestyle=style, color="black", linewidth=1)
            if limit.low is not None and limit.high is not None:
                axis.axhspan(limit.low, limit.high, color=_COLOURS[1], alpha=0.2, linewidth=0)
        name, unit, _ = MEASURE_NAMES[item.measure]
        unit = unit.strip()
        axis.set_xlabel(f"mean of model and {item.reference}{f' ({unit})' if unit else ''}")
        axis.set_ylabel(f"model − {item.reference}{f' ({unit})' if unit else ''}")
        axis.set_title(f"{name}, {item.levels} levels", fontsize=10)
    return figure
