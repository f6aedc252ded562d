"""Files joined to studies and series: patients told apart, duplicates left out."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from stenosis_trt.engine.dicom.duplicates import SameImage, copies_problem, have_same_content
from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.dicom.patients import split_by_patient
from stenosis_trt.engine.dicom.stack_geometry import StackMember
from stenosis_trt.engine.dicom.volumes import Volume, split_volumes
from stenosis_trt.engine.records import Problem, SeriesHeader, Stage, StudyHeader

SOP_UID_SHARED = "sop_uid_shared"
"""Warning: images in different places have one SOP Instance UID, so that it names no single slice."""
SERIES_UID_PER_SLICE = "series_uid_per_slice"
"""Warning: slices with a Series Instance UID each were joined to a stack."""

_FEWEST_SINGLES = 5
"""Images with a Series Instance UID each that make a stack: what a series of the fewest slices has."""


def build_studies(
    headers: Iterable[FileHeader], same_image: SameImage
) -> tuple[tuple[StudyHeader, ...], tuple[Problem, ...]]:
    """Group files by study, patient and series.

    Patients that share a Study Instance UID have a study each (see `patients`). Frames of a series are
    ordered by position along their mean normal, never by instance number. Different contrasts, planes and
    acquisitions of one series, and several images in one place, make several volumes: a SeriesHeader each,
    with the same UID (see `volumes`). Slices of different tilt stay one series. Slices with a Series
    Instance UID each are joined where they agree in all else.

    Args:
        headers: of all files.
        same_image: whether two files that differ hold the same image.

    Returns:
        Studies in order of UID and of their first paths, and a Problem for each file whose SOP Instance UID
        another one of its study has, in the same place and with different content; the first of them is kept.
        Equal copies are dropped silently, and copies of the same image in which other elements differ have
        one harmless Problem a study.
    """
    by_study: dict[str, list[FileHeader]] = defaultdict(list)
    for header in headers:
        by_study[header.study_uid].append(header)
    studies: list[StudyHeader] = []
    problems: list[Problem] = []
    for uid, files in sorted(by_study.items()):
        for number, patient in enumerate(split_by_patient(files), start=1):
            kept, found = _without_duplicates(patient.files, same_image)
            problems.extend(found)
            series, joined = _all_series(kept)
            warnings = (
                *patient.warnings,
                *((SOP_UID_SHARED,) if len({file.sop_instance_uid for file in kept}) < len(kept) else ()),
                *((SERIES_UID_PER_SLICE,) if joined else ()),
            )
            key = uid if number == 1 else f"{uid}#{number}"
            studies.append(StudyHeader(uid, _common_folder(series), series, key=key, warnings=warnings))
    return tuple(studies), tuple(problems)


def _without_duplicates(
    files: Sequence[FileHeader], same_image: SameImage
) -> tuple[list[FileHeader], list[Problem]]:
    """The files of one study and patient without second copies; images in other places are none."""
    first: dict[Hashable, FileHeader] = {}
    problems, copies = [], []
    for header in files:
        earlier = first.setdefault((header.sop_instance_uid, _place(header)), header)
        if earlier is header or have_same_content(earlier.path, header.path):
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
    return list(first.values()), [*problems, *copies_problem(copies)]


def _place(header: FileHeader) -> Hashable:
    """Where a file's first and last frames lie, to a tenth of a millimetre."""
    poses = [frame.header.pose for frame in (header.frames[0], header.frames[-1])]
    return tuple(
        tuple(round(value, 1) for value in (*pose.origin, *pose.row_direction, *pose.column_direction))
        for pose in poses
        if pose is not None
    )


def _all_series(files: Sequence[FileHeader]) -> tuple[tuple[SeriesHeader, ...], bool]:
    """The volumes of all series of a study, and whether slices with a UID each were joined."""
    members: dict[tuple[str, str], list[StackMember]] = defaultdict(list)
    for file in files:
        members[file.series_uid, file.frame_of_reference_uid].extend(
            StackMember(frame, file) for frame in file.frames
        )
    singles, joined = _joined_singles([group for group in members.values() if len(group) == 1])
    volumes = [
        volume
        for _, group in sorted(members.items(), key=lambda item: item[0])
        for volume in (split_volumes(group) if len(group) > 1 else ())
    ]
    ordered = sorted([*volumes, *singles], key=lambda volume: volume.members[0].file.series_uid)
    return tuple(_header(volume) for volume in ordered), joined


def _joined_singles(groups: Sequence[list[StackMember]]) -> tuple[list[Volume], bool]:
    """Volumes of series of one image each, and whether some were joined.

    Images that agree in all but their Series Instance UIDs are one stack, where no two of them lie in one
    place and they do not run through one another. Where they cannot be joined, each says so.
    """
    alike: dict[Hashable, list[StackMember]] = defaultdict(list)
    for (member,) in groups:
        alike[_kind(member)].append(member)
    volumes, joined = [], False
    for members in alike.values():
        reason = ""
        if len(members) >= _FEWEST_SINGLES:
            found = split_volumes(members)
            reason = _why_apart(members, found)
            if not reason:
                volumes.extend(found)
                joined = True
                continue
        volumes.extend(Volume((member,), reason) for member in members)
    return volumes, joined


def _kind(member: StackMember) -> Hashable:
    """What images of one stack have in common; their frame of reference is looked at afterwards."""
    file, pose = member.file, member.pose
    return (
        (file.modality, file.sop_class_uid, file.series_number, file.description, file.protocol),
        (file.body_part, file.acquisition_3d, file.manufacturer, pose.orientation),
        (pose.rows, pose.columns, round(pose.row_spacing, 3), round(pose.column_spacing, 3), pose.thickness),
        (member.frame.volume.kind, member.frame.contrast),
    )


def _why_apart(members: Sequence[StackMember], found: Sequence[Volume]) -> str:
    """Why images with a Series Instance UID each cannot be joined to the one stack that was found, or ""."""
    file = members[0].file
    begin = f"each of {len(members)} images like it has a Series Instance UID of its own, and "
    if len({member.file.frame_of_reference_uid for member in members}) > 1:
        return begin + "a Frame of Reference UID too, so that they cannot be joined to a stack"
    if file.series_number is None and not file.description:
        return begin + "neither series number nor description says which belong together"
    if len(found) > 1 or found[0].defect:
        return begin + "several lie in one place or run through one another, so that they are not one stack"
    return ""


def _header(volume: Volume) -> SeriesHeader:
    """What a volume says of itself is what its first frame says."""
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
    folders = {str(frame.path.parent) for item in series for frame in item.frames}
    return os.path.commonpath(folders)
