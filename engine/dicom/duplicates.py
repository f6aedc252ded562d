"""Duplicate images: copies of a file, and files sent again by an archive that changed other elements."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.records import Problem, Stage


class Likeness(Enum):
    """How alike two files with one SOP Instance UID and position are."""

    EQUAL = "equal"
    """Byte for byte."""
    SAME_IMAGE = "same image"
    """Equal in all that a result depends on; other elements differ."""
    DIFFERENT = "different"


Pair = tuple[FileHeader, FileHeader]
CompareFiles = Callable[[Sequence[Pair]], Sequence[Likeness]]
"""Compares pairs of files."""


def have_same_description(one: FileHeader, other: FileHeader) -> bool:
    """Return True if two headers agree in all that a result depends on, apart from the pixels: series, frame
    of reference, modality, and the pose, rescale, contrast and volume key of each frame."""
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


def copies_problem(copies: Sequence[FileHeader]) -> Problem:
    """Return one harmless Problem for files of one study whose images other files hold too."""
    paths = [header.path for header in copies]
    if len(paths) == 1:
        path, reason = paths[0], "The file holds an image that another file holds too, with the same pixels"
    else:
        path = Path(os.path.commonpath(paths))
        reason = f"{len(paths)} files hold images that other files hold too, with the same pixels"
    return Problem(
        str(path),
        Stage.HEADER,
        f"{reason} and positions; other elements differ. The first of each is used.",
        "Nothing to do: no image is lost.",
        copies[0].study_uid,
        harmless=True,
    )
