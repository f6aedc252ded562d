"""Files joined to series and studies: volumes told apart, slices ordered by position."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.records import FrameHeader, Problem, SeriesHeader, Stage, StudyHeader

_SAME_PLACE_MM = 0.01


def build_studies(headers: Iterable[FileHeader]) -> tuple[tuple[StudyHeader, ...], tuple[Problem, ...]]:
    """Group files by study and series.

    Frames of a series are ordered by position along their mean normal, never by instance number. Several
    images at one position (echoes, dynamics, phases) make several volumes: a SeriesHeader each, with the
    same UID. Slices of different tilt without such doubles stay one series.

    Returns:
        Studies in order of UID, and a Problem for each file whose SOP Instance UID another one has with
        different content; the first of them is kept. Equal copies are dropped silently.
    """
    kept, problems = _without_duplicates(headers)
    series: dict[tuple[str, str], list[FileHeader]] = defaultdict(list)
    for header in kept:
        series[header.study_uid, header.series_uid].append(header)
    studies: dict[str, list[SeriesHeader]] = defaultdict(list)
    for (study_uid, _), files in sorted(series.items(), key=lambda item: item[0]):
        studies[study_uid].extend(_volumes(files))
    return (
        tuple(StudyHeader(uid, _common_folder(found), tuple(found)) for uid, found in studies.items()),
        problems,
    )


def _without_duplicates(headers: Iterable[FileHeader]) -> tuple[list[FileHeader], tuple[Problem, ...]]:
    first: dict[str, FileHeader] = {}
    problems = []
    for header in headers:
        frame = header.frames[0]
        earlier = first.setdefault(frame.sop_instance_uid, header)
        if earlier is header or _same_content(earlier.frames[0].path, frame.path):
            continue
        problems.append(
            Problem(
                str(frame.path),
                Stage.HEADER,
                "Another file has the same SOP Instance UID but different content; the first one is used.",
                "Find out which of the two is right and remove the other.",
                header.study_uid,
                harmless=True,
            )
        )
    return list(first.values()), tuple(problems)


def _same_content(one: Path, other: Path) -> bool:
    try:
        return _digest(one) == _digest(other)
    except OSError:
        # A file that has gone since cannot be shown to be the same.
        return False


def _digest(path: Path) -> bytes:
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.digest()


@dataclass(frozen=True)
class _Placed:
    frame: FrameHeader
    volume: tuple[str, ...]
    place: tuple[int, ...]


def _place(frame: FrameHeader) -> tuple[int, ...]:
    """Position and normal, in steps of `_SAME_PLACE_MM`: equal for images of one plane."""
    pose = frame.pose
    if pose is None:
        raise ValueError("A frame without a pose reached the series; the header stage refuses those.")
    values = [*(np.asarray(pose.origin) / _SAME_PLACE_MM), *(pose.normal * 1000)]
    return tuple(round(float(value)) for value in values)


def _volumes(files: Sequence[FileHeader]) -> list[SeriesHeader]:
    placed = [
        _Placed(frame, volume, _place(frame))
        for header in files
        for frame, volume in zip(header.frames, header.volume, strict=True)
    ]
    first = files[0]
    return [
        SeriesHeader(
            study_uid=first.study_uid,
            series_uid=first.series_uid,
            modality=first.modality,
            frames=tuple(_ordered([item.frame for item in volume])),
            frame_of_reference_uid=first.frame_of_reference_uid,
            sop_class_uid=first.sop_class_uid,
            description=first.description,
            protocol=first.protocol,
            body_part=first.body_part,
            image_type=first.image_type,
            acquisition_3d=first.acquisition_3d,
            contrast=_header_of(volume[0].frame, files).contrast,
            manufacturer=first.manufacturer,
            patient_id=first.patient_id,
        )
        for volume in _split(placed)
    ]


def _header_of(frame: FrameHeader, files: Sequence[FileHeader]) -> FileHeader:
    return next((header for header in files if header.frames[0].path == frame.path), files[0])


def _split(placed: list[_Placed]) -> list[list[_Placed]]:
    """One list if no two images share a place; else by what tells them apart, at last by occurrence."""
    if len({item.place for item in placed}) == len(placed):
        return [placed]
    for depth in range(1, len(placed[0].volume) + 1):
        groups: dict[tuple[str, ...], list[_Placed]] = defaultdict(list)
        for item in placed:
            groups[item.volume[:depth]].append(item)
        if len(groups) > 1 and all(
            len({item.place for item in group}) == len(group) for group in groups.values()
        ):
            return list(groups.values())
    occurrence: dict[tuple[int, ...], int] = defaultdict(int)
    volumes: dict[int, list[_Placed]] = defaultdict(list)
    for item in placed:
        volumes[occurrence[item.place]].append(item)
        occurrence[item.place] += 1
    return list(volumes.values())


def _ordered(frames: Sequence[FrameHeader]) -> list[FrameHeader]:
    """By position along the mean normal, which is turned to point to the patient's left, back or head."""
    poses = [frame.pose for frame in frames if frame.pose is not None]
    normals = np.stack([pose.normal for pose in poses])
    normals[normals @ normals[0] < 0] *= -1
    mean = normals.mean(axis=0)
    mean = mean * np.sign(mean[int(np.argmax(np.abs(mean)))])
    along = [float(pose.centre @ mean) for pose in poses]
    return [frames[k] for k in np.argsort(along, kind="stable")]


def _common_folder(series: Sequence[SeriesHeader]) -> str:
    folders = {str(frame.path.parent) for item in series for frame in item.frames}
    return os.path.commonpath(folders)
