"""Files joined to series and studies: volumes told apart, slices ordered by position."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.dicom.duplicates import SameImage, copies_problems, same_content
from stenosis_trt.engine.dicom.header import FileHeader, FoundFrame
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import Problem, SeriesHeader, Stage, StudyHeader

_SAME_PLACE_MM = 0.05
"""Images closer than this lie in one place: a tenth of a pixel, and far above rounding in headers."""
_SAME_PLACE_COSINE = 0.9999
_SAME_STATION_MM = 20.0
"""Stacks of one place are shifted less, if at all; stations of a spine lie ten times as far apart."""


def build_studies(
    headers: Iterable[FileHeader], same_image: SameImage
) -> tuple[tuple[StudyHeader, ...], tuple[Problem, ...]]:
    """Group files by study and series.

    Frames of a series are ordered by position along their mean normal, never by instance number. Several
    images in one place (echoes, dynamics, phases) make several volumes: a SeriesHeader each, with the
    same UID. Slices of different tilt without such doubles stay one series.

    Args:
        headers: of all files.
        same_image: whether two files that differ hold the same image.

    Returns:
        Studies in order of UID, and a Problem for each file whose SOP Instance UID another one of its study
        has with different content; the first of them is kept. Equal copies are dropped silently, and copies
        of the same image in which other elements differ have one harmless Problem a study.
    """
    kept, problems = _without_duplicates(headers, same_image)
    files: dict[tuple[str, str, str], list[FileHeader]] = defaultdict(list)
    for header in kept:
        files[header.study_uid, header.series_uid, header.frame_of_reference_uid].append(header)
    studies: dict[str, list[SeriesHeader]] = defaultdict(list)
    for (study_uid, _, _), members in sorted(files.items(), key=lambda item: item[0]):
        studies[study_uid].extend(_series(members))
    return (
        tuple(StudyHeader(uid, _common_folder(found), tuple(found)) for uid, found in studies.items()),
        problems,
    )


def _without_duplicates(
    headers: Iterable[FileHeader], same_image: SameImage
) -> tuple[list[FileHeader], tuple[Problem, ...]]:
    first: dict[tuple[str, str], FileHeader] = {}
    problems, copies = [], []
    for header in headers:
        # A copy of a study under another UID is a study of its own.
        earlier = first.setdefault((header.study_uid, header.sop_instance_uid), header)
        if earlier is header or same_content(earlier.path, header.path):
            continue
        if same_image(earlier, header):
            copies.append(header)
            continue
        problems.append(
            Problem(
                str(header.path),
                Stage.HEADER,
                "Another file has the same SOP Instance UID but different content; the first one is used.",
                "Find out which of the two is right and remove the other.",
                header.study_uid,
            )
        )
    return list(first.values()), (*problems, *copies_problems(copies))


@dataclass(frozen=True)
class _Member:
    """One frame of a series. Frames with the same `place` show the same plane; `along` orders places."""

    frame: FoundFrame
    file: FileHeader
    along: float
    place: int


def _series(files: Sequence[FileHeader]) -> list[SeriesHeader]:
    """The volumes of one series."""
    pairs = [(frame, file) for file in files for frame in file.frames]
    poses = [_pose(frame) for frame, _ in pairs]
    centres, normals = _centres(poses), _normals(poses)
    along = centres @ _direction(normals)
    places = _places(along, centres, normals)
    members = [_Member(*pair, float(a), p) for pair, a, p in zip(pairs, along, places, strict=True)]
    stations: dict[int, list[_Member]] = defaultdict(list)
    for member, station in zip(members, _stations(along, centres, normals).tolist(), strict=True):
        stations[station].append(member)
    volumes = [volume for station in stations.values() for volume in _split(station)]
    return [_volume(sorted(volume, key=lambda member: member.along)) for volume in volumes]


def _volume(members: Sequence[_Member]) -> SeriesHeader:
    """One volume of members in order. What it says of itself is what its first frame says."""
    first = members[0]
    file = first.file
    times = [member.frame.volume.acquired for member in members]
    return SeriesHeader(
        study_uid=file.study_uid,
        series_uid=file.series_uid,
        modality=file.modality,
        frames=tuple(member.frame.header for member in members),
        frame_of_reference_uid=file.frame_of_reference_uid,
        sop_class_uid=file.sop_class_uid,
        description=file.description,
        protocol=file.protocol,
        body_part=file.body_part,
        image_type=first.frame.volume.kind,
        acquisition_3d=file.acquisition_3d,
        contrast=first.frame.contrast,
        manufacturer=file.manufacturer,
        patient_id=file.patient_id,
        series_number=file.series_number,
        lossy=any(member.file.lossy for member in members),
        acquired=max((time for time in times if time is not None), default=None),
    )


def _pose(frame: FoundFrame) -> SlicePose:
    if frame.header.pose is None:
        raise ValueError("A frame without a pose reached the series; the header stage refuses those.")
    return frame.header.pose


# The two below repeat what SlicePose offers, for many poses at once: its properties keep what they
# computed, which would triple the memory that a scan of many files takes.
def _centres(poses: Sequence[SlicePose]) -> npt.NDArray[np.float64]:
    half = np.array(
        [((p.columns - 1) / 2 * p.column_spacing, (p.rows - 1) / 2 * p.row_spacing) for p in poses]
    )
    rows, columns = _directions(poses)
    return np.asarray(np.array([p.origin for p in poses]) + half[:, :1] * rows + half[:, 1:] * columns)


def _normals(poses: Sequence[SlicePose]) -> npt.NDArray[np.float64]:
    return np.asarray(np.cross(*_directions(poses)), dtype=np.float64)


def _directions(poses: Sequence[SlicePose]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.array([p.row_direction for p in poses]), np.array([p.column_direction for p in poses])


def _direction(normals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean normal, turned to point to the patient's left, back or head."""
    turned = np.where(normals @ normals[0] < 0, -1.0, 1.0)[:, None] * normals
    mean = turned.mean(axis=0)
    return np.asarray(mean * np.sign(mean[int(np.argmax(np.abs(mean)))]))


def _places(
    along: npt.NDArray[np.float64], centres: npt.NDArray[np.float64], normals: npt.NDArray[np.float64]
) -> list[int]:
    """Number the planes; frames in one plane have one number."""
    places = [0] * len(along)
    # One frame of each place that is not yet too far behind along the direction.
    open_places: list[int] = []
    for index in np.argsort(along, kind="stable").tolist():
        open_places = [other for other in open_places if along[index] - along[other] <= _SAME_PLACE_MM]
        for other in open_places:
            near = np.abs(centres[index] - centres[other]).max() <= _SAME_PLACE_MM
            if near and abs(normals[index] @ normals[other]) >= _SAME_PLACE_COSINE:
                places[index] = places[other]
                break
        else:
            places[index] = index
            open_places.append(index)
    return places


def _stations(
    along: npt.NDArray[np.float64], centres: npt.NDArray[np.float64], normals: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Number the stations of a series: stacks in the same planes that lie beside one another.

    A spine that is longer than one image is taken in several. Slices whose planes differ are one station,
    however they are shifted: packs that follow the discs are.
    """
    one, stations = np.zeros(len(along), np.int64), np.full(len(along), -1)
    normal = normals[0]
    if np.abs(normals @ normal).min() < _SAME_PLACE_COSINE:
        return one
    within = centres - np.outer(centres @ normal, normal)
    for number in range(len(along)):
        left = np.flatnonzero(stations < 0)
        if not len(left):
            break
        near = np.abs(within - within[left[0]]).max(axis=1) <= _SAME_STATION_MM
        stations[near & (stations < 0)] = number
    order = np.argsort(along, kind="stable")
    beside = (np.diff(along[order]) <= _SAME_PLACE_MM) & (np.diff(stations[order]) != 0)
    return stations if beside.any() else one


def _split(members: list[_Member]) -> list[list[_Member]]:
    """One list if no two frames share a place; else one for each of the volumes that share places.

    They are told apart by the first values of their keys that do it: values by which no volume has two
    frames in one place, and one volume has every place. A second reading of a few slices is not told apart by
    acquisition numbers that also count groups of slices. What no value tells apart, the order of files
    does.
    """
    places = {member.place for member in members}
    if len(places) == len(members):
        return [members]
    columns = _varying(members)
    for count in range(1, len(columns) + 1):
        volumes = _grouped(members, columns[:count])
        sizes = [len({member.place for member in volume}) for volume in volumes]
        if max(sizes) == len(places) and all(
            size == len(volume) for size, volume in zip(sizes, volumes, strict=True)
        ):
            return volumes
    return _by_occurrence(
        sorted(members, key=lambda member: [_sortable(member.frame.volume[c]) for c in columns])
    )


def _sortable(value: Hashable) -> tuple[bool, Any]:
    """A value of a key, which may be None."""
    return value is not None, value


def _varying(members: Sequence[_Member]) -> list[int]:
    """Positions in the key whose values differ within a place."""
    at_place: dict[int, list[_Member]] = defaultdict(list)
    for member in members:
        at_place[member.place].append(member)
    width = len(members[0].frame.volume)
    return [
        column
        for column in range(width)
        if any(len({member.frame.volume[column] for member in group}) > 1 for group in at_place.values())
    ]


def _grouped(members: Sequence[_Member], columns: Sequence[int]) -> list[list[_Member]]:
    groups: dict[tuple[object, ...], list[_Member]] = defaultdict(list)
    for member in members:
        groups[tuple(member.frame.volume[column] for column in columns)].append(member)
    return list(groups.values())


def _by_occurrence(members: Sequence[_Member]) -> list[list[_Member]]:
    met: Counter[int] = Counter()
    volumes: dict[int, list[_Member]] = defaultdict(list)
    for member in members:
        volumes[met[member.place]].append(member)
        met[member.place] += 1
    return list(volumes.values())


def _common_folder(series: Sequence[SeriesHeader]) -> str:
    folders = {str(frame.path.parent) for item in series for frame in item.frames}
    return os.path.commonpath(folders)
