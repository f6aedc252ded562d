"""Files of one Study Instance UID, split by patient where several patients share the UID."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.dicom.patient_identity import PatientIdentity
from stenosis_trt.engine.geometry import Vector

STUDY_UID_SHARED = "study_uid_shared"
"""Warning: another patient's images have the same Study Instance UID."""
IDENTITY_UNKNOWN = "patient_identity_unknown"
"""Warning: some images name no patient and are assigned to this one by their folders."""
NAMES_DIFFER = "patient_names_differ"
"""Warning: images with one PatientID differ in the patient's name or birth date."""

SERIES_REPEATED = "series_repeated"
"""Warning: folders repeat the series of others with other UIDs: two exports, or patients with one ID."""

_MIN_REPEATED_SERIES = 2


@dataclass(frozen=True)
class PatientFiles:
    """The files of one study and one patient, with the warnings of the study."""

    files: tuple[FileHeader, ...]
    warnings: tuple[str, ...]


def split_by_patient(files: Sequence[FileHeader]) -> list[PatientFiles]:
    """Separate the patients whose files have one Study Instance UID.

    Files belong to one patient if their PatientIDs are equal and their issuers do not differ, or, if one has
    no PatientID, if names and birth dates do not differ. Equal PatientIDs with different name and different
    birth date are two patients, since some de-identification software writes one PatientID for all. Files
    that name no patient, or not unambiguously, are assigned by their folders. Folders belong to one patient
    unless two of them hold a series of the same number and plane, as two studies do. A study without any
    identity thus stays whole, even with one folder per series.

    Args:
        files: files of one Study Instance UID.

    Returns:
        One entry per patient, in the order of their first paths.
    """
    by_patient: dict[PatientIdentity, list[FileHeader]] = defaultdict(list)
    for file in files:
        by_patient[file.patient].append(file)
    known, unknown = _clusters(by_patient)
    found: list[tuple[list[FileHeader], set[str]]] = []
    for patients in known:
        members = [file for patient in patients for file in by_patient[patient]]
        if any(patient.identified for patient in patients):
            names = any(_names_differ(a, b) or _dates_differ(a, b) for a, b in combinations(patients, 2))
            warnings = {NAMES_DIFFER} if names else set()
            found.append((members, warnings | ({SERIES_REPEATED} if len(_by_folder(members)) > 1 else set())))
        else:
            found.extend((part, {IDENTITY_UNKNOWN}) for part in _by_folder(members))
    named = list(found)
    for part in _by_folder([file for patient in unknown for file in by_patient[patient]]):
        owner = _owner(part, [members for members, _ in named])
        if owner is None:
            found.append((part, {IDENTITY_UNKNOWN}))
        else:
            named[owner][0].extend(part)
            named[owner][1].add(IDENTITY_UNKNOWN)
    shared = {STUDY_UID_SHARED} if len(found) > 1 else set()
    found.sort(key=lambda item: min(str(file.path) for file in item[0]))
    return [PatientFiles(tuple(members), tuple(sorted(warnings | shared))) for members, warnings in found]


def _clusters(
    by_patient: dict[PatientIdentity, list[FileHeader]],
) -> tuple[list[list[PatientIdentity]], list[PatientIdentity]]:
    """Return the identities, grouped by patient, and those that cannot be assigned."""

    def fullest_first(patient: PatientIdentity) -> tuple[bool, bool, bool, bool, str]:
        first = min(str(file.path) for file in by_patient[patient])
        return not patient.id, not patient.issuer, not any(patient.names), not patient.birth_date, first

    known: list[list[PatientIdentity]] = []
    unknown = [patient for patient in by_patient if not patient.named]
    for patient in sorted((p for p in by_patient if p.named), key=fullest_first):
        possible = [same for same in known if not any(_conflict(patient, other) for other in same)]
        agreeing = [same for same in possible if any(_agree(patient, other) for other in same)]
        if len(agreeing) == 1:
            agreeing[0].append(patient)
        elif possible:
            unknown.append(patient)
        else:
            known.append([patient])
    return known, unknown


def _agree(one: PatientIdentity, other: PatientIdentity) -> bool:
    if one.id and other.id:
        return one.id == other.id
    return any(a and a == b for a, b in zip(one.names, other.names, strict=True))


def _conflict(one: PatientIdentity, other: PatientIdentity) -> bool:
    names, dates = _names_differ(one, other), _dates_differ(one, other)
    if one.id and other.id:
        issuers = bool(one.issuer and other.issuer) and one.issuer != other.issuer
        return one.id != other.id or issuers or (names and dates)
    return names or dates


def _names_differ(one: PatientIdentity, other: PatientIdentity) -> bool:
    both = [a == b for a, b in zip(one.names, other.names, strict=True) if a and b]
    return bool(both) and not any(both)


def _dates_differ(one: PatientIdentity, other: PatientIdentity) -> bool:
    return bool(one.birth_date and other.birth_date) and one.birth_date != other.birth_date


def _owner(part: Sequence[FileHeader], named: Sequence[Sequence[FileHeader]]) -> int | None:
    """Return the index of the patient that files without identity belong to, or None."""
    said = {file.patient for file in part}
    depths: dict[int, int] = {}
    for number, members in enumerate(named):
        theirs = {file.patient for file in members}
        if any(_conflict(one, other) for one in said for other in theirs):
            continue
        folders = {file.path.parent for file in members}
        if not {file.path.parent for file in part} & folders and _repeats(part, members):
            continue
        depths[number] = max(_shared_depth(file.path.parent, folder) for file in part for folder in folders)
    nearest = [number for number, depth in depths.items() if depth == max(depths.values())]
    return nearest[0] if len(nearest) == 1 else None


def _shared_depth(one: Path, other: Path) -> int:
    return len(Path(os.path.commonpath([one, other])).parts)


def _by_folder(files: Sequence[FileHeader]) -> list[list[FileHeader]]:
    """Return all files as one list, or one list per folder if folders repeat the series of others."""
    if not files:
        return []
    folders = [os.path.dirname(file.path) for file in files]
    depth = len(Path(os.path.commonpath(set(folders))).parts)
    child = {folder: Path(folder).parts[depth : depth + 1] for folder in set(folders)}
    children: dict[tuple[str, ...], list[FileHeader]] = defaultdict(list)
    for folder, file in zip(folders, files, strict=True):
        children[child[folder]].append(file)
    parts = [children[name] for name in sorted(children)]
    if len(parts) > 1 and any(_repeats(one, other) for one, other in combinations(parts, 2)):
        return [smaller for part in parts for smaller in _by_folder(part)]
    return [list(files)]


def _repeats(one: Iterable[FileHeader], other: Iterable[FileHeader]) -> bool:
    """Return True if both hold series of the same number and plane with different UIDs, as two studies do.

    For series without number, two of the same descriptions and planes are required.
    """
    mine, theirs = _signatures(one), _signatures(other)
    if set().union(*mine.values()) & set().union(*theirs.values()):
        # One series in two folders: an export in portions.
        return False
    common = mine.keys() & theirs.keys()
    return any(number is not None for number, _, _ in common) or len(common) >= _MIN_REPEATED_SERIES


def _signatures(files: Iterable[FileHeader]) -> dict[tuple[int | None, str, int], set[str]]:
    found: dict[tuple[int | None, str, int], set[str]] = defaultdict(set)
    planes: dict[tuple[Vector, Vector], int] = {}
    for file in files:
        pose = file.frames[0].header.pose
        if pose is not None:
            plane = planes.get((pose.row_direction, pose.column_direction))
            if plane is None:
                plane = int(np.argmax(np.abs(np.cross(pose.row_direction, pose.column_direction))))
                planes[pose.row_direction, pose.column_direction] = plane
            text = "" if file.series_number is not None else file.description.casefold()
            found[file.series_number, text, plane].add(file.series_uid)
    return found
