"""Numbers as text, and sentences that say whether model and readers differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stenosis_trt.bench.evaluation.evaluation import Evaluation
from stenosis_trt.bench.evaluation.grading import PRIMARY, RaterDifference
from stenosis_trt.bench.evaluation.measuring import MeasureFigures
from stenosis_trt.bench.evaluation.symptoms import ScoreDifference
from stenosis_trt.bench.statistics.estimates import Estimate
from stenosis_trt.bench.statistics.multiple_comparisons import METHOD

SIGNIFICANT_BELOW = 0.05
"""Level of significance, of adjusted p-values."""
NONE = "–"
MEASURE_NAMES = {
    "compression_ratio": ("compression ratio", "", 3),
    "ap_mm": ("AP diameter", " mm", 2),
    "transverse_mm": ("transverse diameter", " mm", 2),
}
"""Name, unit and decimals of each measure."""


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """Return a number with fixed decimals; a dash for None. A negative zero has no sign."""
    if value is None:
        return NONE
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if signed else f"{rounded:.{digits}f}"


def with_interval(figure: Estimate, digits: int = 3, signed: bool = False) -> str:
    """Return a figure as "0.912 (0.880 to 0.941)"."""
    text = number(figure.value, digits, signed)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({number(figure.low, digits, signed)} to {number(figure.high, digits, signed)})"


def p_value(value: float | None) -> str:
    """Return a p-value as "p = 0.012" or "p < 0.001"."""
    if value is None:
        return "p –"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def count(items: int, one: str, many: str = "") -> str:
    """Return "1 level" or "2 levels"."""
    return f"{items} {one if items == 1 else many or one + 's'}"


def decisions(found: Evaluation) -> Iterator[str]:
    """Yield a sentence for each comparison of the model with a reader or the truth: differ, or not shown.

    Correlations that are not shown to differ share one sentence.
    """
    for difference in found.differences:
        if difference.first == "model":
            yield _of_grades(difference)
    for measure in found.measures:
        yield _of_measure(measure)
    yield from _of_correlations(found.correlation_differences)


def _of_grades(item: RaterDifference) -> str:
    found = item.kappas[PRIMARY]
    start = (
        f"Grades, {item.first} and {item.second}: {PRIMARY} kappa with the truth is "
        f"{number(found.first.value)} and {number(found.second.value)} on the same "
        f"{count(item.levels, 'level')}, difference {with_interval(found.difference, signed=True)}"
    )
    if item.adjusted_p_value is None:
        return f"{start}: not tested."
    start += f", {p_value(item.adjusted_p_value)} ({METHOD})"
    if item.adjusted_p_value >= SIGNIFICANT_BELOW:
        return f"{start}: a difference is not shown; the interval says how large it may still be."
    better = item.first if (found.difference.value or 0.0) > 0.0 else item.second
    return f"{start}: they differ, and {better} agrees more with the truth."


def _of_measure(item: MeasureFigures) -> str:
    name, unit, digits = MEASURE_NAMES[item.measure]
    start = (
        f"{name[0].upper()}{name[1:]}, model and {item.reference}: mean difference "
        f"{with_interval(item.limits.bias, digits, signed=True)}{unit} on {count(item.levels, 'level')}"
    )
    if item.adjusted_p_value is None:
        return f"{start}: not tested."
    start += f", {p_value(item.adjusted_p_value)} (Wilcoxon over patients, {METHOD})"
    if item.adjusted_p_value >= SIGNIFICANT_BELOW:
        return f"{start}: a difference is not shown."
    return f"{start}: they differ."


def _of_correlations(items: Sequence[ScoreDifference]) -> Iterator[str]:
    """A sentence for each pair of correlations that differ, and one for all others."""
    tested = not_shown = 0
    for item in items:
        if item.result is None or item.adjusted_williams_p is None:
            continue
        tested += 1
        if item.adjusted_williams_p >= SIGNIFICANT_BELOW:
            not_shown += 1
            continue
        yield (
            f"Correlation of {item.score} with the {item.quantity}, {item.first} and {item.second}: r is "
            f"{number(item.result.first)} and {number(item.result.second)}, difference "
            f"{with_interval(item.result.difference, signed=True)}, {p_value(item.adjusted_williams_p)} "
            f"(Williams, {METHOD}): they differ."
        )
    if not_shown:
        yield (
            f"Correlations with scores: in {not_shown} of {count(tested, 'comparison')} of the model with "
            f"the truth or a reader, a difference is not shown (Williams, {METHOD})."
        )
