"""Which series of a study is the sagittal T2 and which the axial T2, and why the others are not.

`series_role` says what each series can serve as; here one of several candidates is taken, by merits in a
fixed order. The first merit on which two candidates differ decides, and is the reason the loser is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stenosis_trt.engine.records import Problem, SeriesHeader, Stage, StudyHeader
from stenosis_trt.engine.series_role import (
    AXIAL_ROLE,
    SAGITTAL_ROLE,
    Judgement,
    height,
    judge,
    poses,
    positive,
    step,
)
from stenosis_trt.engine.series_words import (
    names_neck,
    other_region,
    plain,
    says_fat_suppressed,
    says_t2,
    words,
)

_USEFUL_HEIGHT = 160.0
"""mm: C2 to T1 with what is beside them; a taller image of the same pixels shows no more of the neck."""
_USEFUL_WIDTH = 36.0
"""mm across sagittal slices: both edges of the canal with room for a curved spine."""
_USEFUL_LENGTH = 110.0
"""mm across axial slices: C2/3 to C7/T1."""
_COVERAGE_STEP = 8.0
"""mm: candidates that differ by less, about half a level, cover the same."""

_ADVICE = (
    "Send the sagittal T2 series of the cervical spine; `stenosis-trt inspect` shows each series' reason."
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
    says whether axial slices may be matched to sagittal levels. `verdicts` has one entry a series, in the
    study's order.
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
    judged = [(series, judge(series)) for series in study.series]
    sagittals = [series for series, judgement in judged if judgement.role == SAGITTAL_ROLE]
    axials = [series for series, judgement in judged if judgement.role == AXIAL_ROLE]
    merits = {id(series): _sagittal_merits(series, axials) for series in sagittals}
    sagittal = _best(sagittals, merits)
    if sagittal is not None:
        judged = [(series, _beside(series, judgement, sagittal)) for series, judgement in judged]
        axials = [series for series, judgement in judged if judgement.role == AXIAL_ROLE]
    merits |= {id(series): _axial_merits(series, sagittal) for series in axials}
    axial = _best(axials, merits)
    taken = {SAGITTAL_ROLE: sagittal, AXIAL_ROLE: axial}
    verdicts = tuple(_verdict(series, judgement, taken, merits) for series, judgement in judged)
    if sagittal is None:
        return Choice(study, None, axial, False, verdicts, _no_sagittal(study, judged, axial), ())
    same = axial is not None and _same_frame(sagittal, axial)
    return Choice(study, sagittal, axial, same, verdicts, None, _flags(sagittal, axial, same))


@dataclass(frozen=True)
class _Merit:
    """One thing that makes a candidate better; `lacking` is what is said of the one with the lower value."""

    lacking: str
    value: float


def _common_merits(series: SeriesHeader) -> list[_Merit]:
    text = words(series)
    return [
        _Merit("its header names another region", -float(_names_other_region(series))),
        _Merit("it is a derived image", -float("DERIVED" in {part.upper() for part in series.image_type})),
        _Merit("it was taken after contrast agent", -float(series.contrast.contrast_agent)),
        _Merit("its fat is suppressed", -float(_fat_suppressed(series))),
        _Merit("its description does not say T2", float(says_t2(text))),
        _Merit("its description does not name the neck", float(names_neck(text))),
    ]


def _fine_merits(series: SeriesHeader, covered: float) -> list[_Merit]:
    pose = poses(series)[0]
    return [
        _Merit("it covers less", round(covered / _COVERAGE_STEP)),
        _Merit("its pixels are larger", -round(max(pose.row_spacing, pose.column_spacing), 1)),
        _Merit("it has fewer slices", float(len(series.frames))),
    ]


def _sagittal_merits(series: SeriesHeader, axials: Sequence[SeriesHeader]) -> list[_Merit]:
    """Most important first. A series that an axial one can be matched to gives more than one without."""
    matched = any(_same_frame(series, axial) and _slices_within(axial, series) for axial in axials)
    tall = min(height(poses(series)[0]), _USEFUL_HEIGHT)
    wide = min(len(series.frames) * step(series), _USEFUL_WIDTH)
    return [
        *_common_merits(series),
        _Merit("no axial T2 series can be matched to it", float(matched)),
        *_fine_merits(series, tall + wide),
    ]


def _axial_merits(series: SeriesHeader, sagittal: SeriesHeader | None) -> list[_Merit]:
    matched = sagittal is not None and _same_frame(sagittal, series)
    slices = _slices_within(series, sagittal) if matched and sagittal else len(series.frames)
    return [
        _Merit("its frame of reference differs from the sagittal's", float(matched)),
        *_common_merits(series),
        *_fine_merits(series, min(slices * step(series), _USEFUL_LENGTH)),
    ]


def _best(candidates: Sequence[SeriesHeader], merits: dict[int, list[_Merit]]) -> SeriesHeader | None:
    """The candidate of highest merit; of equals the one whose UID sorts first, whatever the order."""
    ordered = sorted(candidates, key=lambda series: series.series_uid)
    return max(ordered, key=lambda series: tuple(merit.value for merit in merits[id(series)]), default=None)


def _slices_within(axial: SeriesHeader, sagittal: SeriesHeader) -> int:
    """How many axial slices have their centre before or behind the middle sagittal image."""
    middle = poses(sagittal)[len(poses(sagittal)) // 2]
    inside = 0
    for pose in poses(axial):
        column, row, _ = middle.to_pixels(pose.centre)
        inside += 0 <= column < middle.columns and 0 <= row < middle.rows
    return inside


def _beside(series: SeriesHeader, judgement: Judgement, sagittal: SeriesHeader) -> Judgement:
    """Refuse an axial series of another place: a study of the whole spine has one for each region."""
    if (
        judgement.role == AXIAL_ROLE
        and _same_frame(sagittal, series)
        and not _slices_within(series, sagittal)
    ):
        return replace(judgement, role="", reason="none of its slices lies within the sagittal series")
    return judgement


def _verdict(
    series: SeriesHeader,
    judgement: Judgement,
    taken: dict[str, SeriesHeader | None],
    merits: dict[int, list[_Merit]],
) -> Verdict:
    winner = taken.get(judgement.role)
    if winner is None:
        return Verdict(series, "", judgement.reason)
    if winner is series:
        return Verdict(series, judgement.role, _description(series))
    lacking = (
        mine.lacking
        for mine, theirs in zip(merits[id(series)], merits[id(winner)], strict=True)
        if mine.value != theirs.value
    )
    reason = next(lacking, "this one is as good and comes after it by UID")
    return Verdict(series, "", f"another {judgement.role} series is taken: {reason}")


def _description(series: SeriesHeader) -> str:
    tags = series.contrast
    stated = (("TE", positive(tags.echo_time_ms)), ("TR", positive(tags.repetition_time_ms)))
    times = "".join(f", {name} {value:.0f} ms" for name, value in stated if value is not None)
    return f"{len(series.frames)} slices, {poses(series)[0].column_spacing:.2f} mm pixels{times}"


def _no_sagittal(
    study: StudyHeader, judged: Sequence[tuple[SeriesHeader, Judgement]], axial: SeriesHeader | None
) -> Problem:
    """Why the study cannot be graded: what is missing, and how far the series that came nearest got."""
    if axial is not None:
        reason = "there is an axial T2 but no sagittal T2, on which Kang's grade is defined"
    elif not judged:
        reason = "it has no series of images"
    else:
        nearest = max((judgement for _, judgement in judged), key=lambda judgement: judgement.passed).reason
        if len(judged) == 1:
            reason = f"the only series is not a sagittal T2 ({nearest})"
        else:
            reason = f"none of {len(judged)} series is a sagittal T2 (of the nearest, {nearest})"
    return Problem(study.path, Stage.CHOOSE, f"cannot grade: {reason}.", _ADVICE, study.study_uid)


def _flags(sagittal: SeriesHeader, axial: SeriesHeader | None, same: bool) -> tuple[str, ...]:
    both = [series for series in (sagittal, axial) if series is not None]
    flags = (
        (axial is None, "no_axial_series"),
        (axial is not None and not same, "axial_unmatched"),
        (any(_names_other_region(series) for series in both), "body_part_not_cervical"),
        (any(series.contrast.contrast_agent for series in both), "contrast_agent"),
        (any(_fat_suppressed(series) for series in both), "fat_suppressed"),
    )
    return tuple(name for holds, name in flags if holds)


def _names_other_region(series: SeriesHeader) -> bool:
    """Whether the description names another region, or BodyPartExamined does and no description the neck."""
    text = words(series)
    by_tag = other_region(plain(series.body_part)) and not names_neck(text)
    return bool(by_tag or other_region(text))


def _fat_suppressed(series: SeriesHeader) -> bool:
    by_type = {part.upper() for part in series.image_type} & {"WATER", "W"}
    return bool(by_type) or says_fat_suppressed(words(series))


def _same_frame(sagittal: SeriesHeader, axial: SeriesHeader) -> bool:
    uid = sagittal.frame_of_reference_uid
    return bool(uid) and uid == axial.frame_of_reference_uid
