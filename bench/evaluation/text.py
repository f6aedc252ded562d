"""The figures as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stenosis_trt.bench.evaluation.evaluation import Evaluation
from stenosis_trt.bench.evaluation.grading import RaterFigures
from stenosis_trt.bench.evaluation.measuring import MeasureFigures
from stenosis_trt.bench.evaluation.wording import (
    MEASURE_NAMES,
    count,
    decisions,
    number,
    p_value,
    with_interval,
)
from stenosis_trt.bench.statistics.kappa import WEIGHTINGS


def text_lines(found: Evaluation) -> Iterator[str]:
    """Yield all figures, a section for each question."""
    yield (
        f"{count(found.patients, 'patient')}, {count(found.studies, 'study', 'studies')}, "
        f"{count(found.levels, 'level')} with a true grade"
    )
    yield (
        f"In parentheses: 95 % intervals, percentile bootstrap over patients ({found.rounds} draws, seed "
        f"{found.seed}) unless named otherwise."
    )
    yield from (f"Note: {note}" for note in found.notes)
    for rater in found.raters:
        yield from _rater(rater)
    yield from _area(found)
    yield from _pairs(found)
    yield from _differences(found)
    for measure in found.measures:
        yield from _measure(measure)
    yield from _correlations(found)
    yield from _folds(found)
    sentences = list(decisions(found))
    if sentences:
        yield from ("", "Do they differ? (adjusted p < 0.05; a difference that is not shown is not equality)")
        yield from (f"  {sentence}" for sentence in sentences)


def table_lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as columns of equal width, the first one aligned left and the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  " + "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _rater(rater: RaterFigures) -> Iterator[str]:
    yield from (
        "",
        f"{rater.rater} against the truth: {count(rater.levels, 'level')} of "
        f"{count(rater.patients, 'patient')}; {rater.not_graded} not graded",
    )
    header = ["true grade", *(f"{rater.rater} {grade}" for grade in range(len(rater.confusion)))]
    yield from table_lines(
        [header, *([str(grade), *map(str, row)] for grade, row in enumerate(rater.confusion))]
    )
    yield f"  accuracy {with_interval(rater.accuracy)}"
    if rater.not_graded:
        yield f"  accuracy, not graded counted as wrong {with_interval(rater.accuracy_of_all)}"
    for name in WEIGHTINGS:
        yield f"  Cohen's kappa, {name} {with_interval(rater.kappas[name])}"
    rows = [["grade", "cases", "sensitivity", "specificity"]]
    named = [(str(grade), item) for grade, item in enumerate(rater.classes)]
    named.append(("2 or 3", rater.grade_2_or_3))
    for label, item in named:
        rows.append(
            [label, str(item.cases), with_interval(item.sensitivity), with_interval(item.specificity)]
        )
    yield from table_lines(rows)


def _area(found: Evaluation) -> Iterator[str]:
    area = found.area
    yield from (
        "",
        f"Area under the ROC curve, model's p2 + p3 for a true grade of 2 or 3: "
        f"{with_interval(area.area)}; DeLong {with_interval(area.delong)}; "
        f"{area.positives} positive, {area.negatives} negative",
    )


def _pairs(found: Evaluation) -> Iterator[str]:
    if not found.pairs:
        return
    yield from ("", "Raters with one another")
    rows = [["raters", "levels", "same grade", *(f"kappa, {name}" for name in WEIGHTINGS)]]
    for pair in found.pairs:
        kappas = [with_interval(pair.kappas[name]) for name in WEIGHTINGS]
        rows.append(
            [f"{pair.first} – {pair.second}", str(pair.levels), with_interval(pair.same_grade), *kappas]
        )
    yield from table_lines(rows)


def _differences(found: Evaluation) -> Iterator[str]:
    if not found.differences:
        return
    yield from (
        "",
        "Differences of agreement with the truth (first − second, on levels that all three graded)",
    )
    rows = [["raters", "levels", "accuracy", *(f"kappa, {name}" for name in WEIGHTINGS)]]
    for item in found.differences:
        kappas = [with_interval(item.kappas[name].difference, signed=True) for name in WEIGHTINGS]
        rows.append(
            [
                f"{item.first} − {item.second}",
                str(item.levels),
                with_interval(item.accuracy, signed=True),
                *kappas,
            ]
        )
    yield from table_lines(rows)


def _measure(item: MeasureFigures) -> Iterator[str]:
    name, unit, digits = MEASURE_NAMES[item.measure]
    model = f"{number(item.model_mean, digits)} ± {number(item.model_sd, digits)}{unit}"
    reference = f"{number(item.reference_mean, digits)} ± {number(item.reference_sd, digits)}{unit}"
    bias, low, high = (
        with_interval(figure, digits, signed=True)
        for figure in (item.limits.bias, item.limits.low, item.limits.high)
    )
    yield from (
        "",
        f"{name[0].upper()}{name[1:]}, model against {item.reference}: {count(item.levels, 'level')} of "
        f"{count(item.patients, 'patient')}",
        f"  model {model}, {item.reference} {reference}; mean absolute error "
        f"{number(item.mean_absolute_error, digits)}{unit}",
        f"  ICC(A,1) {with_interval(item.icc)}; McGraw & Wong {with_interval(item.icc_independent)}",
        f"  Bland-Altman: bias {bias}{unit}, limits of agreement {low} and {high}{unit}",
    )
    if item.wilcoxon is not None:
        yield (
            f"  Wilcoxon signed-rank test over patients: V = {number(item.wilcoxon.statistic, 1)}, "
            f"{p_value(item.wilcoxon.p_value)}, Holm {p_value(item.adjusted_p_value)}; median difference "
            f"{number(item.wilcoxon.median_difference, digits, signed=True)}{unit} (Hodges-Lehmann)"
        )


def _correlations(found: Evaluation) -> Iterator[str]:
    if not found.correlations:
        return
    subject = "patient" if found.score_key == "patient_id" else "study"
    yield from (
        "",
        f"Correlation with scores, one value a {subject}: Pearson (Fisher's z), Spearman (Bonett & Wright)",
    )
    rows = [["score, rater, quantity", "n", "Pearson r", "p", "Spearman rho", "p"]]
    rows += [
        [
            f"{item.score}, {item.rater}, {item.quantity}",
            str(item.pearson.subjects),
            with_interval(item.pearson.coefficient),
            p_value(item.pearson.p_value),
            with_interval(item.spearman.coefficient),
            p_value(item.spearman.p_value),
        ]
        for item in found.correlations
    ]
    yield from table_lines(rows)
    yield from (
        "",
        "Tests between dependent correlations (Pearson, first − second, interval of Zou; Holm over all rows)",
    )
    rows = [["score, raters, quantity", "n", "difference", "Williams t", "p", "Holm", "Steiger Z", "p"]]
    for difference in found.correlation_differences:
        label = f"{difference.score}, {difference.first} − {difference.second}, {difference.quantity}"
        result = difference.result
        if result is None:
            rows.append([label, *(["–"] * 7)])
            continue
        rows.append(
            [
                label,
                str(result.subjects),
                with_interval(result.difference, signed=True),
                number(result.williams_t, 2),
                p_value(result.williams_p),
                p_value(difference.adjusted_williams_p),
                number(result.steiger_z, 2),
                p_value(result.steiger_p),
            ]
        )
    yield from table_lines(rows)


def _folds(found: Evaluation) -> Iterator[str]:
    if found.folds is None:
        return
    yield from (
        "",
        "Folds, model against the truth (a cross-validation only if each fold's model was not trained on it)",
    )
    rows = [["fold", "patients", "levels", "accuracy", "kappa, quadratic"]]
    rows += [
        [fold.fold, str(fold.patients), str(fold.levels), number(fold.accuracy), number(fold.quadratic_kappa)]
        for fold in found.folds.folds
    ]
    table = found.folds
    rows.append(
        [
            "mean ± SD",
            "",
            "",
            f"{number(table.mean_accuracy)} ± {number(table.sd_accuracy)}",
            f"{number(table.mean_quadratic_kappa)} ± {number(table.sd_quadratic_kappa)}",
        ]
    )
    yield from table_lines(rows)
