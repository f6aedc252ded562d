"""Acquisitions of one series that run through one another: told apart by tags, or found to be none."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from stenosis_trt.engine.dicom.stack_geometry import (
    SAME_PLACE_MM,
    Geometry,
    Group,
    group_by_label,
    station_labels,
    tilt_labels,
)
from stenosis_trt.engine.geometry import FloatArray

_SAME_TILT_DEGREES = 0.2
"""Rounded directions of one stack differ by 0.01°; a stack that is planned again by a degree or more."""
_FEWEST = 3
"""Slices of an acquisition, at least, that runs through another one."""
_SMALL_STEP = 0.6
"""Of the slice thickness: neighbouring slices of one 2-D acquisition lie farther apart."""
_SMALL_STEP_OF_TWO = 0.75
"""The same where tags tell two acquisitions apart. Concatenations of one lie a thickness apart."""
_OVERLAP_UNSTATED = 0.4
"""The same where the header does not say whether it is 2-D: 3-D slices are often made to overlap by half."""
_TOUCHING = 0.95
"""Of the slice thickness: slices that lie nearer overlap."""
_LEAST_STEP_MM = 2.0
"""Where no thickness is stated: 2-D slices of a spine lie farther apart."""
_SMALL_STEPS_SHARE, _SMALL_STEPS_SHARE_AXIAL = 1 / 6, 1 / 3
"""Of all steps. Parallel axial packs may overlap at their ends; of stacks in one another half are small."""
_FEWEST_STEPS = 4
_MOST_CUTS = 16
_UNEVEN = 0.05
"""How much odd and even steps may differ, relative to the median step. Steps of one stack differ by 0.001."""


def separate_interleaved(members: Group) -> list[Group]:
    """Acquisitions that run through one another: by tilt, or by the tag that makes each a stack of its own.

    Of several such tags the one that makes the fewest stacks counts; of equals, the most telling.
    """
    tilted = group_by_label(members, tilt_labels(members, _SAME_TILT_DEGREES))
    if _cross(members, tilted):
        return [part for group in tilted for part in separate_interleaved(group)]
    if not _tangled_steps(members, _SMALL_STEP_OF_TWO):
        return [members]
    columns = [column for column in _telling(members) if len(set(column)) > 1]
    trials = [[column] for column in columns] + [columns[:count] for count in range(2, len(columns) + 1)]
    found = [
        groups
        for groups in (group_by_label(members, zip(*trial, strict=True)) for trial in trials)
        if min(map(len, groups)) >= _FEWEST
        and not any(_tangled_steps(group, _SMALL_STEP_OF_TWO) for group in groups)
    ]
    return min(found, key=len, default=[members])


def _cross(members: Group, groups: Sequence[Group]) -> bool:
    """Whether stacks of different tilt lie in one region; packs that follow the discs lie side by side."""
    if len(groups) < 2 or min(map(len, groups)) < _FEWEST_STEPS + 1:
        return False
    along = dict(zip(map(id, members), Geometry(members).along, strict=True))
    ranges = sorted((min(a), max(a)) for a in ([along[id(member)] for member in group] for group in groups))
    return all(
        min(end, next_end) - next_start > min(end - start, next_end - next_start) / 2
        for (start, end), (next_start, next_end) in pairwise(ranges)
    )


def _telling(members: Group) -> list[Sequence[Hashable]]:
    """What may tell acquisitions apart, the most telling first; a value for each member."""
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
        *_cuts([key.acquisition for key in keys]),
        [key.temporal_position for key in keys],
        [key.stack for key in keys],
        [(pose.rows, pose.columns) for pose in poses],
        [(round(pose.row_spacing, 3), round(pose.column_spacing, 3)) for pose in poses],
        [pose.thickness for pose in poses],
        [file.series_number for file in files],
        [(file.description, file.protocol) for file in files],
        [tag.contrast_agent for tag in tags],
        _halves([key.acquired for key in keys]),
        station_labels(Geometry(members)).tolist(),
    ]


def _cuts(values: Sequence[float | None]) -> Iterator[Sequence[Hashable]]:
    """Numbers up to each of them and those above it, and each number: slice groups may have one each."""
    for last in sorted({value for value in values if value is not None})[:_MOST_CUTS]:
        yield [None if value is None else value > last for value in values]
    yield values


def _halves(times: Sequence[float | None]) -> list[Hashable]:
    """Before and after the longest pause; each slice of an acquisition may have a time of its own."""
    stated = sorted({time for time in times if time is not None})
    if len(stated) < 2:
        return list(times)
    pause = int(np.argmax(np.diff(stated)))
    return [None if time is None else time > stated[pause] for time in times]


def interleaving_defect(members: Group) -> str:
    """Why slices in order of position are not one stack: they run through one another; "" where they are."""
    steps = _tangled_steps(members, _SMALL_STEP)
    if not steps:
        return ""
    low, high = min(steps), max(steps)
    apart = f"{low:.2f} mm" if high - low < 0.01 else f"{low:.2f} to {high:.2f} mm"
    thickness = members[0].pose.thickness
    thick = "" if thickness is None else f" and are {thickness:.1f} mm thick"
    return (
        f"its {len(members)} slices lie {apart} apart{thick}: two acquisitions run through one another, "
        "and no tag tells them apart"
    )


def _tangled_steps(members: Group, limit: float) -> list[float]:
    """Steps between neighbouring places, in mm, where slices run through one another; [] where they do not.

    Slices of different tilt are exempt: packs that follow the discs cross each other. So are gaps: parallel
    packs lie as far apart as discs do. `limit` says how small a step is too small; see the constants.
    """
    geometry = Geometry(members)
    steps = np.diff(np.sort(geometry.along))
    steps = steps[steps > SAME_PLACE_MM]
    if not geometry.parallel or len(steps) < _FEWEST_STEPS:
        return []
    usual, uneven = float(np.percentile(steps, 75)), _is_uneven(steps)
    if not members[0].file.acquisition_3d:
        stated = [member.pose.thickness for member in members if member.pose.thickness is not None]
        told_apart = limit == _SMALL_STEP_OF_TWO
        if not (told_apart or uneven or members[0].file.acquisition_2d):
            limit = _OVERLAP_UNSTATED
        thickness = float(np.median(stated)) if stated else None
        smallest = min(limit * usual, _LEAST_STEP_MM) if thickness is None else limit * thickness
        overlap = float(steps.min()) < _TOUCHING * (_LEAST_STEP_MM if thickness is None else thickness)
        share = _SMALL_STEPS_SHARE_AXIAL if geometry.axial else _SMALL_STEPS_SHARE
        uneven = (uneven and (told_apart or overlap)) or float((steps < smallest).mean()) > share
    return [float(step) for step in steps] if uneven else []


def _is_uneven(steps: FloatArray) -> bool:
    """Whether long and short steps alternate."""
    odd, even = steps[1::2], steps[::2]
    apart = abs(float(np.median(odd) - np.median(even)))
    spread = max(float(np.ptp(odd)), float(np.ptp(even)))
    return apart > _UNEVEN * float(np.median(steps)) and spread < apart / 2
