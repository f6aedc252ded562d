"""Criteria that rank the candidates for a role, the most important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import SeriesHeader
from stenosis_trt.engine.selection.eligibility import (
    count_positions,
    image_height,
    positive_or_none,
    slice_poses,
    slice_step,
)
from stenosis_trt.engine.selection.keywords import (
    description_text,
    header_text,
    names_neck,
    normalise_text,
    other_region,
    says_contrast_agent,
    says_fat_suppressed,
    says_t2,
)

_USEFUL_HEIGHT = 160.0
"""mm from above C2 to below T1; a taller field of view shows no more of the neck."""
_USEFUL_WIDTH = 36.0
"""mm across sagittal slices: both edges of the canal, with a margin for a curved spine."""
_USEFUL_LENGTH = 110.0
"""mm across axial slices: C2/3 to C7/T1."""
_COVERAGE_STEP = 8.0
"""mm, about half a level: coverage is compared in these steps."""
_USUAL_ECHO_TIMES = 80.0, 130.0
_ECHO_TIME_STEP = 10.0
"""ms: range of echo times of cervical T2 TSE, and the step in which deviations from it are compared."""
_NECK_DEPTH_MM = 200.0
"""Usual distance in mm from the upper edge of a whole-spine or cervical image to C7/T1, at most."""
DEPTH_BELOW_HEAD_MM = 400.0
"""The same where the image shows the whole head, at most."""
_MIN_STATION_SHIFT = 60.0
"""mm between upper edges: stations of a spine are farther apart, images of one region are closer."""
_MAX_REPETITION_SHIFT = 20.0
"""Largest distance in mm between the centres of a series and its repetition."""


@dataclass(frozen=True)
class RankingCriterion:
    """One criterion; a higher value is better. `reason_if_worse` is reported for the candidate that loses."""

    reason_if_worse: str
    value: float


def _common_criteria(series: SeriesHeader) -> list[RankingCriterion]:
    text = description_text(series)
    return [
        RankingCriterion("its header names another region", -float(names_other_region(series))),
        RankingCriterion(
            "it is a derived image", -float("DERIVED" in {part.upper() for part in series.image_type})
        ),
        RankingCriterion("it was acquired after contrast agent", -float(after_contrast_agent(series))),
        RankingCriterion("its fat is suppressed", -float(is_fat_suppressed(series))),
        RankingCriterion(
            "it is a 3-D acquisition, unlike what the models learnt from", -float(series.acquisition_3d)
        ),
        RankingCriterion("its description does not say T2", float(says_t2(text))),
        RankingCriterion("its description does not name the neck", float(names_neck(header_text(series)))),
    ]


def is_same_kind(one: SeriesHeader, other: SeriesHeader) -> bool:
    """Return True if two series agree in region, contrast and kind of acquisition."""
    mine, theirs = _common_criteria(one), _common_criteria(other)
    return [criterion.value for criterion in mine] == [criterion.value for criterion in theirs]


def _fine_criteria(
    series: SeriesHeader, covered: float, rivals: Sequence[SeriesHeader]
) -> list[RankingCriterion]:
    pose = slice_poses(series)[0]
    return [
        RankingCriterion("it covers less", round(covered / _COVERAGE_STEP)),
        RankingCriterion("its echo time is farther from the usual", -_echo_time_deviation(series)),
        RankingCriterion("its pixels are larger", -round(max(pose.row_spacing, pose.column_spacing), 1)),
        RankingCriterion("it has fewer slices", float(count_positions(series))),
        RankingCriterion("another lies nearer to the head", -float(_is_below(series, rivals))),
        RankingCriterion(
            "it was acquired again later", -float(any(_was_repeated(other, series) for other in rivals))
        ),
    ]


def _is_below(series: SeriesHeader, rivals: Sequence[SeriesHeader]) -> bool:
    """Return True if a rival lies clearly nearer to the head, as the upper station of a spine does."""
    edge = _upper_edge(series)
    others = (other for other in rivals if same_frame_of_reference(other, series))
    return any(_upper_edge(other) - edge > _MIN_STATION_SHIFT for other in others)


def _upper_edge(series: SeriesHeader) -> float:
    """Return the head-foot coordinate in mm of the upper edge of the middle slice."""
    middle = _middle(series)
    corners = [(x, y) for x in (0, middle.columns - 1) for y in (0, middle.rows - 1)]
    return float(middle.to_patient(corners)[:, 2].max())


def _middle(series: SeriesHeader) -> SlicePose:
    return slice_poses(series)[len(slice_poses(series)) // 2]


def _was_repeated(later: SeriesHeader, series: SeriesHeader) -> bool:
    """Return True if the headers say that `later` was acquired after `series`, of the same region."""
    apart = np.abs(_middle(later).centre - _middle(series).centre).max()
    if same_frame_of_reference(later, series) and apart > _MAX_REPETITION_SHIFT:
        return False
    if later.acquired is not None and series.acquired is not None:
        return later.acquired > series.acquired
    if later.series_number is not None and series.series_number is not None:
        return later.series_number > series.series_number
    return False


def _echo_time_deviation(series: SeriesHeader) -> float:
    """Return the distance in steps of the echo time from the usual range; 0 if it is not informative."""
    echo = positive_or_none(series.contrast.echo_time_ms)
    if echo is None or series.acquisition_3d:
        # The echo time of a 3-D acquisition is nominal.
        return 0.0
    shortest, longest = _USUAL_ECHO_TIMES
    return round(max(shortest - echo, echo - longest, 0.0) / _ECHO_TIME_STEP)


def sagittal_criteria(
    series: SeriesHeader, rivals: Sequence[SeriesHeader], axials: Sequence[SeriesHeader]
) -> list[RankingCriterion]:
    """Return the criteria of a sagittal candidate; one that axial slices can be matched to is preferred."""
    matched = any(
        same_frame_of_reference(series, axial) and count_slices_within(axial, series, DEPTH_BELOW_HEAD_MM)
        for axial in axials
    )
    tall = min(image_height(slice_poses(series)[0]), _USEFUL_HEIGHT)
    wide = min(count_positions(series) * slice_step(series), _USEFUL_WIDTH)
    return [
        *_common_criteria(series),
        RankingCriterion("no axial T2 series can be matched to it", float(matched)),
        *_fine_criteria(series, tall + wide, rivals),
    ]


def axial_criteria(
    series: SeriesHeader, rivals: Sequence[SeriesHeader], sagittal: SeriesHeader | None
) -> list[RankingCriterion]:
    """Return the criteria of an axial candidate; only slices at the neck's depth count as coverage."""
    matched = sagittal is not None and same_frame_of_reference(sagittal, series)
    slices = count_positions(series)
    if matched and sagittal:
        slices = count_slices_within(series, sagittal, neck_depth((series, *rivals), sagittal))
    return [
        RankingCriterion("its frame of reference differs from the sagittal's", float(matched)),
        *_common_criteria(series),
        *_fine_criteria(series, min(slices * slice_step(series), _USEFUL_LENGTH), rivals),
    ]


def tie_breaker(series: SeriesHeader) -> tuple[str, float, str, int]:
    """Return a key that orders otherwise equal candidates; volumes of one series share its UID."""
    first = series.frames[0]
    return series.series_uid, series.contrast.echo_time_ms or 0.0, first.sop_instance_uid, first.index


def neck_depth(axials: Sequence[SeriesHeader], sagittal: SeriesHeader) -> float:
    """Return how deep in mm below the upper edge of the sagittal image the neck reaches.

    That is its usual depth if one of the axial series has slices there, and else that below a whole head.
    """
    usual = any(count_slices_within(item, sagittal, _NECK_DEPTH_MM) for item in axials)
    return _NECK_DEPTH_MM if usual else DEPTH_BELOW_HEAD_MM


def count_slices_within(axial: SeriesHeader, sagittal: SeriesHeader, depth_mm: float) -> int:
    """Return how many axial slices have their centre in the upper `depth_mm` of the middle sagittal image."""
    middle, lowest = _middle(sagittal), _upper_edge(sagittal) - depth_mm
    centres = np.array([pose.centre for pose in slice_poses(axial)]).reshape(-1, 3)
    column, row, _ = middle.to_pixels(centres).T
    shown = (column >= 0) & (column < middle.columns) & (row >= 0) & (row < middle.rows)
    return int(np.count_nonzero(shown & (centres[:, 2] >= lowest)))


def names_other_region(series: SeriesHeader) -> bool:
    """Return True if the description names another region, or BodyPartExamined does and no text the neck."""
    by_tag = other_region(normalise_text(series.body_part)) and not names_neck(header_text(series))
    return bool(by_tag or other_region(description_text(series)))


def is_fat_suppressed(series: SeriesHeader) -> bool:
    """Return True if the header or the description says that fat is suppressed."""
    by_type = {part.upper() for part in series.image_type} & {"WATER", "W"}
    return bool(by_type) or series.contrast.fat_suppressed or says_fat_suppressed(description_text(series))


def after_contrast_agent(series: SeriesHeader) -> bool:
    """Return True if the header or the description says that contrast agent was given."""
    return series.contrast.contrast_agent or says_contrast_agent(description_text(series))


def same_frame_of_reference(one: SeriesHeader, other: SeriesHeader) -> bool:
    """Return True if two series have one frame of reference, so that their positions are comparable."""
    uid = one.frame_of_reference_uid
    return bool(uid) and uid == other.frame_of_reference_uid
