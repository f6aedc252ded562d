"""Which series of a study is the sagittal T2 and which the axial T2, and why the others are not.

`series_role` says what each series can serve as; here one of several candidates is taken, by the merits of
`series_merits` in their order. The first merit on which two candidates differ decides, and is the reason the
loser is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stenosis_trt.engine.records import Problem, SeriesHeader, Stage, StudyHeader
from stenosis_trt.engine.series_merits import (
    NECK_DEPTH,
    Merit,
    axial_merits,
    fat_suppressed,
    identity,
    names_other_region,
    sagittal_merits,
    same_frame,
    slices_within,
)
from stenosis_trt.engine.series_role import (
    AXIAL_ROLE,
    SAGITTAL_ROLE,
    Judgement,
    judge,
    poses,
    positive,
    step,
)

_THIN = 2.0
"""mm: the models learnt from slices of 3 to 4 mm, which average more of the anatomy."""

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
    sagittals, axials = _with_role(judged, SAGITTAL_ROLE), _with_role(judged, AXIAL_ROLE)
    merits = {id(series): sagittal_merits(series, sagittals, axials) for series in sagittals}
    sagittal = _best(sagittals, merits)
    if sagittal is not None:
        judged = [(series, _beside(series, judgement, sagittal)) for series, judgement in judged]
        axials = _with_role(judged, AXIAL_ROLE)
    merits |= {id(series): axial_merits(series, axials, sagittal) for series in axials}
    axial = _best(axials, merits)
    taken = {SAGITTAL_ROLE: sagittal, AXIAL_ROLE: axial}
    verdicts = tuple(_verdict(series, judgement, taken, merits) for series, judgement in judged)
    if sagittal is None:
        return Choice(study, None, axial, False, verdicts, _no_sagittal(study, judged, axial), ())
    same = axial is not None and same_frame(sagittal, axial)
    flags = _flags(sagittal, axial, same)
    if any(verdict.role and verdict.series not in (sagittal, axial) for verdict in verdicts):
        flags = (*flags, "slices_left_out")
    return Choice(study, sagittal, axial, same, verdicts, None, flags)


_Judged = Sequence[tuple[SeriesHeader, Judgement]]
"""Series as they are, with what became of them."""


def _with_role(judged: _Judged, role: str) -> list[SeriesHeader]:
    """What is left of the series that can serve as this."""
    return [judgement.series for _, judgement in judged if judgement.role == role]


def _best(candidates: Sequence[SeriesHeader], merits: dict[int, list[Merit]]) -> SeriesHeader | None:
    """The candidate of highest merit; of equals the same one, whatever their order."""
    ordered = sorted(candidates, key=identity)
    return max(ordered, key=lambda series: tuple(merit.value for merit in merits[id(series)]), default=None)


def _beside(series: SeriesHeader, judgement: Judgement, sagittal: SeriesHeader) -> Judgement:
    """Refuse an axial series of another place: a study of the whole spine has one for each region."""
    if (
        judgement.role == AXIAL_ROLE
        and same_frame(sagittal, series)
        and not slices_within(judgement.series, sagittal)
    ):
        reason = f"none of its slices lies within the upper {NECK_DEPTH:.0f} mm of the sagittal series"
        return replace(judgement, role="", reason=reason)
    return judgement


def _verdict(
    series: SeriesHeader,
    judgement: Judgement,
    taken: dict[str, SeriesHeader | None],
    merits: dict[int, list[Merit]],
) -> Verdict:
    winner = taken.get(judgement.role)
    if winner is None:
        return Verdict(series, "", judgement.reason)
    if winner is judgement.series:
        left_out = len(series.frames) - len(winner.frames)
        plural = "s" if left_out > 1 else ""
        more = f", {left_out} slice{plural} in another plane left out" if left_out else ""
        return Verdict(series, judgement.role, f"{_description(winner)}{more}")
    lacking = (
        mine.lacking
        for mine, theirs in zip(merits[id(judgement.series)], merits[id(winner)], strict=True)
        if mine.value != theirs.value
    )
    reason = next(lacking, "this one is as good and comes after it by UID, echo time and first image")
    return Verdict(series, "", f"another {judgement.role} series is taken: {reason}")


def _description(series: SeriesHeader) -> str:
    tags = series.contrast
    stated = (("TE", positive(tags.echo_time_ms)), ("TR", positive(tags.repetition_time_ms)))
    times = "".join(f", {name} {value:.0f} ms" for name, value in stated if value is not None)
    return f"{len(series.frames)} slices, {poses(series)[0].column_spacing:.2f} mm pixels{times}"


def _no_sagittal(study: StudyHeader, judged: _Judged, axial: SeriesHeader | None) -> Problem:
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
        (any(names_other_region(series) for series in both), "body_part_not_cervical"),
        (any(series.contrast.contrast_agent for series in both), "contrast_agent"),
        (any(fat_suppressed(series) for series in both), "fat_suppressed"),
        (any(step(series) < _THIN for series in both), "thin_slices"),
        (any(series.lossy for series in both), "lossy_compression"),
    )
    return tuple(name for holds, name in flags if holds)
