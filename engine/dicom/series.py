"""Grouping of files into studies and series: separates patients and drops duplicates."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from stenosis_trt.engine.dicom.duplicates import CompareFiles, Likeness, Pair, copies_problem
from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.dicom.patients import split_by_patient
from stenosis_trt.engine.dicom.stack_geometry import StackMember
from stenosis_trt.engine.dicom.uids import is_replacement
from stenosis_trt.engine.dicom.volumes import Volume, split_volumes
from stenosis_trt.engine.records import Problem, SeriesHeader, Stage, StudyHeader

SOP_UID_SHARED = "sop_uid_shared"
"""Warning: images at different positions share a SOP Instance UID, which thus identifies no single slice."""
SERIES_UID_PER_SLICE = "series_uid_per_slice"
"""Warning: slices with one Series Instance UID each were joined to a stack."""
UID_REPLACED = "uid_replaced"
"""Warning: a UID of the study is invalid; its hash takes its place."""

_MIN_SINGLE_IMAGES = 5
"""Least number of images with one Series Instance UID each that are joined to a stack."""


def build_studies(
    headers: Iterable[FileHeader], compare: CompareFiles
) -> tuple[tuple[StudyHeader, ...], tuple[Problem, ...]]:
    """Group files by study, patient and series.

    Patients that share a Study Instance UID get one study each (see `patients`). Frames of a series are
    ordered by position along their mean normal, never by instance number. Different contrasts, planes and
    acquisitions of one series, and several images at one position, are separate volumes: one SeriesHeader
    each, with the same UID (see `volumes`). Slices of different tilt stay one series. Slices with one Series
    Instance UID each are joined if they agree in all else.

    Args:
        headers: headers of all files.
        compare: compares files of one SOP Instance UID and position; called once for all of them.

    Returns:
        Studies ordered by UID and first path, and a Problem for each file whose SOP Instance UID and position
        another file of its study has with different content; the first of them is kept. Equal copies are
        dropped without a Problem; copies of an image in which other elements differ have one harmless Problem
        per study.
    """
    by_study: dict[str, list[FileHeader]] = defaultdict(list)
    for header in headers:
        by_study[header.study_uid].append(header)
    found = [
        (uid if number == 1 else f"{uid}#{number}", patient, *_first_of_each(patient.files))
        for uid, files in sorted(by_study.items())
        for number, patient in enumerate(split_by_patient(files), start=1)
    ]
    pairs = [pair for *_, repeated in found for pair in repeated]
    likeness = iter(compare(pairs) if pairs else ())
    studies: list[StudyHeader] = []
    problems: list[Problem] = []
    for key, patient, kept, repeated in found:
        problems.extend(_duplicates([(pair, next(likeness)) for pair in repeated]))
        series, joined = _all_series(kept)
        warnings = (
            *patient.warnings,
            *((SOP_UID_SHARED,) if len({file.sop_instance_uid for file in kept}) < len(kept) else ()),
            *((SERIES_UID_PER_SLICE,) if joined else ()),
            *((UID_REPLACED,) if any(map(_has_replaced_uid, kept)) else ()),
        )
        uid = kept[0].study_uid
        studies.append(StudyHeader(uid, _common_folder(series), series, key=key, warnings=warnings))
    return tuple(studies), tuple(problems)


def _first_of_each(files: Sequence[FileHeader]) -> tuple[list[FileHeader], list[Pair]]:
    """Return the first file of each SOP Instance UID and position, and each other file with the first."""
    count = Counter(header.sop_instance_uid for header in files)
    first: dict[Hashable, FileHeader] = {}
    repeated: list[Pair] = []
    for header in files:
        uid = header.sop_instance_uid
        earlier = first.setdefault(uid if count[uid] == 1 else (uid, _rounded_poses(header)), header)
        if earlier is not header:
            repeated.append((earlier, header))
    return list(first.values()), repeated


def _duplicates(compared: Sequence[tuple[Pair, Likeness]]) -> list[Problem]:
    """Return the problems of the repeated files of one study and patient."""
    problems = [
        Problem(
            str(header.path),
            Stage.HEADER,
            "Another file has the same SOP Instance UID but different content; the first one is used.",
            "Find out which of the two is right and remove the other.",
            header.study_uid,
        )
        for (_, header), likeness in compared
        if likeness is Likeness.DIFFERENT
    ]
    copies = [header for (_, header), likeness in compared if likeness is Likeness.SAME_IMAGE]
    return [*problems, copies_problem(copies)] if copies else problems


def _has_replaced_uid(header: FileHeader) -> bool:
    """Return True if a UID that results contain is the hash of an invalid one."""
    return any(map(is_replacement, (header.study_uid, header.series_uid, header.sop_instance_uid)))


def _rounded_poses(header: FileHeader) -> Hashable:
    """Return the poses of a file's first and last frame, rounded to 0.1 mm."""
    poses = [frame.header.pose for frame in (header.frames[0], header.frames[-1])]
    return tuple(
        tuple(round(value, 1) for value in (*pose.origin, *pose.row_direction, *pose.column_direction))
        for pose in poses
        if pose is not None
    )


def _all_series(files: Sequence[FileHeader]) -> tuple[tuple[SeriesHeader, ...], bool]:
    """Return the volumes of all series of a study, and whether series of one image were joined."""
    members: dict[tuple[str, str], list[StackMember]] = defaultdict(list)
    for file in files:
        members[file.series_uid, file.frame_of_reference_uid].extend(
            StackMember(frame, file) for frame in file.frames
        )
    singles, joined = _join_single_images([group for group in members.values() if len(group) == 1])
    volumes = [
        volume
        for _, group in sorted(members.items(), key=lambda item: item[0])
        for volume in (split_volumes(group) if len(group) > 1 else ())
    ]
    ordered = sorted([*volumes, *singles], key=lambda volume: volume.members[0].file.series_uid)
    return tuple(_header(volume) for volume in ordered), joined


def _join_single_images(groups: Sequence[list[StackMember]]) -> tuple[list[Volume], bool]:
    """Return the volumes of series of one image each, and whether some were joined.

    Images that agree in all but their Series Instance UIDs are one stack unless two of them share a position
    or they are interleaved. If they cannot be joined, each gets a defect.
    """
    alike: dict[Hashable, list[StackMember]] = defaultdict(list)
    for (member,) in groups:
        alike[_stack_attributes(member)].append(member)
    volumes, joined = [], False
    for members in alike.values():
        reason = ""
        if len(members) >= _MIN_SINGLE_IMAGES:
            found = split_volumes(members)
            reason = _join_blocker(members, found)
            if not reason:
                volumes.extend(found)
                joined = True
                continue
        volumes.extend(Volume((member,), reason) for member in members)
    return volumes, joined


def _stack_attributes(member: StackMember) -> Hashable:
    """Return the attributes that the images of one stack share, except the frame of reference."""
    file, pose = member.file, member.pose
    return (
        (file.modality, file.sop_class_uid, file.series_number, file.description, file.protocol),
        (file.body_part, file.acquisition_3d, file.manufacturer, pose.orientation),
        (pose.rows, pose.columns, round(pose.row_spacing, 3), round(pose.column_spacing, 3), pose.thickness),
        (member.frame.volume.kind, member.frame.contrast),
    )


def _join_blocker(members: Sequence[StackMember], found: Sequence[Volume]) -> str:
    """Return why images with one Series Instance UID each cannot be joined to one stack, or ""."""
    file = members[0].file
    begin = f"each of {len(members)} images like it has a Series Instance UID of its own, and "
    if len({member.file.frame_of_reference_uid for member in members}) > 1:
        return begin + "a Frame of Reference UID too, so that they cannot be joined to a stack"
    if file.series_number is None and not file.description:
        return begin + "neither series number nor description says which belong together"
    if len(found) > 1 or found[0].defect:
        return begin + "several share a position or are interleaved, so that they are not one stack"
    return ""


def _header(volume: Volume) -> SeriesHeader:
    """Return the header of a volume, with the attributes of its first frame."""
    first = volume.members[0]
    file = first.file
    times = [member.frame.volume.acquired for member in volume.members]
    return SeriesHeader(
        study_uid=file.study_uid,
        series_uid=file.series_uid,
        modality=file.modality,
        frames=tuple(member.frame.header for member in volume.members),
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
        lossy=any(member.file.lossy for member in volume.members),
        acquired=max((time for time in times if time is not None), default=None),
        defect=volume.defect,
    )


def _common_folder(series: Sequence[SeriesHeader]) -> str:
    folders = {os.path.dirname(frame.path) for item in series for frame in item.frames}
    return os.path.commonpath(folders)
