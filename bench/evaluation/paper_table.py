"""The figures in the layout of a publication, beside those that were published.

Published column: Chen et al., Bioengineering 2025;12(6):604, doi 10.3390/bioengineering12060604. What is
not known to be reported there says so; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stenosis_trt.bench.evaluation.evaluation import Evaluation
from stenosis_trt.bench.evaluation.symptoms import HIGHEST_GRADE
from stenosis_trt.bench.evaluation.text import table_lines
from stenosis_trt.bench.evaluation.wording import count, number, p_value, with_interval
from stenosis_trt.bench.statistics.kappa import WEIGHTINGS

NOT_REPORTED = "not reported"
NOT_GIVEN = "not given"
"""For what this evaluation had no input for."""
_WEIGHTING = "weighting not reported"


@dataclass(frozen=True)
class PaperRow:
    """One row: what it is, the published value, and the value of this evaluation."""

    item: str
    published: str
    here: str


def paper_rows(found: Evaluation) -> Iterator[PaperRow]:
    """Yield the rows, in the order of the paper: patients, grades, ratio, symptoms."""
    model = found.raters[0]
    yield PaperRow("Patients", "954", str(found.patients))
    yield PaperRow("Five-fold accuracy of the model", "79.45 %", _five_fold(found))
    yield PaperRow("Accuracy of the model (95 % CI)", NOT_REPORTED, with_interval(model.accuracy))
    for grade, figures in enumerate(model.classes):
        yield PaperRow(
            f"Sensitivity, specificity of grade {grade} (95 % CI)",
            NOT_REPORTED,
            f"{with_interval(figures.sensitivity)}, {with_interval(figures.specificity)}",
        )
    yield from _kappas(found)
    yield from _ratio(found)
    yield from _symptoms(found)


def paper_lines(found: Evaluation) -> Iterator[str]:
    """Yield the rows as text."""
    rows = [["", "Chen et al. 2025", "here"]]
    rows += [[row.item, row.published, row.here] for row in paper_rows(found)]
    yield from (
        "",
        "Beside the published figures (doi 10.3390/bioengineering12060604; other patients, other readers)",
    )
    yield from table_lines(rows)


def _five_fold(found: Evaluation) -> str:
    table = found.folds
    if table is None:
        return NOT_GIVEN
    if table.mean_accuracy is None:
        return f"– ({count(len(table.folds), 'fold')})"
    spread = "" if table.sd_accuracy is None else f" ± {100 * table.sd_accuracy:.2f} %"
    return f"{100 * table.mean_accuracy:.2f} %{spread} ({count(len(table.folds), 'fold')})"


def _kappas(found: Evaluation) -> Iterator[PaperRow]:
    """The model with each reader, and readers with one another; weightings are named."""
    yield PaperRow("Weighting of kappa", NOT_REPORTED, ", ".join(WEIGHTINGS))
    with_model = [pair for pair in found.pairs if pair.first == "model"]
    of_readers = [pair for pair in found.pairs if pair.first != "model"]
    for title, published, pairs in (
        ("Kappa of the model and a clinician", ("0.848", "0.822"), with_model),
        ("Kappa of a resident and a clinician", ("0.732", "0.702"), of_readers),
    ):
        for place in range(max(len(published), len(pairs))):
            value = f"{published[place]}, {_WEIGHTING}" if place < len(published) else NOT_REPORTED
            if place >= len(pairs):
                yield PaperRow(f"{title}, {place + 1}", value, NOT_GIVEN)
                continue
            pair = pairs[place]
            for weighting in WEIGHTINGS:
                here = f"{pair.first} – {pair.second}: {with_interval(pair.kappas[weighting])}"
                yield PaperRow(f"{title}, {place + 1}: {weighting} here", value, here)
                value = ""


def _ratio(found: Evaluation) -> Iterator[PaperRow]:
    ratios = [item for item in found.measures if item.measure == "compression_ratio"]
    if not ratios:
        yield PaperRow("Compression ratio, model and manual", "0.45 ± 0.07, 0.46 ± 0.07", NOT_GIVEN)
        return
    published = ("0.45 ± 0.07, 0.46 ± 0.07", "no significant difference", NOT_REPORTED, NOT_REPORTED)
    for item in ratios:
        test = "–" if item.wilcoxon is None else f"Wilcoxon {p_value(item.wilcoxon.p_value)}"
        here = (
            f"{number(item.model_mean, 2)} ± {number(item.model_sd, 2)}, "
            f"{number(item.reference_mean, 2)} ± {number(item.reference_sd, 2)}",
            test,
            with_interval(item.icc),
            f"{with_interval(item.limits.low, signed=True)}, {with_interval(item.limits.high, signed=True)}",
        )
        titles = (
            f"Compression ratio, model and {item.reference}",
            "  test of the difference",
            "  ICC(A,1) (95 % CI)",
            "  limits of agreement (95 % CI)",
        )
        yield from (PaperRow(*row) for row in zip(titles, published, here, strict=True))
        published = (NOT_REPORTED,) * 4


def _symptoms(found: Evaluation) -> Iterator[PaperRow]:
    published = {"model": "0.526", "truth": NOT_REPORTED}
    of_readers = iter(("0.517 (clinician)", "0.503 (clinician)", "0.457 (resident)", "0.448 (resident)"))
    grades = [item for item in found.correlations if item.quantity == HIGHEST_GRADE]
    if not grades:
        yield PaperRow("Correlation with symptoms, model", "0.526", NOT_GIVEN)
        for value in of_readers:
            yield PaperRow("Correlation with symptoms, reader", value, NOT_GIVEN)
    for item in grades:
        if item.rater not in published:
            published[item.rater] = next(of_readers, NOT_REPORTED)
        yield PaperRow(
            f"r of {item.score} and highest grade, {item.rater} (95 % CI)",
            published[item.rater],
            with_interval(item.pearson.coefficient),
        )
    scales = ", ".join(dict.fromkeys(item.score for item in grades))
    yield PaperRow("Scale of the symptoms", NOT_REPORTED, scales or NOT_GIVEN)
    tests = [item for item in found.correlation_differences if item.quantity == HIGHEST_GRADE and item.result]
    if not tests:
        yield PaperRow("Test between correlations", NOT_REPORTED, NOT_GIVEN)
    for difference in tests:
        assert difference.result is not None
        yield PaperRow(
            f"Test between correlations, {difference.score}, {difference.first} and {difference.second}",
            NOT_REPORTED,
            f"Williams t = {difference.result.williams_t:.2f}, "
            f"{p_value(difference.adjusted_williams_p)} (Holm)",
        )
