"""Agreement of two precisions of a pack on the same studies: grades, probabilities, diameters, positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.statistics.bland_altman import BlandAltman, bland_altman
from stenosis_trt.bench.statistics.confusion import confusion_by_patient
from stenosis_trt.bench.statistics.estimates import known
from stenosis_trt.bench.statistics.kappa import kappa_interval, quadratic_kappa
from stenosis_trt.bench.statistics.signed_errors import share
from stenosis_trt.engine.records import LevelResult, StudyResult


@dataclass(frozen=True)
class StudyPair:
    """Two results of one study; None if it could not be graded."""

    expected: StudyResult | None
    found: StudyResult | None


@dataclass(frozen=True)
class GradingAgreement:
    """Statistics over all levels that either result graded; None where nothing can be compared.

    Attributes:
        studies, patients: numbers compared.
        levels: number of levels graded in either result.
        identical_grades: share of `levels` with the same grade; a level graded in one result alone differs.
        kappa, kappa_low, kappa_high: quadratic kappa with its 95 % bootstrap interval over patients.
        largest_probability_change: of any grade or of `p_ood`, at any level.
        ratios_kept: share of compression ratios measured in both, of those measured in either.
        ratio, ap_mm, transverse_mm: differences (found − expected) of the cord's measures at a level.
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


@dataclass(frozen=True)
class ComparedStudies:
    """What was compared of one collection of studies.

    Attributes:
        source: the collection, in words.
        subjects: persons whose volumes semi-synthetic studies were made from.
        studies, patients, levels: see `GradingAgreement`.
    """

    source: str
    subjects: tuple[str, ...]
    studies: int
    patients: int
    levels: int


_Levels = tuple[LevelResult | None, LevelResult | None]


def grading_agreement(pairs: Sequence[StudyPair]) -> GradingAgreement:
    """Compute all statistics. Studies that were graded in neither result are ignored."""
    used = [pair for pair in pairs if pair.expected is not None or pair.found is not None]
    levels = [both for pair in used for both in level_pairs(pair)]
    graded = [both for both in levels if _is_graded(both)]
    tables = confusion_by_patient(
        (_patient(pair), a.grade if a else None, b.grade if b else None)
        for pair in used
        for a, b in level_pairs(pair)
    )
    low, high = kappa_interval(tables)
    measured = [both for both in levels if any(item is not None and item.cord is not None for item in both)]
    both_cords = [(a.cord, b.cord) for a, b in measured if a and b and a.cord and b.cord]
    shifts = level_shifts(levels)
    return GradingAgreement(
        studies=len(used),
        patients=len(tables),
        levels=len(graded),
        identical_grades=share(a is not None and b is not None and a.grade == b.grade for a, b in graded),
        kappa=known(quadratic_kappa(tables.sum(axis=0))),
        kappa_low=known(low),
        kappa_high=known(high),
        largest_probability_change=_largest_change(levels),
        ratios_kept=share(bool(a and b and a.cord and b.cord) for a, b in measured),
        ratio=bland_altman([b.compression_ratio - a.compression_ratio for a, b in both_cords]),
        ap_mm=bland_altman([b.ap_mm - a.ap_mm for a, b in both_cords]),
        transverse_mm=bland_altman([b.transverse_mm - a.transverse_mm for a, b in both_cords]),
        level_shift_mm_median=float(np.median(shifts)) if shifts else None,
        level_shift_mm_largest=max(shifts) if shifts else None,
    )


def compared_studies(source: str, subjects: tuple[str, ...], pairs: Sequence[StudyPair]) -> ComparedStudies:
    """Count what was compared of a collection."""
    used = [pair for pair in pairs if pair.expected is not None or pair.found is not None]
    graded = [both for pair in used for both in level_pairs(pair) if _is_graded(both)]
    return ComparedStudies(source, subjects, len(used), len({_patient(pair) for pair in used}), len(graded))


def _is_graded(levels: _Levels) -> bool:
    return any(item is not None and item.grade is not None for item in levels)


def _patient(pair: StudyPair) -> str:
    """PatientID of a study; the study UID if it is empty, so that anonymous studies count as patients."""
    study = pair.expected or pair.found
    assert study is not None
    return study.patient_id or study.study_uid


def level_pairs(pair: StudyPair) -> Iterator[_Levels]:
    """Yield the two results of each level; None where a study was not graded."""
    if pair.expected is not None and pair.found is not None:
        yield from zip(pair.expected.levels, pair.found.levels, strict=True)
    elif pair.expected is not None:
        yield from ((level, None) for level in pair.expected.levels)
    elif pair.found is not None:
        yield from ((None, level) for level in pair.found.levels)


def level_shifts(levels: Iterable[_Levels]) -> list[float]:
    """Distances in mm between the points of levels that were found in both results."""
    return [
        math.dist(a.point, b.point)
        for a, b in levels
        if a and b and a.point is not None and b.point is not None
    ]


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
