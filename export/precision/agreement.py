"""How far two ways of grading the same studies agree: grades, probabilities, ratios, diameters, positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.accuracy.compare import GRADE_COUNT, kappa_interval, quadratic_kappa
from stenosis_trt.engine.records import LevelResult, StudyResult

_AGREEMENT = 1.96


@dataclass(frozen=True)
class StudyPair:
    """One study graded twice; None where it was refused."""

    expected: StudyResult | None
    found: StudyResult | None


@dataclass(frozen=True)
class BlandAltman:
    """Found − expected: mean, and 95 % limits of agreement (mean ± 1.96 standard deviations; Bland & Altman,
    Lancet 1986;327:307). None where fewer than two could be compared."""

    count: int
    bias: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class GradingAgreement:
    """Figures over all levels that either graded; None where nothing could be compared.

    Attributes:
        studies, patients: that were compared.
        levels: graded by either.
        identical_grades: share of `levels` with one grade; graded by one alone counts as different.
        kappa, kappa_low, kappa_high: quadratic, with its 95 % bootstrap interval over patients.
        largest_probability_change: of any grade, or of none of them (`p_ood`), at any level.
        ratios_kept: share of compression ratios measured by both, of those measured by either.
        ratio, ap_mm, transverse_mm: changes of the cord's measures at a level.
        level_shift_mm_median, level_shift_mm_largest: distance between the levels' points.
    """

    studies: int
    patients: int
    levels: int
    identical_grades: float | None
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    largest_probability_change: float | None
    ratios_kept: float | None
    ratio: BlandAltman
    ap_mm: BlandAltman
    transverse_mm: BlandAltman
    level_shift_mm_median: float | None
    level_shift_mm_largest: float | None


_Levels = tuple[LevelResult | None, LevelResult | None]


def grading_agreement(pairs: Sequence[StudyPair]) -> GradingAgreement:
    """All figures of `GradingAgreement`. Studies that neither graded are left out."""
    used = [pair for pair in pairs if pair.expected is not None or pair.found is not None]
    levels = [both for pair in used for both in level_pairs(pair)]
    graded = [both for both in levels if any(item is not None and item.grade is not None for item in both)]
    tables = _tables(used)
    kappa = quadratic_kappa(tables.sum(axis=0)) if len(tables) else math.nan
    low, high = kappa_interval(tables) if len(tables) else (math.nan, math.nan)
    measured = [both for both in levels if any(item is not None and item.cord is not None for item in both)]
    both_cords = [(a.cord, b.cord) for a, b in measured if a and b and a.cord and b.cord]
    shifts = level_shifts(levels)
    return GradingAgreement(
        studies=len(used),
        patients=len(tables),
        levels=len(graded),
        identical_grades=_share([a is not None and b is not None and a.grade == b.grade for a, b in graded]),
        kappa=_known(kappa),
        kappa_low=_known(low),
        kappa_high=_known(high),
        largest_probability_change=_largest_change(levels),
        ratios_kept=_share([bool(a and b and a.cord and b.cord) for a, b in measured]),
        ratio=bland_altman(b.compression_ratio - a.compression_ratio for a, b in both_cords),
        ap_mm=bland_altman(b.ap_mm - a.ap_mm for a, b in both_cords),
        transverse_mm=bland_altman(b.transverse_mm - a.transverse_mm for a, b in both_cords),
        level_shift_mm_median=float(np.median(shifts)) if shifts else None,
        level_shift_mm_largest=max(shifts) if shifts else None,
    )


def level_pairs(pair: StudyPair) -> Iterator[_Levels]:
    """Each level of a study as both found it; None where one refused the study."""
    if pair.expected is not None and pair.found is not None:
        yield from zip(pair.expected.levels, pair.found.levels, strict=True)
    elif pair.expected is not None:
        yield from ((level, None) for level in pair.expected.levels)
    elif pair.found is not None:
        yield from ((None, level) for level in pair.found.levels)


def level_shifts(levels: Iterable[_Levels]) -> list[float]:
    """Distances in mm between the points of the levels that both found."""
    return [
        math.dist(a.point, b.point)
        for a, b in levels
        if a and b and a.point is not None and b.point is not None
    ]


def bland_altman(differences: Iterable[float]) -> BlandAltman:
    """Mean and limits of agreement of signed differences."""
    values = np.fromiter(differences, dtype=np.float64)
    if len(values) < 2:
        return BlandAltman(len(values), None, None, None)
    bias, spread = float(values.mean()), _AGREEMENT * float(values.std(ddof=1))
    return BlandAltman(len(values), bias, bias - spread, bias + spread)


def _tables(pairs: Sequence[StudyPair]) -> npt.NDArray[np.int64]:
    """Counts of (expected, found) of each patient. Studies without a PatientID are patients of their own."""
    tables: dict[str, npt.NDArray[np.int64]] = {}
    for pair in pairs:
        study = pair.expected or pair.found
        if study is None:
            continue
        table = tables.setdefault(
            study.patient_id or study.study_uid, np.zeros((GRADE_COUNT, GRADE_COUNT), np.int64)
        )
        for a, b in level_pairs(pair):
            if a is not None and b is not None and a.grade is not None and b.grade is not None:
                table[a.grade, b.grade] += 1
    return np.stack(list(tables.values())) if tables else np.zeros((0, GRADE_COUNT, GRADE_COUNT), np.int64)


def _largest_change(levels: Sequence[_Levels]) -> float | None:
    changes = []
    for a, b in levels:
        if a is None or b is None:
            continue
        if a.probabilities is not None and b.probabilities is not None:
            changes += [abs(p - q) for p, q in zip(a.probabilities, b.probabilities, strict=True)]
        if a.p_ood is not None and b.p_ood is not None:
            changes.append(abs(a.p_ood - b.p_ood))
    return max(changes) if changes else None


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
