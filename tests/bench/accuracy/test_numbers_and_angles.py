"""Rates of wrong level numbers, and errors of the ratio by the angle of the slice, on known records."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import made_level, made_record, shifted

from stenosis_trt.bench.accuracy.graded_studies import GradedStudy
from stenosis_trt.bench.accuracy.level_numbers import (
    NUMBER_WARNING,
    number_rates,
    numbered,
    phantom_requests,
    rates_by_group,
    subject_requests,
)
from stenosis_trt.bench.accuracy.slice_angle import evaluate_angles


def _warned(study: GradedStudy) -> GradedStudy:
    levels = tuple(replace(level, warnings=(NUMBER_WARNING,)) for level in study.levels)
    return replace(study, levels=levels)


def _refused(c2_shown: bool) -> GradedStudy:
    study = made_record()
    levels = tuple(replace(level, point=None, grade=None) for level in study.levels)
    return replace(study, levels=levels, refused="C2 is not shown.", c2_shown=c2_shown)


def test_studies_are_counted_as_right_wrong_or_refused_with_their_flags() -> None:
    right, wrong = made_record(), shifted(made_record(), 1.0)
    studies = [right, right, right, _warned(right), wrong, _warned(wrong), _warned(wrong), _refused(False)]
    found = number_rates([numbered("cut", study) for study in [*studies, _refused(True)]])
    assert (found.studies, found.right, found.right_flagged) == (9, 4, 1)
    assert (found.wrong, found.wrong_flagged, found.refused, found.refused_with_c2) == (3, 2, 2, 1)
    assert found.false_alarms == pytest.approx(1 / 4)
    assert found.caught == pytest.approx(2 / 3)
    assert found.caught_or_refused == pytest.approx(4 / 5)


def test_a_study_whose_series_were_not_fit_counts_as_neither_refused_nor_right() -> None:
    unfit = replace(_refused(True), refused_stage="choose")
    found = number_rates([numbered("cut", unfit), numbered("cut", made_record())])
    assert (found.studies, found.unfit, found.refused, found.right) == (2, 1, 0, 1)
    assert found.caught_or_refused is None


def test_rates_of_nothing_are_not_known() -> None:
    found = number_rates([numbered("cut", _refused(False))])
    assert found.false_alarms is found.caught is None
    assert found.caught_or_refused == 1.0


def test_rates_are_given_by_scenario_and_for_phantoms_and_subjects_apart() -> None:
    real = replace(made_record(), source="errsm_11")
    studies = [numbered("tilted", made_record()), numbered("tilted", real), numbered("tall field", real)]
    assert {name: rates.studies for name, rates in rates_by_group(studies).items()} == {
        "phantoms, tilted": 1,
        "subjects, tilted": 1,
        "subjects, tall field": 1,
        "phantoms, all": 1,
        "subjects, all": 2,
        "all": 3,
    }


def test_phantoms_and_subjects_are_imaged_in_the_same_scenarios() -> None:
    phantom = list(phantom_requests(7, 3))
    subject = list(subject_requests(7, "errsm_11", Path("volumes")))
    counts = {"as acquired": 1, "cut at the head": 3, "cut at the foot": 3, "tilted": 2, "tall field": 6}
    assert Counter(name for name, _ in phantom) == Counter(name for name, _ in subject) == Counter(counts)
    keys = [request.key for _, request in phantom] + [request.key for _, request in subject]
    assert len(set(keys)) == len(keys)


def test_errors_are_sorted_by_the_true_angle_and_only_warnings_of_the_ratio_count() -> None:
    study = made_record(
        [
            replace(made_level(0), ratio=0.62, slice_angle_degrees=22.0),
            replace(made_level(1, 0, 0, "oblique_slice"), ratio=0.70, slice_angle_degrees=24.9),
            replace(made_level(2, 0, 0, NUMBER_WARNING), ratio=0.61, slice_angle_degrees=30.0),
            replace(made_level(3), ratio=None, slice_angle_degrees=None),
            replace(made_level(4, None, 0), ratio=0.9, slice_angle_degrees=22.0),
            replace(made_level(5), ratio=0.48, slice_angle_degrees=3.0),
        ]
    )
    found = evaluate_angles([study])
    by_bin = {item.low: item for item in found.bins}
    steep = by_bin[20]
    assert (steep.measured, steep.flagged, steep.large_unflagged) == (2, 1, 1)
    assert steep.bias == steep.mean_absolute_error == pytest.approx(0.16)
    assert (steep.largest, steep.largest_unflagged) == (pytest.approx(0.2), pytest.approx(0.12))
    assert (by_bin[30].measured, by_bin[30].large_unflagged, by_bin[0].measured) == (1, 1, 1)
    assert by_bin[0].bias == pytest.approx(-0.02)
    assert by_bin[25].mean_absolute_error is by_bin[25].largest_unflagged is None
    assert (found.whole.measured, found.up_to_30.measured, found.withheld) == (4, 3, 1)


def test_a_level_at_another_disc_has_no_error_of_the_ratio() -> None:
    assert evaluate_angles([shifted(made_record(), 1.0)]).whole.measured == 0
