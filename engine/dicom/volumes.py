"""Splitting of one series into volumes: stacks of slices of one plane, contrast, station and acquisition.

The splits, in this order: plane; contrast (echo, repetition and inversion time, pulse sequence, image type,
series number and description); station; interleaved acquisitions; images at one position. Interleaved stacks
that no attribute separates are a volume with a `defect`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stenosis_trt.engine.dicom.interleaving import interleaving_defect, separate_interleaved
from stenosis_trt.engine.dicom.stack_geometry import (
    SAME_PLACE_COSINE,
    SAME_PLACE_MM,
    Group,
    StackMember,
    geometry_of,
    group_by_label,
    station_labels,
    tilt_labels,
)

_SAME_PLANE_DEGREES = 30.0
"""Tilt between neighbours from which slices are in another plane; disc-parallel packs differ by up to 20°."""
_MIN_STACK_SLICES = 5
"""Least number of slices of a stack; fewer are a reference image or a pack."""
_ECHO_TIME_RATIO, _REPETITION_TIME_RATIO, _INVERSION_TIME_RATIO = 1.05, 1.2, 1.1
"""Ratios below which times are equal: rounding, and repetition times triggered by respiration or pulse."""
_TIME_ROUNDING_MS = 1.0


@dataclass(frozen=True)
class Volume:
    """Slices in order of position; `defect` says why they are not one stack, "" if they are."""

    members: tuple[StackMember, ...]
    defect: str = ""


def split_volumes(members: Sequence[StackMember]) -> list[Volume]:
    """Split one series with one frame of reference into volumes. Each member is in exactly one of them."""
    return [
        volume
        for plane in _planes(list(members))
        for group in _contrasts(plane)
        for station in _stations(group)
        for volume in _stacks(station)
    ]


def _stacks(members: Group) -> list[Volume]:
    found = []
    for group in separate_interleaved(members):
        for volume in _same_positions(group):
            ordered = geometry_of(volume).ordered()
            found.append(Volume(tuple(ordered), interleaving_defect(ordered)))
    return found


# Planes


def _planes(members: Group) -> list[Group]:
    """Split by plane, unless the other planes are reference images or the series is a localizer."""
    groups = group_by_label(members, tilt_labels(members, _SAME_PLANE_DEGREES))
    stacks = [group for group in groups if len(group) >= _MIN_STACK_SLICES]
    if len(stacks) < 2:
        return [members]
    localizer = len(stacks) > 2 and len({_protocol(member) for member in members}) == 1
    return [members] if localizer else groups


def _protocol(member: StackMember) -> Hashable:
    """Return the attributes that the planes of a localizer share."""
    pose, tags, file = member.pose, member.frame.contrast, member.file
    size = pose.rows, pose.columns, pose.row_spacing, pose.column_spacing, pose.thickness
    return size, tags, member.frame.volume.kind, file.series_number, file.description


# Contrasts


def _contrasts(members: Group) -> list[Group]:
    """Split by times and pulse sequence; and by image type, series number and description if each part is a
    stack, since a single image of a series may be labelled differently."""
    tags = [member.frame.contrast for member in members]
    labels = zip(
        _time_labels([tag.echo_time_ms for tag in tags], _ECHO_TIME_RATIO),
        _time_labels([tag.repetition_time_ms for tag in tags], _REPETITION_TIME_RATIO),
        # Without inversion pulse the time is 0 or absent.
        _time_labels([tag.inversion_time_ms or 0.0 for tag in tags], _INVERSION_TIME_RATIO),
        [tag.scanning_sequence for tag in tags],
        strict=True,
    )
    groups = group_by_label(members, labels)
    names: tuple[Callable[[StackMember], Hashable], ...] = (
        lambda member: member.frame.volume.kind,
        lambda member: member.file.series_number,
        lambda member: member.file.description,
    )
    for name in names:
        groups = [part for group in groups for part in _split_if_stacks(group, name)]
    return groups


def _split_if_stacks(members: Group, name: Callable[[StackMember], Hashable]) -> list[Group]:
    groups = group_by_label(members, map(name, members))
    return groups if min(map(len, groups)) >= _MIN_STACK_SLICES else [members]


def _time_labels(values: Sequence[float | None], ratio: float) -> list[int | None]:
    """Return a label for each time; times connected by steps below `ratio` share a label. An absent time gets
    the label of the others if these have only one."""
    numbers: dict[float, int] = {}
    number, before = 0, None
    for value in sorted({value for value in values if value is not None}):
        if before is not None and value > before * ratio and value - before > _TIME_ROUNDING_MS:
            number += 1
        numbers[value] = number
        before = value
    rest = 0 if number == 0 else None
    return [rest if value is None else numbers[value] for value in values]


# Stations


def _stations(members: Group) -> list[Group]:
    """Split by station: stacks in the same planes, side by side, of a spine longer than one image.

    Slices whose planes differ, as packs parallel to the discs do, are one station.
    """
    geometry = geometry_of(members)
    along = geometry.along
    if np.abs(geometry.normals @ geometry.normals[0]).min() < SAME_PLACE_COSINE:
        return [members]
    stations = station_labels(geometry)
    order = np.argsort(along, kind="stable")
    beside = (np.diff(along[order]) <= SAME_PLACE_MM) & (np.diff(stations[order]) != 0)
    return group_by_label(members, stations.tolist()) if beside.any() else [members]


# Images at one position


def _same_positions(members: Group) -> list[Group]:
    """Split volumes that share positions, so that no two frames of a group have the same position.

    They are separated by the leading values of their volume keys with which no group has two frames at one
    position and one group has all positions. The second condition excludes acquisition numbers that count
    groups of slices when a few slices were acquired twice. If no values suffice, the file order decides.
    """
    labels = dict(zip(map(id, members), geometry_of(members).position_labels(), strict=True))
    count = len(set(labels.values()))
    if count == len(members):
        return [members]
    columns = _varying_columns(members, labels)
    for used in range(1, len(columns) + 1):
        volumes = group_by_label(
            members, [tuple(m.frame.volume[column] for column in columns[:used]) for m in members]
        )
        sizes = [len({labels[id(member)] for member in volume}) for volume in volumes]
        if max(sizes) == count and all(
            size == len(volume) for size, volume in zip(sizes, volumes, strict=True)
        ):
            return volumes
    met: Counter[int] = Counter()
    found: dict[int, Group] = defaultdict(list)
    for member in sorted(members, key=lambda m: [_sortable(m.frame.volume[column]) for column in columns]):
        found[met[labels[id(member)]]].append(member)
        met[labels[id(member)]] += 1
    return list(found.values())


def _sortable(value: Hashable) -> tuple[bool, Any]:
    """Return a sort key for a value that may be None."""
    return value is not None, value


def _varying_columns(members: Group, labels: dict[int, int]) -> list[int]:
    """Return the columns of the volume key whose values differ at one position."""
    at_position: dict[int, Group] = defaultdict(list)
    for member in members:
        at_position[labels[id(member)]].append(member)
    width = len(members[0].frame.volume)
    return [
        column
        for column in range(width)
        if any(len({member.frame.volume[column] for member in group}) > 1 for group in at_position.values())
    ]
