"""Figures of one condition at one strength, from graded studies and their ordinary versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stenosis_trt.bench.accuracy.graded_studies import GradedLevel, GradedStudy
from stenosis_trt.bench.statistics.confusion import accuracy, confusion_by_patient, exact_interval
from stenosis_trt.bench.statistics.estimates import known
from stenosis_trt.bench.statistics.kappa import quadratic_kappa
from stenosis_trt.bench.statistics.signed_errors import error_statistics, share

NUMBER_WARNING = "level_number_uncertain"


@dataclass(frozen=True)
class Figures:
    """Figures of the studies of one condition at one strength. Shares are None where nothing was counted.

    Levels that the images do not show, and levels that must not be graded, count in `operated*` and
    `misnumbered*` alone. A flag is a warning that does not speak of the ratio alone.

    Attributes:
        condition, strength: "ordinary" and 0 for the ordinary studies.
        source: "all", "phantom" or "semisynthetic".
        studies: number of studies. studies_refused: those of them without a result.
        levels: levels that are shown and may be graded. graded: those of them with a grade.
        accuracy, kappa: of the graded levels; kappa has quadratic weights.
        ratio_measured, ratio_mean_absolute_error, ratio_bias: measured − true ratio.
        not_found: share of the levels that were not found in studies with a result.
        refused: share of the levels that were found and not graded, or whose study has no result.
        flagged: share of the graded levels with a flag. ratio_flagged: share of the graded levels with a
            warning that speaks of the ratio.
        wrong_unflagged: share of the graded levels whose grade is wrong and has no flag.
        compared: levels that were graded under the condition and in the ordinary version of the study.
        silent: those of them whose grade has no flag and is another one than in the ordinary version; where
            the condition changes the true grade, those whose grade is not the true one.
        silent_changes: share of `compared`. silent_low, silent_high: its exact 95 % interval, levels taken as
            independent.
        misnumbered_flagged, misnumbered_unflagged: levels found at another disc, with and without the warning
            that numbers are uncertain.
        operated: levels that must not be graded. operated_graded: those with a grade.
        operated_unflagged: those with a grade and without a flag.
        warnings: number of levels with each warning.
    """

    condition: str
    strength: float
    source: str
    studies: int
    studies_refused: int
    levels: int
    graded: int
    accuracy: float | None
    kappa: float | None
    ratio_measured: int
    ratio_mean_absolute_error: float | None
    ratio_bias: float | None
    not_found: float | None
    refused: float | None
    flagged: float | None
    ratio_flagged: float | None
    wrong_unflagged: float | None
    compared: int
    silent: int
    silent_changes: float | None
    silent_low: float | None
    silent_high: float | None
    misnumbered_flagged: int
    misnumbered_unflagged: int
    operated: int
    operated_graded: int
    operated_unflagged: int
    warnings: Mapping[str, int]


def figures_of(
    point: tuple[str, float], source: str, studies: Sequence[GradedStudy], ordinary: Sequence[GradedStudy]
) -> Figures:
    """Compute the figures of one condition at one strength.

    Args:
        point: condition and strength.
        source: "all", "phantom" or "semisynthetic".
        studies: of this source.
        ordinary: their ordinary versions, in the same order.
    """
    pairs = [
        (study, level, plain)
        for study, before in zip(studies, ordinary, strict=True)
        for level, plain in zip(study.levels, before.levels, strict=True)
    ]
    usual = [(study, level) for study, level, _ in pairs if level.shown and level.true_grade is not None]
    graded = [level for _, level in usual if level.grade is not None]
    operated = [level for _, level, _ in pairs if level.true_grade is None and level.grade is not None]
    changes = [is_silent_change(level, plain) for _, level, plain in pairs if is_compared(level, plain)]
    silent_low, silent_high = exact_interval(sum(changes), len(changes)) if changes else (None, None)
    misnumbered = [NUMBER_WARNING in level.warnings for study in studies for level in study.misnumbered()]
    table = confusion_by_patient(("", level.true_grade, level.grade) for level in graded).sum(axis=0)
    ratio = error_statistics(
        [
            level.ratio - level.true_ratio
            for _, level in usual
            if level.ratio is not None and level.true_ratio is not None
        ]
    )
    return Figures(
        condition=point[0],
        strength=point[1],
        source=source,
        studies=len(studies),
        studies_refused=sum(bool(study.refused) for study in studies),
        levels=len(usual),
        graded=len(graded),
        accuracy=known(float(accuracy(table))),
        kappa=known(quadratic_kappa(table)),
        ratio_measured=ratio.measured,
        ratio_mean_absolute_error=ratio.mean_absolute_error,
        ratio_bias=ratio.bias,
        not_found=share(level.point is None and not study.refused for study, level in usual),
        refused=share(_is_refused(study, level) for study, level in usual),
        flagged=share(bool(level.grade_warnings) for level in graded),
        ratio_flagged=share(bool(level.ratio_warnings) for level in graded),
        wrong_unflagged=share(
            level.grade != level.true_grade and not level.grade_warnings for level in graded
        ),
        compared=len(changes),
        silent=sum(changes),
        silent_changes=share(changes),
        silent_low=silent_low,
        silent_high=silent_high,
        misnumbered_flagged=sum(misnumbered),
        misnumbered_unflagged=len(misnumbered) - sum(misnumbered),
        operated=sum(level.true_grade is None for _, level, _ in pairs),
        operated_graded=len(operated),
        operated_unflagged=sum(not level.grade_warnings for level in operated),
        warnings=_counted(level for _, level in usual),
    )


def _is_refused(study: GradedStudy, level: GradedLevel) -> bool:
    return bool(study.refused) or (level.point is not None and level.grade is None)


def _counted(levels: Iterable[GradedLevel]) -> dict[str, int]:
    counts = Counter(name for level in levels for name in level.warnings)
    return dict(counts.most_common())


def is_compared(level: GradedLevel, plain: GradedLevel) -> bool:
    """Return True if a level that may be graded has a grade in both versions of a study."""
    gradable = level.shown and level.true_grade is not None
    return gradable and level.grade is not None and plain.grade is not None


def is_silent_change(level: GradedLevel, plain: GradedLevel) -> bool:
    """Return True if the grade of a level has no flag and is not what the ordinary version lets expect.

    Args:
        level: under a condition, graded in both versions.
        plain: of the ordinary version.
    """
    if level.grade_warnings:
        return False
    expected = plain.grade if level.true_grade == plain.true_grade else level.true_grade
    return level.grade != expected
