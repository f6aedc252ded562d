"""Geometry of the frames of one series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.dicom.header import FileHeader, FoundFrame
from stenosis_trt.engine.geometry import FloatArray, SlicePose

SAME_PLACE_MM = 0.05
"""Images closer than this share a position: a tenth of a pixel, and far above rounding in headers."""
SAME_PLACE_COSINE = 0.9999
_SAME_STATION_MM = 20.0
"""Largest in-plane shift of stacks of one region; stations of a spine are ten times as far apart."""
_PARALLEL_DEGREES = 2.0
_NEXT, _LAST = [1, 2, 0], [2, 0, 1]
"""Axes of the factors of a cross product."""


@dataclass(frozen=True, eq=False)
class StackMember:
    """A frame of a series and the header of its file. Equal only to itself, so that its hash is fast."""

    frame: FoundFrame
    file: FileHeader

    @property
    def pose(self) -> SlicePose:
        """Pose of the frame."""
        if self.frame.header.pose is None:
            raise ValueError("A frame without a pose reached the series; `read_header` rejects those.")
        return self.frame.header.pose


Group = list[StackMember]


class Geometry:
    """Centres `(N, 3)`, normals `(N, 3)` and positions `(N,)` along the mean normal, in mm."""

    # Computed for all poses at once, not by SlicePose: its cached properties would triple the memory of a
    # scan.
    def __init__(self, members: Group) -> None:
        self._members = members
        poses = [member.pose for member in members]
        numbers = np.array([(*p.origin, *p.row_direction, *p.column_direction) for p in poses])
        half = np.array(
            [((p.columns - 1) / 2 * p.column_spacing, (p.rows - 1) / 2 * p.row_spacing) for p in poses]
        )
        rows, columns = numbers[:, 3:6], numbers[:, 6:]
        self.centres: FloatArray = np.asarray(
            numbers[:, :3] + half[:, :1] * rows + half[:, 1:] * columns, dtype=np.float64
        )
        # A fifth of the time of numpy.cross.
        self.normals: FloatArray = np.asarray(
            rows[:, _NEXT] * columns[:, _LAST] - rows[:, _LAST] * columns[:, _NEXT], dtype=np.float64
        )
        turned = np.where(self.normals @ self.normals[0] < 0, -1.0, 1.0)[:, None] * self.normals
        mean = turned.mean(axis=0)
        # Points to the patient's left, back or head.
        mean = mean * np.sign(mean[int(np.argmax(np.abs(mean)))])
        self.along: FloatArray = np.asarray(self.centres @ mean)
        length = float(np.linalg.norm(mean))
        cosines = np.abs(self.normals @ mean) / length if length else np.zeros(len(members))
        self.parallel = bool(cosines.min() >= np.cos(np.deg2rad(_PARALLEL_DEGREES)))
        self.axial = int(np.argmax(np.abs(mean))) == 2

    def ordered(self) -> Group:
        """Return the members in order of position."""
        return [self._members[index] for index in np.argsort(self.along, kind="stable").tolist()]

    def position_labels(self) -> list[int]:
        """Return a label for each frame; frames at one position share a label."""
        along, centres, normals = self.along, self.centres, self.normals
        labels = [0] * len(along)
        # One frame of each position within SAME_PLACE_MM along the normal.
        nearby: list[int] = []
        for index in np.argsort(along, kind="stable").tolist():
            nearby = [other for other in nearby if along[index] - along[other] <= SAME_PLACE_MM]
            for other in nearby:
                near = np.abs(centres[index] - centres[other]).max() <= SAME_PLACE_MM
                if near and abs(normals[index] @ normals[other]) >= SAME_PLACE_COSINE:
                    labels[index] = labels[other]
                    break
            else:
                labels[index] = index
                nearby.append(index)
        return labels


def geometry_of(members: Group) -> Geometry:
    """Return the geometry of a group; that of the last few groups is kept."""
    return _kept_geometry(tuple(members))


@lru_cache(4)
def _kept_geometry(members: tuple[StackMember, ...]) -> Geometry:
    return Geometry(list(members))


def group_by_label(members: Group, labels: Iterable[Hashable]) -> list[Group]:
    """Group members by their labels, in the order of first occurrence."""
    groups: dict[Hashable, Group] = defaultdict(list)
    for member, label in zip(members, labels, strict=True):
        groups[label].append(member)
    return list(groups.values())


def tilt_labels(members: Group, degrees: float) -> list[int]:
    """Return a label for each member's normal; normals connected by steps below `degrees` share a label."""
    first = members[0].pose.row_direction, members[0].pose.column_direction
    if all((member.pose.row_direction, member.pose.column_direction) == first for member in members):
        return [0] * len(members)
    rounded, inverse = np.unique(np.round(geometry_of(members).normals, 4), axis=0, return_inverse=True)
    every = rounded / np.linalg.norm(rounded, axis=1, keepdims=True)
    numbers = np.full(len(every), -1)
    limit = np.cos(np.deg2rad(degrees))
    for number in range(len(every)):
        if numbers[number] >= 0:
            continue
        numbers[number] = number
        waiting = [number]
        while waiting:
            near = (np.abs(every @ every[waiting.pop()]) >= limit) & (numbers < 0)
            numbers[near] = number
            waiting.extend(np.flatnonzero(near).tolist())
    return [int(numbers[k]) for k in inverse.reshape(-1)]


def station_labels(geometry: Geometry) -> npt.NDArray[np.int64]:
    """Return a label for each in-plane position, `(N,)`: centres far apart have different labels."""
    normal = geometry.normals[0]
    within = geometry.centres - np.outer(geometry.centres @ normal, normal)
    stations = np.full(len(within), -1)
    for number in range(len(within)):
        left = np.flatnonzero(stations < 0)
        if not len(left):
            break
        near = np.abs(within - within[left[0]]).max(axis=1) <= _SAME_STATION_MM
        stations[near & (stations < 0)] = number
    return stations
