"""Which series of a study is the sagittal T2 and which the axial T2, and why the others are not.

Geometry decides first, contrast second. Descriptions are hints: they settle what the contrast tags leave
open, and never overrule them. BodyPartExamined alone rejects nothing; only together with a description
that says the same does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import Problem, SeriesHeader, Stage, StudyHeader

SAGITTAL_ROLE, AXIAL_ROLE = "sagittal T2", "axial T2"

_MR_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
}

# T2 weighting: long TE and, for spin echoes, long TR. In milliseconds. Cervical T2 TSE is run with
# TE 80–130 and TR 2500–7000; 3-D TSE (SPACE, CUBE, VISTA) with TR from about 1000 and an effective TE
# from about 60, or a nominal one of several hundred.
_T2_ECHO_TIME = 60.0
_T2_REPETITION_TIME = 1000.0
_PD_ECHO_TIME = 45.0
_INVERSION_TIME = 80.0
"""Inversion pulses at or above this null fat (STIR, 130–250) or CSF (FLAIR, about 2000)."""

_MINIMUM_SLICES = {SAGITTAL_ROLE: 5, AXIAL_ROLE: 5}
_MAXIMUM_SPACING = {SAGITTAL_ROLE: 1.5, AXIAL_ROLE: 1.2}
"""In-plane, mm: coarser pixels show neither cord nor CSF beside it."""
_MINIMUM_FIELD = {SAGITTAL_ROLE: 110.0, AXIAL_ROLE: 45.0}
"""mm: five levels are 80 mm long; cord and canal are 25 mm wide, and some of what is around must be seen."""
_MAXIMUM_STEP = {SAGITTAL_ROLE: 6.0, AXIAL_ROLE: 12.0}
"""mm between slices: the cord is 13 mm wide, and between discs lie 16 mm."""
_COVERAGE_STEP = 1000.0
"""mm² of height × extent across the slices: candidates that differ by less cover the same."""
_SAGITTAL_TILT_DEGREES = 30.0
_AXIAL_TILT_DEGREES = 40.0
"""Axial slices follow the discs, whose tilt to the patient's axis reaches this in lordosis."""

_OTHER_REGIONS = {
    "lumbar": re.compile(r"lumb|(?<![a-z])l[ _-]?spine|lws|lssp|lenden", re.IGNORECASE),
    "thoracic": re.compile(r"thora|(?<![a-z])t[ _-]?spine|bws", re.IGNORECASE),
    "brain": re.compile(r"brain|head|cerebr|schaedel|kopf|neuro.?cranium", re.IGNORECASE),
    "knee": re.compile(r"knee", re.IGNORECASE),
    "pelvis": re.compile(r"pelvi|sacr", re.IGNORECASE),
}
_CERVICAL = re.compile(r"cerv|(?<![a-z])c[ _-]?spine|hws|neck|hals", re.IGNORECASE)
_HINTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a localizer", re.compile(r"locali[sz]er|scout|survey|pilot|3[ -]?plane", re.IGNORECASE)),
    ("STIR", re.compile(r"stir|tirm", re.IGNORECASE)),
    ("FLAIR", re.compile(r"flair|dark.?fluid", re.IGNORECASE)),
    ("T2*", re.compile(r"t2[ _]?\*|t2[ _-]?star|medic|merge|ffe|swi|hemo", re.IGNORECASE)),
    ("diffusion", re.compile(r"dwi|dti|diff|\badc\b|trace", re.IGNORECASE)),
    ("T1", re.compile(r"(?<![a-z0-9])t1(?![0-9])", re.IGNORECASE)),
    ("proton density", re.compile(r"(?<![a-z0-9])pd(?![a-z])|proton", re.IGNORECASE)),
    ("a fat or water image", re.compile(r"dixon.*(fat|water)|(^|_)(w|f)$", re.IGNORECASE)),
)
_T2_HINT = re.compile(r"(?<![a-z0-9])t2(?![ _-]?(\*|star))", re.IGNORECASE)

_ADVICE_NO_SAGITTAL = (
    "Send the sagittal T2 series of the cervical spine; run `stenosis-trt inspect` to see why not."
)


@dataclass(frozen=True)
class Verdict:
    """What became of one series: its role, or "" and the reason why it has none."""

    series: SeriesHeader
    role: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """The series a study is graded from.

    `problem` is set, and `sagittal` None, where the study cannot be graded. `same_frame_of_reference`
    says whether axial slices may be matched to sagittal levels.
    """

    study: StudyHeader
    sagittal: SeriesHeader | None
    axial: SeriesHeader | None
    same_frame_of_reference: bool
    verdicts: tuple[Verdict, ...]
    problem: Problem | None
    flags: tuple[str, ...]


def choose(study: StudyHeader) -> Choice:
    """Choose the sagittal and the axial T2 series of a study."""
    candidates: dict[str, list[SeriesHeader]] = {SAGITTAL_ROLE: [], AXIAL_ROLE: []}
    reasons: dict[int, str] = {}
    for series in study.series:
        role, reason = _judge(series)
        if role:
            candidates[role].append(series)
        else:
            reasons[id(series)] = reason
    sagittal = _best(candidates[SAGITTAL_ROLE])
    axial = _best(candidates[AXIAL_ROLE], sagittal)
    verdicts = []
    for series in study.series:
        if series is sagittal:
            verdicts.append(Verdict(series, SAGITTAL_ROLE, _praise(series)))
        elif series is axial:
            verdicts.append(Verdict(series, AXIAL_ROLE, _praise(series)))
        elif id(series) in reasons:
            verdicts.append(Verdict(series, "", reasons[id(series)]))
        else:
            winner = sagittal if series in candidates[SAGITTAL_ROLE] else axial
            verdicts.append(Verdict(series, "", _why_second(series, winner, sagittal)))
    if sagittal is None:
        return Choice(study, None, axial, False, tuple(verdicts), _no_sagittal(study, verdicts), ())
    same = axial is not None and _same_frame(sagittal, axial)
    return Choice(study, sagittal, axial, same, tuple(verdicts), None, _flags(sagittal, axial, same))


def _no_sagittal(study: StudyHeader, verdicts: list[Verdict]) -> Problem:
    if len(verdicts) == 1:
        reason = f"cannot grade: the only series is not a sagittal T2 ({verdicts[0].reason})."
    elif any(verdict.role == AXIAL_ROLE for verdict in verdicts):
        reason = "cannot grade: there is an axial T2 but no sagittal T2, on which Kang's grade is defined."
    else:
        reason = f"cannot grade: none of {len(verdicts)} series is a sagittal T2."
    return Problem(study.path, Stage.CHOOSE, reason, _ADVICE_NO_SAGITTAL, study.study_uid)


def _flags(sagittal: SeriesHeader, axial: SeriesHeader | None, same: bool) -> tuple[str, ...]:
    flags = []
    if axial is None:
        flags.append("no_axial_series")
    elif not same:
        flags.append("axial_unmatched")
    if _other_region(sagittal.body_part) and not _CERVICAL.search(_words(sagittal)):
        flags.append("body_part_not_cervical")
    if sagittal.contrast.contrast_agent:
        flags.append("contrast_agent")
    return tuple(flags)


def _same_frame(sagittal: SeriesHeader, axial: SeriesHeader) -> bool:
    return bool(sagittal.frame_of_reference_uid) and (
        sagittal.frame_of_reference_uid == axial.frame_of_reference_uid
    )


def _words(series: SeriesHeader) -> str:
    return f"{series.description} {series.protocol}"


def _other_region(text: str) -> str:
    """The region other than the neck that a text names, or ""; a text that also names the neck names none."""
    if _CERVICAL.search(text):
        return ""
    return next((name for name, pattern in _OTHER_REGIONS.items() if pattern.search(text)), "")


def _judge(series: SeriesHeader) -> tuple[str, str]:
    """Role of a series, or "" with the reason why it can have none."""
    for check in (_wrong_object, _wrong_region):
        if reason := check(series):
            return "", reason
    role, reason = _role_by_geometry(series)
    if not role:
        return "", reason
    if reason := _wrong_contrast(series):
        return "", reason
    return role, ""


def _wrong_object(series: SeriesHeader) -> str:
    kinds = {part.upper() for part in series.image_type}
    rules: tuple[tuple[bool, str], ...] = (
        (series.modality != "MR", f"its modality is {series.modality or 'not given'}, not MR"),
        (
            bool(series.sop_class_uid) and series.sop_class_uid not in _MR_CLASSES,
            "it is not an MR image object (screenshot, spectroscopy or other)",
        ),
        ("MOSAIC" in kinds, "its images are mosaics of many slices"),
        ("LOCALIZER" in kinds, "it is a localizer"),
        (bool(kinds & {"ADC", "TRACEW", "DIFFUSION", "FA"}), "it is a diffusion image"),
        (
            bool(kinds & {"MPR", "PROJECTION IMAGE", "MIP", "REFORMATTED"}),
            "it is a projection or reformat, not an acquisition",
        ),
        (bool(kinds & {"P", "PHASE", "PHASE MAP"}) and "M" not in kinds, "it is a phase image"),
    )
    return next((reason for holds, reason in rules if holds), "")


def _wrong_region(series: SeriesHeader) -> str:
    by_tag, by_words = _other_region(series.body_part), _other_region(_words(series))
    if by_tag and by_words:
        return f"body part and description both name another region ({by_tag})"
    return ""


def _poses(series: SeriesHeader) -> list[SlicePose]:
    return [frame.pose for frame in series.frames if frame.pose is not None]


def _tilt(pose: SlicePose, axis: int) -> float:
    return float(np.degrees(np.arccos(min(1.0, abs(float(pose.normal[axis]))))))


def _step(poses: list[SlicePose]) -> float:
    """Median distance of neighbouring slices along the normal, mm."""
    return float(np.median([abs(b.to_pixels(a.centre)[2]) for a, b in pairwise(poses)] or [0.0]))


def _role_by_geometry(series: SeriesHeader) -> tuple[str, str]:
    poses = _poses(series)
    sagittal = [_tilt(pose, 0) <= _SAGITTAL_TILT_DEGREES for pose in poses]
    axial = [_tilt(pose, 2) <= _AXIAL_TILT_DEGREES for pose in poses]
    if all(sagittal):
        role = SAGITTAL_ROLE
    elif all(axial):
        role = AXIAL_ROLE
    elif len({pose.orientation for pose in poses}) > 1:
        return "", "its slices lie in several planes, as a localizer's do"
    else:
        return "", f"its slices are {poses[0].orientation}"
    spacing = max(max(pose.row_spacing, pose.column_spacing) for pose in poses)
    # Sagittal slices must be tall, axial ones wide enough.
    field = min(
        pose.rows * pose.row_spacing if role == SAGITTAL_ROLE else pose.columns * pose.column_spacing
        for pose in poses
    )
    step = _step(poses)
    rules: tuple[tuple[bool, str], ...] = (
        (len(poses) < _MINIMUM_SLICES[role], f"it has only {len(poses)} {role.split()[0]} slices"),
        (spacing > _MAXIMUM_SPACING[role], f"its pixels are {spacing:.2g} mm wide, too coarse"),
        (field < _MINIMUM_FIELD[role], f"its field of view is only {field:.0f} mm"),
        (step > _MAXIMUM_STEP[role], f"its slices are {step:.1f} mm apart"),
    )
    reason = next((text for holds, text in rules if holds), "")
    return ("", reason) if reason else (role, "")


def _wrong_contrast(series: SeriesHeader) -> str:
    """Why the contrast is not T2 spin echo, or "". Tags first; the description where they are silent."""
    tags = series.contrast
    sequence = {part.upper() for part in tags.scanning_sequence}
    echo, repetition = tags.echo_time_ms, tags.repetition_time_ms
    if tags.inversion_time_ms is not None and tags.inversion_time_ms >= _INVERSION_TIME:
        kind = "FLAIR" if tags.inversion_time_ms > 1000 else "STIR"
        return f"it is an inversion recovery ({kind}, TI {tags.inversion_time_ms:.0f} ms)"
    if sequence and sequence <= {"GR"}:
        return "it is a gradient echo (T1, T2* or angiography), not a T2 spin echo"
    if "EP" in sequence:
        return "it is echo-planar (diffusion or functional)"
    hint = next((name for name, pattern in _HINTS if pattern.search(_words(series))), "")
    if "IR" in sequence and hint in ("STIR", "FLAIR"):
        return f"it is an inversion recovery ({hint})"
    if echo is not None and echo < _T2_ECHO_TIME:
        if repetition is not None and repetition < _T2_REPETITION_TIME:
            return f"TE {echo:.0f} and TR {repetition:.0f} ms are T1 weighting"
        kind = "proton density" if echo < _PD_ECHO_TIME else "intermediate"
        return f"TE {echo:.0f} ms is {kind} weighting"
    if repetition is not None and repetition < _T2_REPETITION_TIME:
        return f"TR {repetition:.0f} ms is too short for a T2 spin echo"
    if hint in ("a localizer", "STIR", "FLAIR", "diffusion", "a fat or water image"):
        # TE and TR do not tell these from T2.
        return f"its description says it is {hint}"
    if echo is None or repetition is None:
        if hint:
            return f"echo or repetition time is missing, and its description says it is {hint}"
        if not _T2_HINT.search(_words(series)):
            return "echo or repetition time is missing, and its description does not say T2"
    elif hint == "T2*" and not sequence:
        return "its description says it is T2*, and no tag contradicts it"
    return ""


def _merits(series: SeriesHeader, partner: SeriesHeader | None) -> tuple[tuple[str, float], ...]:
    """What makes one candidate better than another, most important first; higher is better."""
    poses = _poses(series)
    words = _words(series)
    spacing = max(poses[0].row_spacing, poses[0].column_spacing)
    covered = poses[0].rows * poses[0].row_spacing * len(poses) * _step(poses)
    return (
        (
            "its frame of reference differs from the sagittal's",
            float(partner is None or _same_frame(partner, series)),
        ),
        ("its description names another region", -float(bool(_other_region(words)))),
        ("it is a derived image", float("DERIVED" not in {part.upper() for part in series.image_type})),
        ("it was taken after contrast agent", -float(series.contrast.contrast_agent)),
        ("its description does not say T2", float(bool(_T2_HINT.search(words)))),
        ("it covers less", round(covered / _COVERAGE_STEP)),
        ("its pixels are larger", -round(spacing, 1)),
        ("it has fewer slices", float(len(poses))),
    )


def _best(candidates: list[SeriesHeader], partner: SeriesHeader | None = None) -> SeriesHeader | None:
    """The candidate of highest merit; of equals the one whose UID sorts first, whatever the order."""
    if not candidates:
        return None
    key: Callable[[SeriesHeader], tuple[float, ...]] = lambda item: tuple(  # noqa: E731
        value for _, value in _merits(item, partner)
    )
    return max(sorted(candidates, key=lambda item: item.series_uid), key=key)


def _why_second(series: SeriesHeader, winner: SeriesHeader | None, sagittal: SeriesHeader | None) -> str:
    if winner is None:
        return "no reason was recorded"
    partner = None if winner is sagittal else sagittal
    for (name, mine), (_, theirs) in zip(_merits(series, partner), _merits(winner, partner), strict=True):
        if mine < theirs:
            return f"another series fits better: {name}"
    return "another series is as good and has the lower UID"


def _praise(series: SeriesHeader) -> str:
    tags = series.contrast
    times = [
        f"{name} {value:.0f} ms"
        for name, value in (("TE", tags.echo_time_ms), ("TR", tags.repetition_time_ms))
        if value is not None
    ]
    poses = _poses(series)
    return f"{len(poses)} slices, {poses[0].column_spacing:.2f} mm pixels" + "".join(
        f", {text}" for text in times
    )
