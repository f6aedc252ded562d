"""Files that hold one image twice: copied, or sent again by another archive that changed other elements."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.records import Problem, Stage

SameImage = Callable[[FileHeader, FileHeader], bool]
"""Whether two files with one SOP Instance UID hold one image; asked only where `have_same_description`
holds."""

_HASH_BYTES = 1 << 20


def have_same_content(one: Path, other: Path) -> bool:
    """Whether two files are equal, byte for byte."""
    try:
        return one.stat().st_size == other.stat().st_size and _digest(one) == _digest(other)
    except OSError:
        # A file that has gone since cannot be shown to be the same.
        return False


def _digest(path: Path) -> bytes:
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BYTES):
            total.update(block)
    return total.digest()


def have_same_description(one: FileHeader, other: FileHeader) -> bool:
    """Whether all that a result depends on is the same in two headers, but for the pixels: series, frame of
    reference, modality, and of each frame its place, rescale, contrast and what tells it from others."""
    alike = (
        "study_uid",
        "series_uid",
        "sop_instance_uid",
        "sop_class_uid",
        "modality",
        "frame_of_reference_uid",
        "acquisition_3d",
    )
    if any(getattr(one, name) != getattr(other, name) for name in alike):
        return False
    return len(one.frames) == len(other.frames) and all(
        mine == theirs._replace(header=replace(theirs.header, path=mine.header.path))
        for mine, theirs in zip(one.frames, other.frames, strict=True)
    )


def copies_problem(copies: Iterable[FileHeader]) -> list[Problem]:
    """One harmless row a study for files whose images other files hold too."""
    studies: dict[str, list[Path]] = defaultdict(list)
    for header in copies:
        studies[header.study_uid].append(header.path)
    return [_copies_problem(uid, paths) for uid, paths in studies.items()]


def _copies_problem(study_uid: str, paths: Sequence[Path]) -> Problem:
    if len(paths) == 1:
        place, reason = paths[0], "The file holds an image that another file holds too, with the same pixels"
    else:
        place = Path(os.path.commonpath(paths))
        reason = f"{len(paths)} files hold images that other files hold too, with the same pixels"
    return Problem(
        str(place),
        Stage.HEADER,
        f"{reason} and positions; other elements differ. The first of each is used.",
        "Nothing to do: no image is lost.",
        study_uid,
        harmless=True,
    )
