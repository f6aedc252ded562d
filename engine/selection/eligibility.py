"""Eligibility of one series as sagittal or axial T2, from its header alone, with the reason if it has none.

Five checks, in this order: kind of object, body region, geometry, contrast, and whether the slices are one
stack. Header elements take precedence over descriptions; descriptions decide where elements are missing or
cannot distinguish contrasts (STIR has the echo and repetition times of a T2). BodyPartExamined excludes a
series only if the description names another region too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import MR_IMAGE_CLASSES, Contrast, SeriesHeader
from stenosis_trt.engine.selection.keywords import (
    contrast_hint,
    description_text,
    normalise_text,
    other_region,
    says_t2,
)

SAGITTAL_ROLE, AXIAL_ROLE = "sagittal T2", "axial T2"

# T2 weighting: long TE and, for spin echoes, long TR. In milliseconds. Cervical T2 TSE is run with
# TE 80–130 and TR 2500–7000; 3-D TSE (SPACE, CUBE, VISTA) with TR from about 1000 and an effective TE
# from about 60, or a nominal one of several hundred.
_T2_ECHO_TIME = 60.0
_T2_REPETITION_TIME = 1000.0
_PD_ECHO_TIME = 45.0
_FLUID_ECHO_TIME = 250.0
"""Longest TE of a 2-D spin echo. Beyond it only fluid has signal (myelography); the cord's T2 is 80 ms."""
_INVERSION_TIME = 80.0
"""Shortest TI that nulls fat (STIR: 85 at 0.2 T to 230 at 3 T) or CSF (FLAIR: from 1500)."""
_STIR_LONGEST, _FLAIR_SHORTEST = 400.0, 1500.0

# Siemens sequence names, used if ScanningSequence was removed: *tse2d1_17, *fl2d1, *spcir_…
_SEQUENCE_NAMES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^\*?q?(t?fl|t?fi|me|ci|de)[23]d", re.IGNORECASE), "GR"),
    (re.compile(r"^\*?(ep|re_)", re.IGNORECASE), "EP"),
    (re.compile(r"^\*?(tir|spcir|ir)", re.IGNORECASE), "IR"),
)
# ImageType values of enhanced MR objects that name a contrast (PS3.3, C.8.13.3.1.1).
_FLAVOURS = {
    "T1": "T1",
    "STIR": "STIR",
    "T2_STAR": "T2*",
    "PROTON_DENSITY": "proton density",
    "FLUID_ATTENUATED": "FLAIR",
    "FMRI": "functional",
    "PERFUSION": "perfusion",
}

MINIMUM_SLICES = 5
_MINIMUM_PACK_SLICES = 2
"""Slices. A single one may be a scout or a repeated slice."""
_MAXIMUM_SPACING = {SAGITTAL_ROLE: 1.5, AXIAL_ROLE: 1.2}
"""In-plane, mm. Coarser pixels do not resolve the cord and the CSF around it."""
_MINIMUM_FIELD = {SAGITTAL_ROLE: 110.0, AXIAL_ROLE: 45.0}
"""Field of view in mm: head to foot (sagittal; five levels are 80 mm long), shorter side (axial; the canal is
25 mm wide, and its surroundings must be visible)."""
_MINIMUM_COVERAGE = {SAGITTAL_ROLE: 12.0, AXIAL_ROLE: 8.0}
"""mm across the slices: the width of the cord (sagittal), one disc with its edges (axial)."""
_MAXIMUM_STEP = {SAGITTAL_ROLE: 6.0, AXIAL_ROLE: 12.0}
"""mm between slices: the cord is 13 mm wide, discs are 16 mm apart."""
_MAXIMUM_TILT = {SAGITTAL_ROLE: 30.0, AXIAL_ROLE: 40.0}
"""Degrees. Axial slices are parallel to the discs, which are tilted up to this angle in lordosis."""
_MAJORITY = 2 / 3
"""Least share of slices in the plane of a role. A series may include a reference image or a steep pack; a
localizer has about as many slices in each of its planes."""
_AXES = {SAGITTAL_ROLE: 0, AXIAL_ROLE: 2}
_PLANES = ("sagittal", "coronal", "axial")
_SAME_POSITION = 0.05
"""mm. Slices closer than this along the normal share a plane."""

# Contrasts that TE and TR do not distinguish from T2: the description overrules them.
_OVERRULING_HINTS = {
    "a localizer",
    "STIR",
    "FLAIR",
    "diffusion",
    "a myelogram",
    "a fat image",
    "an opposed-phase image",
}


@dataclass(frozen=True)
class Eligibility:
    """Result of `check_series`.

    Attributes:
        role: SAGITTAL_ROLE, AXIAL_ROLE, or "" if the series is not eligible.
        reason: why it is not eligible, or "".
        checks_passed: number of checks that it passed.
        series: the series without slices in another plane.
        is_pack: True if it has no role only because it is an axial T2 with too few slices: a pack through
            one disc, which can be combined with others.
    """

    role: str
    reason: str
    checks_passed: int
    series: SeriesHeader
    is_pack: bool = False


def check_series(series: SeriesHeader) -> Eligibility:
    """Check whether a series is eligible as sagittal or axial T2."""
    role, wrong_geometry, kept = _role_by_geometry(series)
    checks: tuple[Callable[[], str], ...] = (
        lambda: _wrong_object(series),
        lambda: _wrong_region(series),
        # The geometry of slices that are not one stack means nothing; the last check reports the defect.
        lambda: "" if series.defect else wrong_geometry,
        lambda: _wrong_contrast(series),
        lambda: series.defect,
    )
    for passed, check in enumerate(checks):
        if reason := check():
            is_pack = _is_pack(kept, reason) and not any(other() for other in checks[passed + 1 :])
            return Eligibility("", reason, passed, kept if is_pack else series, is_pack)
    return Eligibility(role, "", len(checks), kept)


def _is_pack(series: SeriesHeader, reason: str) -> bool:
    """Return True if the only fault of an ineligible series is too few axial slices."""
    faults = _sampling_faults(series, AXIAL_ROLE) if slice_poses(series) else []
    return (
        count_positions(series) >= _MINIMUM_PACK_SLICES
        and reason in [text for text, _ in faults]
        and all(too_little for _, too_little in faults)
    )


def slice_poses(series: SeriesHeader) -> list[SlicePose]:
    """Return the poses of the frames that have one, in order."""
    return [frame.pose for frame in series.frames if frame.pose is not None]


def _distances(found: Sequence[SlicePose]) -> list[float]:
    """Return the distances in mm between consecutive planes; images in one plane count once."""
    if len(found) < 2:
        return []
    centres = np.array([pose.centre for pose in found])
    normals = np.array([pose.normal for pose in found])
    every = np.abs((normals[1:] * np.diff(centres, axis=0)).sum(axis=1))
    return [float(distance) for distance in every[every > _SAME_POSITION]]


def slice_step(series: SeriesHeader) -> float:
    """Return the median distance in mm between consecutive planes; 0 for a single plane."""
    return float(np.median(_distances(slice_poses(series)) or [0.0]))


def count_positions(series: SeriesHeader) -> int:
    """Return the number of distinct slice planes."""
    return 1 + len(_distances(slice_poses(series)))


def image_height(pose: SlicePose) -> float:
    """Return the extent of an image in mm along the patient's head-foot axis."""
    across = abs(pose.row_direction[2]) * pose.columns * pose.column_spacing
    return across + abs(pose.column_direction[2]) * pose.rows * pose.row_spacing


def positive_or_none(value: float | None) -> float | None:
    """Return a time from the header, or None if it is absent or 0, which some writers use for absent."""
    return value if value is not None and value > 0 else None


def _wrong_object(series: SeriesHeader) -> str:
    kinds = {part.upper() for part in series.image_type}
    modality = "".join(c for c in series.modality if c.isalnum())[:16]
    rules: tuple[tuple[bool, str], ...] = (
        (series.modality != "MR", f"its modality is {modality or 'not given'}, not MR"),
        (
            bool(series.sop_class_uid) and series.sop_class_uid not in MR_IMAGE_CLASSES,
            "it is not an MR image object (screenshot, spectroscopy or other)",
        ),
        ("MOSAIC" in kinds, "its images are mosaics of many slices"),
        ("LOCALIZER" in kinds, "it is a localizer"),
        (bool(kinds & {"ADC", "TRACEW", "DIFFUSION", "FA"}), "it is a diffusion image"),
        (
            bool(kinds & {"MPR", "PROJECTION IMAGE", "MIP", "REFORMATTED"}),
            "it is a projection or reformat, not an acquisition",
        ),
        (bool(kinds & {"SUB", "SUBTRACTION"}), "it is a subtraction"),
        (bool(kinds & {"P", "PHASE", "PHASE MAP"}) and "M" not in kinds, "it is a phase image"),
        (bool(kinds & {"FAT", "F"}), "it is the fat image of a Dixon acquisition"),
        (bool(kinds & {"OPP_PHASE", "OUT_PHASE", "OP"}), "it is an opposed-phase image"),
    )
    return next((reason for holds, reason in rules if holds), "")


def _wrong_region(series: SeriesHeader) -> str:
    by_tag, by_words = other_region(normalise_text(series.body_part)), other_region(description_text(series))
    if by_tag and by_words:
        return f"body part and description both name another region ({by_tag})"
    return ""


def _tilt(pose: SlicePose, axis: int) -> float:
    return float(np.degrees(np.arccos(min(1.0, abs(float(pose.normal[axis]))))))


def _role_by_geometry(series: SeriesHeader) -> tuple[str, str, SeriesHeader]:
    """Return the role that the geometry allows or "", the reason if it is "", and the series without slices
    in another plane."""
    found = slice_poses(series)
    if not found:
        return "", "its images have no usable position", series
    for role, axis in _AXES.items():
        fitting = [pose is not None and _tilt(pose, axis) <= _MAXIMUM_TILT[role] for pose in _all(series)]
        if sum(fitting) < _MAJORITY * len(fitting):
            continue
        kept = series
        if not all(fitting):
            frames = zip(series.frames, fitting, strict=True)
            kept = replace(series, frames=tuple(frame for frame, fits in frames if fits))
        reason = _wrong_sampling(kept, role)
        return ("" if reason else role), reason, kept
    if len({pose.orientation for pose in found} - {"oblique"}) > 1:
        return "", "its slices lie in several planes, as a localizer's do", series
    tilts = [[_tilt(pose, axis) for pose in found] for axis in range(3)]
    nearest = int(np.argmin(np.median(tilts, axis=1)))
    angle = f"up to {max(tilts[nearest]):.0f}° from the {_PLANES[nearest]} plane"
    return "", f"its slices are {found[0].orientation}, {angle}", series


def _all(series: SeriesHeader) -> list[SlicePose | None]:
    return [frame.pose for frame in series.frames]


def _wrong_sampling(series: SeriesHeader, role: str) -> str:
    return next((text for text, _ in _sampling_faults(series, role)), "")


def _sampling_faults(series: SeriesHeader, role: str) -> list[tuple[str, bool]]:
    """Return the sampling faults for a role; each with True if more slices would mend it."""
    found, distance, planes = slice_poses(series), slice_step(series), count_positions(series)
    spacing = max(max(pose.row_spacing, pose.column_spacing) for pose in found)
    field = min(
        image_height(pose)
        if role == SAGITTAL_ROLE
        else min(pose.rows * pose.row_spacing, pose.columns * pose.column_spacing)
        for pose in found
    )
    covered = planes * distance
    slices = f"{planes} {role.split()[0]} slice" + ("s" if planes > 1 else "")
    if planes < len(found):
        slices += f" (of {len(found)} images)"
    rules: tuple[tuple[bool, str, bool], ...] = (
        (planes < MINIMUM_SLICES, f"it has only {slices}", True),
        (spacing > _MAXIMUM_SPACING[role], f"its pixels are {spacing:.2g} mm wide, too coarse", False),
        (field < _MINIMUM_FIELD[role], f"its field of view is only {field:.0f} mm", False),
        (distance > _MAXIMUM_STEP[role], f"its slices are {distance:.1f} mm apart", False),
        (covered < _MINIMUM_COVERAGE[role], f"its {slices} cover only {covered:.0f} mm", True),
    )
    return [(text, too_little) for holds, text, too_little in rules if holds]


def _wrong_contrast(series: SeriesHeader) -> str:
    """Return why the contrast is not that of a T2 spin echo, or ""."""
    tags = series.contrast
    return (
        _wrong_sequence(tags)
        or _wrong_times(tags, series.acquisition_3d)
        or _wrong_flavour(series)
        or _wrong_words(series)
    )


def _sequence(tags: Contrast) -> set[str]:
    """Return ScanningSequence, or the codes derived from the sequence name if it is absent."""
    stated = {part.upper() for part in tags.scanning_sequence}
    return stated or {code for pattern, code in _SEQUENCE_NAMES if pattern.search(tags.sequence_name)}


def _wrong_sequence(tags: Contrast) -> str:
    sequence, inversion = _sequence(tags), positive_or_none(tags.inversion_time_ms)
    if "EP" in sequence:
        return "it is echo-planar (diffusion or functional)"
    if "GR" in sequence and "SE" not in sequence:
        return "it is a gradient echo (T1, T2* or angiography), not a T2 spin echo"
    if inversion is not None and inversion >= _INVERSION_TIME:
        kinds = ((_STIR_LONGEST, "STIR, "), (_FLAIR_SHORTEST, ""), (float("inf"), "FLAIR, "))
        kind = next(name for longest, name in kinds if inversion < longest)
        return f"it is an inversion recovery ({kind}TI {inversion:.0f} ms)"
    if "IR" in sequence:
        return "it is an inversion recovery (STIR, FLAIR or T1)"
    return ""


def _wrong_times(tags: Contrast, acquisition_3d: bool) -> str:
    echo, repetition = positive_or_none(tags.echo_time_ms), positive_or_none(tags.repetition_time_ms)
    if echo is not None and echo < _T2_ECHO_TIME:
        if repetition is not None and repetition < _T2_REPETITION_TIME:
            return f"TE {echo:.0f} and TR {repetition:.0f} ms are T1 weighting"
        kind = "proton density" if echo < _PD_ECHO_TIME else "intermediate"
        return f"TE {echo:.0f} ms is {kind} weighting"
    if repetition is not None and repetition < _T2_REPETITION_TIME:
        return f"TR {repetition:.0f} ms is too short for a T2 spin echo"
    if echo is not None and echo > _FLUID_ECHO_TIME and not acquisition_3d:
        return f"TE {echo:.0f} ms shows fluid alone, as in myelography"
    return ""


def _wrong_flavour(series: SeriesHeader) -> str:
    kind = next((_FLAVOURS[part.upper()] for part in series.image_type if part.upper() in _FLAVOURS), "")
    return f"its image type says it is {kind}" if kind else ""


def _wrong_words(series: SeriesHeader) -> str:
    text = description_text(series)
    hint = contrast_hint(text)
    if hint in _OVERRULING_HINTS:
        return f"its description says it is {hint}"
    tags = series.contrast
    if positive_or_none(tags.echo_time_ms) is None or positive_or_none(tags.repetition_time_ms) is None:
        if hint:
            return f"echo or repetition time is missing, and its description says it is {hint}"
        if not says_t2(text):
            return "echo or repetition time is missing, and its description does not say T2"
    elif hint == "T2*" and not _sequence(tags):
        return "its description says it is T2*, and no tag contradicts it"
    return ""
