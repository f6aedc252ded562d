"""One series to stacks of slices: what differs is told apart first, then what lies in one place.

In turn: the plane, what no stack has two of (echo, repetition and inversion time, pulse sequence, image type,
number and description of the series), stations, acquisitions that run through one another, and images in one
place. What runs through another stack and differs from it in no tag has a `defect`.
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
    Geometry,
    Group,
    StackMember,
    group_by_label,
    station_labels,
    tilt_labels,
)

_SAME_PLANE_DEGREES = 30.0
"""Slices of one series are tilted against their neighbours by less: packs follow discs in steps up to 20°."""
_STACK = 5
"""Slices: fewer are a reference image or a pack, not a series that got among another."""
_ECHO_TIME_RATIO, _REPETITION_TIME_RATIO, _INVERSION_TIME_RATIO = 1.05, 1.2, 1.1
"""Times that differ by less are one: rounding, and a repetition time that follows breath or pulse."""
_TIME_ROUNDING_MS = 1.0


@dataclass(frozen=True)
class Volume:
    """One stack of slices in order of position; `defect` says why it is none, "" where it is one."""

    members: tuple[StackMember, ...]
    defect: str = ""


def split_volumes(members: Sequence[StackMember]) -> list[Volume]:
    """The volumes of one series in one frame of reference. Each member is in exactly one of them."""
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
        for volume in _same_places(group):
            ordered = Geometry(volume).ordered()
            found.append(Volume(tuple(ordered), interleaving_defect(ordered)))
    return found


# Planes


def _planes(members: Group) -> list[Group]:
    """Series of several planes; a single one where the others are references or all are a localizer's."""
    groups = group_by_label(members, tilt_labels(members, _SAME_PLANE_DEGREES))
    stacks = [group for group in groups if len(group) >= _STACK]
    if len(stacks) < 2:
        return [members]
    localizer = len(stacks) > 2 and len({_protocol(member) for member in members}) == 1
    return [members] if localizer else groups


def _protocol(member: StackMember) -> Hashable:
    """What the planes of a localizer have in common."""
    pose, tags, file = member.pose, member.frame.contrast, member.file
    size = pose.rows, pose.columns, pose.row_spacing, pose.column_spacing, pose.thickness
    return size, tags, member.frame.volume.kind, file.series_number, file.description


# Contrasts


def _contrasts(members: Group) -> list[Group]:
    """Series of several contrasts: by times and pulse sequence always; by what the images and the series are
    called where each is a stack of its own, since one image of a series may be called otherwise."""
    tags = [member.frame.contrast for member in members]
    labels = zip(
        _time_labels([tag.echo_time_ms for tag in tags], _ECHO_TIME_RATIO),
        _time_labels([tag.repetition_time_ms for tag in tags], _REPETITION_TIME_RATIO),
        # Without an inversion pulse some headers say 0 and some nothing.
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
        groups = [part for group in groups for part in _if_stacks(group, name)]
    return groups


def _if_stacks(members: Group, name: Callable[[StackMember], Hashable]) -> list[Group]:
    groups = group_by_label(members, map(name, members))
    return groups if min(map(len, groups)) >= _STACK else [members]


def _time_labels(values: Sequence[float | None], ratio: float) -> list[int | None]:
    """Number times; those that a chain of steps below `ratio` joins have one number. An image without a time
    is one of the others where these have a single one."""
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
    """Stations of a series: stacks in the same planes that lie beside one another.

    A spine that is longer than one image is taken in several. Slices whose planes differ are one station,
    however they are shifted: packs that follow the discs are.
    """
    geometry = Geometry(members)
    along = geometry.along
    if np.abs(geometry.normals @ geometry.normals[0]).min() < SAME_PLACE_COSINE:
        return [members]
    stations = station_labels(geometry)
    order = np.argsort(along, kind="stable")
    beside = (np.diff(along[order]) <= SAME_PLACE_MM) & (np.diff(stations[order]) != 0)
    return group_by_label(members, stations.tolist()) if beside.any() else [members]


# Images in one place


def _same_places(members: Group) -> list[Group]:
    """One list if no two frames share a place; else one for each of the volumes that share places.

    They are told apart by the first values of their keys that do it: values by which no volume has two
    frames in one place, and one volume has every place. A second reading of a few slices is not told apart by
    acquisition numbers that also count groups of slices. What no value tells apart, the order of files
    does.
    """
    place = dict(zip(map(id, members), Geometry(members).place_labels(), strict=True))
    count = len(set(place.values()))
    if count == len(members):
        return [members]
    columns = _varying(members, place)
    for used in range(1, len(columns) + 1):
        volumes = group_by_label(
            members, [tuple(m.frame.volume[column] for column in columns[:used]) for m in members]
        )
        sizes = [len({place[id(member)] for member in volume}) for volume in volumes]
        if max(sizes) == count and all(
            size == len(volume) for size, volume in zip(sizes, volumes, strict=True)
        ):
            return volumes
    met: Counter[int] = Counter()
    found: dict[int, Group] = defaultdict(list)
    for member in sorted(members, key=lambda m: [_sortable(m.frame.volume[column]) for column in columns]):
        found[met[place[id(member)]]].append(member)
        met[place[id(member)]] += 1
    return list(found.values())


def _sortable(value: Hashable) -> tuple[bool, Any]:
    """A value of a key, which may be None."""
    return value is not None, value


def _varying(members: Group, place: dict[int, int]) -> list[int]:
    """Positions in the key whose values differ within a place."""
    at_place: dict[int, Group] = defaultdict(list)
    for member in members:
        at_place[place[id(member)]].append(member)
    width = len(members[0].frame.volume)
    return [
        column
        for column in range(width)
        if any(len({member.frame.volume[column] for member in group}) > 1 for group in at_place.values())
    ]
