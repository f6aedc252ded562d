"""Interleaved acquisitions of one series: separated by header attributes, or reported as a defect."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from stenosis_trt.engine.dicom.stack_geometry import (
    SAME_PLACE_MM,
    Group,
    geometry_of,
    group_by_label,
    station_labels,
    tilt_labels,
)
from stenosis_trt.engine.geometry import FloatArray

_SAME_TILT_DEGREES = 0.2
"""Rounding changes directions within a stack by 0.01°; a newly planned stack differs by a degree or more."""
_MIN_SLICES = 3
"""Least number of slices of an interleaved acquisition."""
_SMALL_STEP = 0.6
"""Share of the slice thickness; the steps of one 2-D acquisition are larger."""
_SMALL_STEP_SEPARABLE = 0.75
"""The same if attributes separate two acquisitions. Steps of concatenations equal the thickness."""
_OVERLAP_UNSTATED = 0.4
"""The same if the header does not state 2-D or 3-D: 3-D slices often overlap by half."""
_TOUCHING = 0.95
"""Share of the slice thickness; slices with smaller steps overlap."""
_MIN_STEP_MM = 2.0
"""Used if no thickness is stated; the steps of 2-D spine slices are larger."""
_SMALL_STEPS_SHARE, _SMALL_STEPS_SHARE_AXIAL = 1 / 6, 1 / 3
"""Largest share of small steps in one stack. Parallel axial packs may overlap at their ends; if two stacks
are interleaved, half of the steps are small."""
_MIN_STEPS = 4
_MAX_SPLITS = 16
_MAX_UNEVENNESS = 0.05
"""Largest difference of odd and even steps, relative to the median step; it is 0.001 in one stack."""


def separate_interleaved(members: Group) -> list[Group]:
    """Split interleaved acquisitions by tilt, or by the attributes for which each part is one stack.

    If several attributes do so, the one with the fewest parts is used, then the most significant one.
    """
    tilted = group_by_label(members, tilt_labels(members, _SAME_TILT_DEGREES))
    if _cover_one_region(members, tilted):
        return [part for group in tilted for part in separate_interleaved(group)]
    if not _interleaved_steps(members, _SMALL_STEP_SEPARABLE):
        return [members]
    columns = [column for column in _separating_attributes(members) if len(set(column)) > 1]
    trials = [[column] for column in columns] + [columns[:count] for count in range(2, len(columns) + 1)]
    found = [
        groups
        for groups in (group_by_label(members, zip(*trial, strict=True)) for trial in trials)
        if min(map(len, groups)) >= _MIN_SLICES
        and not any(_interleaved_steps(group, _SMALL_STEP_SEPARABLE) for group in groups)
    ]
    return min(found, key=len, default=[members])


def _cover_one_region(members: Group, groups: Sequence[Group]) -> bool:
    """Return True if stacks of different tilt cover one region; disc-parallel packs lie side by side."""
    if len(groups) < 2 or min(map(len, groups)) < _MIN_STEPS + 1:
        return False
    along = dict(zip(map(id, members), geometry_of(members).along, strict=True))
    ranges = sorted((min(a), max(a)) for a in ([along[id(member)] for member in group] for group in groups))
    return all(
        min(end, next_end) - next_start > min(end - start, next_end - next_start) / 2
        for (start, end), (next_start, next_end) in pairwise(ranges)
    )


def _separating_attributes(members: Group) -> list[Sequence[Hashable]]:
    """Return attributes that may separate acquisitions, the most significant first; one value per member."""
    frames, files = [member.frame for member in members], [member.file for member in members]
    tags, keys = [frame.contrast for frame in frames], [frame.volume for frame in frames]
    poses = [member.pose for member in members]
    return [
        tilt_labels(members, _SAME_TILT_DEGREES),
        [tag.echo_time_ms for tag in tags],
        [tag.repetition_time_ms for tag in tags],
        [(tag.scanning_sequence, tag.sequence_variant, tag.sequence_name) for tag in tags],
        [(tag.flip_angle_degrees, tag.echo_train_length) for tag in tags],
        [key.kind for key in keys],
        [(key.b_value, key.inversion_time_ms, key.trigger_time_ms) for key in keys],
        *_threshold_splits([key.acquisition for key in keys]),
        [key.temporal_position for key in keys],
        [key.stack for key in keys],
        [(pose.rows, pose.columns) for pose in poses],
        [(round(pose.row_spacing, 3), round(pose.column_spacing, 3)) for pose in poses],
        [pose.thickness for pose in poses],
        [file.series_number for file in files],
        [(file.description, file.protocol) for file in files],
        [(tag.contrast_agent, tag.fat_suppressed) for tag in tags],
        _split_at_pause([key.acquired for key in keys]),
        station_labels(geometry_of(members)).tolist(),
    ]


def _threshold_splits(values: Sequence[float | None]) -> Iterator[Sequence[Hashable]]:
    """Yield each split of numbers by a threshold, then the numbers: slice groups may have one number each."""
    for last in sorted({value for value in values if value is not None})[:_MAX_SPLITS]:
        yield [None if value is None else value > last for value in values]
    yield values


def _split_at_pause(times: Sequence[float | None]) -> list[Hashable]:
    """Split times at the longest pause; each slice of an acquisition may have its own time."""
    stated = sorted({time for time in times if time is not None})
    if len(stated) < 2:
        return list(times)
    pause = int(np.argmax(np.diff(stated)))
    return [None if time is None else time > stated[pause] for time in times]


def interleaving_defect(members: Group) -> str:
    """Return why slices, in order of position, are two interleaved stacks; "" if they are one."""
    steps = _interleaved_steps(members, _SMALL_STEP)
    if not steps:
        return ""
    low, high = min(steps), max(steps)
    apart = f"{low:.2f} mm" if high - low < 0.01 else f"{low:.2f} to {high:.2f} mm"
    thickness = members[0].pose.thickness
    thick = "" if thickness is None else f" and are {thickness:.1f} mm thick"
    return (
        f"its {len(members)} slices lie {apart} apart{thick}: two acquisitions are interleaved, "
        "and no attribute separates them"
    )


def _interleaved_steps(members: Group, limit: float) -> list[float]:
    """Return the steps in mm between neighbouring positions if slices are interleaved, else [].

    Slices of different tilt are exempt, since packs parallel to the discs cross each other; so are gaps,
    since packs are as far apart as the discs. `limit` is the share of the thickness below which a step is
    small.
    """
    geometry = geometry_of(members)
    steps = np.diff(np.sort(geometry.along))
    steps = steps[steps > SAME_PLACE_MM]
    if not geometry.parallel or len(steps) < _MIN_STEPS:
        return []
    usual, uneven = float(np.percentile(steps, 75)), _is_uneven(steps)
    if not members[0].file.acquisition_3d:
        stated = [member.pose.thickness for member in members if member.pose.thickness is not None]
        separable = limit == _SMALL_STEP_SEPARABLE
        if not (separable or uneven or members[0].file.acquisition_2d):
            limit = _OVERLAP_UNSTATED
        thickness = statistics.median(stated) if stated else None
        smallest = min(limit * usual, _MIN_STEP_MM) if thickness is None else limit * thickness
        overlap = float(steps.min()) < _TOUCHING * (_MIN_STEP_MM if thickness is None else thickness)
        share = _SMALL_STEPS_SHARE_AXIAL if geometry.axial else _SMALL_STEPS_SHARE
        uneven = (uneven and (separable or overlap)) or float((steps < smallest).mean()) > share
    return [float(step) for step in steps] if uneven else []


def _is_uneven(steps: FloatArray) -> bool:
    """Return True if long and short steps alternate."""
    odd, even = steps[1::2], steps[::2]
    apart = abs(_median(odd) - _median(even))
    spread = max(float(np.ptp(odd)), float(np.ptp(even)))
    return apart > _MAX_UNEVENNESS * _median(steps) and spread < apart / 2


def _median(values: FloatArray) -> float:
    """Return the median; of few numbers in a tenth of the time of numpy.median."""
    return float(statistics.median(values.tolist()))
