"""Which series of a study is the sagittal T2 and which the axial T2, and why the others are not.

`series_role` says what each series can serve as; here one of several candidates is taken, by the merits of
`series_merits` in their order. The first merit on which two candidates differ decides, and is the reason the
loser is given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from stenosis_trt.engine.records import Problem, SeriesHeader, Stage, StudyHeader
from stenosis_trt.engine.selection.axial_packs import select_axial_packs
from stenosis_trt.engine.selection.eligibility import (
    AXIAL_ROLE,
    MINIMUM_SLICES,
    SAGITTAL_ROLE,
    Eligibility,
    check_series,
    positive_or_none,
    slice_poses,
    slice_step,
)
from stenosis_trt.engine.selection.ranking import (
    NECK_DEPTH_MM,
    RankingCriterion,
    after_contrast_agent,
    axial_criteria,
    count_slices_within,
    is_fat_suppressed,
    names_other_region,
    sagittal_criteria,
    same_frame_of_reference,
    tie_breaker,
)

_THIN = 2.0
"""mm: the models learnt from slices of 3 to 4 mm, which average more of the anatomy."""

SEND_SAGITTAL = "Send the sagittal T2 series of the cervical spine"
_ADVICE = f"{SEND_SAGITTAL}; `stenosis-trt inspect` shows each series' reason."


@dataclass(frozen=True)
class SeriesDecision:
    """What became of one series: its role, or "" and the reason why it has none."""

    series: SeriesHeader
    role: str
    reason: str


@dataclass(frozen=True)
class SeriesSelection:
    """The series a study is graded from.

    `problem` is set, and `sagittal` None, where the study cannot be graded. `axial_packs` are joined to
    `axial`: series that show other discs. `same_frame_of_reference` says whether axial slices may be matched
    to sagittal levels. `decisions` has one entry a series, in the study's order. `warnings` begin with the
    study's own.
    """

    study: StudyHeader
    sagittal: SeriesHeader | None
    axial: SeriesHeader | None
    same_frame_of_reference: bool
    decisions: tuple[SeriesDecision, ...]
    problem: Problem | None
    warnings: tuple[str, ...]
    axial_packs: tuple[SeriesHeader, ...] = ()

    @property
    def sagittal_index(self) -> int:
        """Index of the sagittal series in `study.series`."""
        return next(k for k, verdict in enumerate(self.decisions) if verdict.role == SAGITTAL_ROLE)


def select_series(study: StudyHeader, excluded: Collection[int] = ()) -> SeriesSelection:
    """Choose the sagittal and the axial T2 series of a study.

    Args:
        study: its series.
        excluded: indices into `study.series` of sagittal series that could not be graded: others are chosen.
    """
    judged = [
        (series, _tried(check_series(series)) if place in excluded else check_series(series))
        for place, series in enumerate(study.series)
    ]
    sagittals, axials = _with_role(judged, SAGITTAL_ROLE), _axials(judged)
    merits = {id(series): sagittal_criteria(series, sagittals, axials) for series in sagittals}
    sagittal = next(iter(_ranked(sagittals, merits)), None)
    if sagittal is not None:
        judged = [(series, _beside(series, judgement, sagittal)) for series, judgement in judged]
        axials = _axials(judged)
    merits |= {id(series): axial_criteria(series, axials, sagittal) for series in axials}
    axial, packs = _with_packs(_ranked(axials, merits), _with_role(judged, AXIAL_ROLE), sagittal)
    taken = _Taken(sagittal, axial, packs)
    verdicts = tuple(_verdict(place, judged, taken, merits) for place in range(len(judged)))
    if sagittal is None:
        return SeriesSelection(
            study, None, axial, False, verdicts, _no_sagittal(study, judged, axial), study.warnings
        )
    same = axial is not None and same_frame_of_reference(sagittal, axial)
    warnings = (*study.warnings, *_warnings(sagittal, axial, same))
    if axial is None and any(map(_is_mixed_axial, study.series)):
        warnings = (*warnings, "axial_slices_mixed")
    if any(verdict.role and not taken.holds(verdict.series) for verdict in verdicts):
        warnings = (*warnings, "slices_left_out")
    return SeriesSelection(study, sagittal, axial, same, verdicts, None, warnings, packs)


def _is_mixed_axial(series: SeriesHeader) -> bool:
    """Whether a series would be axial if its slices were one stack."""
    return bool(series.defect) and slice_poses(series)[0].orientation == "axial"


def _tried(judgement: Eligibility) -> Eligibility:
    return replace(judgement, role="", reason="it was tried and could not be graded")


@dataclass(frozen=True)
class _Taken:
    """The series that are used, without their slices in other planes."""

    sagittal: SeriesHeader | None
    axial: SeriesHeader | None
    packs: tuple[SeriesHeader, ...]

    def holds(self, series: SeriesHeader) -> bool:
        return any(series is item for item in (self.sagittal, self.axial, *self.packs))

    def best(self, role: str) -> SeriesHeader | None:
        return {SAGITTAL_ROLE: self.sagittal, AXIAL_ROLE: self.axial}.get(role)


_Judged = Sequence[tuple[SeriesHeader, Eligibility]]
"""Series as they are, with what became of them."""


def _with_role(judged: _Judged, role: str) -> list[SeriesHeader]:
    """What is left of the series that can serve as this."""
    return [judgement.series for _, judgement in judged if judgement.role == role]


def _axials(judged: _Judged) -> list[SeriesHeader]:
    """Axial series, and packs that may be joined to one."""
    return [judgement.series for _, judgement in judged if _serves_as_axial(judgement)]


def _ranked(
    candidates: Sequence[SeriesHeader], merits: dict[int, list[RankingCriterion]]
) -> list[SeriesHeader]:
    """Candidates of highest merit first; of equals the same one, whatever their order."""
    return sorted(
        candidates, key=lambda item: (tuple(-merit.value for merit in merits[id(item)]), tie_breaker(item))
    )


def _with_packs(
    ranked: Sequence[SeriesHeader], whole: Sequence[SeriesHeader], sagittal: SeriesHeader | None
) -> tuple[SeriesHeader | None, tuple[SeriesHeader, ...]]:
    """The best axial series, and the packs joined to it.

    Args:
        ranked: candidates, the best first.
        whole: those of them that have slices enough by themselves. One of them comes first; without any,
            packs are taken where together they have enough.
        sagittal: the series that levels are found in.
    """
    first = next((item for item in ranked if any(item is other for other in whole)), None)
    best = first or next(iter(ranked), None)
    if best is None or sagittal is None:
        return first, ()
    packs = select_axial_packs(best, [item for item in ranked if item is not best], sagittal)
    if first is None and sum(len(item.frames) for item in (best, *packs)) < MINIMUM_SLICES:
        return None, ()
    return best, packs


def _beside(series: SeriesHeader, judgement: Eligibility, sagittal: SeriesHeader) -> Eligibility:
    """Refuse an axial series of another place: a study of the whole spine has one for each region."""
    if (
        _serves_as_axial(judgement)
        and same_frame_of_reference(sagittal, series)
        and not count_slices_within(judgement.series, sagittal)
    ):
        reason = f"none of its slices lies within the upper {NECK_DEPTH_MM:.0f} mm of the sagittal series"
        return replace(judgement, role="", reason=reason, is_pack=False)
    return judgement


def _verdict(
    place: int, judged: _Judged, taken: _Taken, merits: dict[int, list[RankingCriterion]]
) -> SeriesDecision:
    series, judgement = judged[place]
    kept = judgement.series
    if taken.holds(kept):
        role = SAGITTAL_ROLE if kept is taken.sagittal else AXIAL_ROLE
        left_out = len(series.frames) - len(kept.frames)
        plural = "s" if left_out > 1 else ""
        more = f", {left_out} slice{plural} in another plane left out" if left_out else ""
        if any(kept is pack for pack in taken.packs):
            best = next(k for k, (_, other) in enumerate(judged, start=1) if other.series is taken.axial)
            more += f", joined to series {best}"
        return SeriesDecision(series, role, f"{_description(kept)}{more}")
    winner = taken.best(judgement.role)
    if winner is None:
        return SeriesDecision(series, "", judgement.reason)
    lacking = (
        mine.reason_if_worse
        for mine, theirs in zip(merits[id(kept)], merits[id(winner)], strict=True)
        if mine.value != theirs.value
    )
    reason = next(lacking, "this one is as good and comes after it by UID, echo time and first image")
    return SeriesDecision(series, "", f"another {judgement.role} series is taken: {reason}")


def _description(series: SeriesHeader) -> str:
    tags = series.contrast
    stated = (("TE", positive_or_none(tags.echo_time_ms)), ("TR", positive_or_none(tags.repetition_time_ms)))
    times = "".join(f", {name} {value:.0f} ms" for name, value in stated if value is not None)
    return f"{len(series.frames)} slices, {slice_poses(series)[0].column_spacing:.2f} mm pixels{times}"


def _no_sagittal(study: StudyHeader, judged: _Judged, axial: SeriesHeader | None) -> Problem:
    """Why the study cannot be graded: what is missing, and how far the series that came nearest got."""
    others = [(place, item) for place, (_, item) in enumerate(judged, start=1) if not _serves_as_axial(item)]
    if not judged:
        reason = "it has no series of images"
    elif axial is not None:
        reason = "there is an axial T2 but no sagittal T2, on which Kang's grade is defined"
    elif len(judged) == 1:
        reason = f"the only series is not a sagittal T2 ({judged[0][1].reason})"
    else:
        reason = f"none of {len(judged)} series is a sagittal T2"
    if len(judged) > 1 and others:
        place, nearest = max(others, key=lambda item: (item[1].checks_passed, -item[0]))
        reason += f" (the nearest, series {place}: {nearest.reason})"
    reason = f"cannot grade: {reason}."
    return Problem(study.path, Stage.CHOOSE, reason, _ADVICE, study.study_uid, of_study=True)


def _serves_as_axial(judgement: Eligibility) -> bool:
    return judgement.role == AXIAL_ROLE or judgement.is_pack


def _warnings(sagittal: SeriesHeader, axial: SeriesHeader | None, same: bool) -> tuple[str, ...]:
    both = [series for series in (sagittal, axial) if series is not None]
    warnings = (
        (axial is None, "no_axial_series"),
        (axial is not None and not same, "axial_unmatched"),
        (any(names_other_region(series) for series in both), "body_part_not_cervical"),
        (any(after_contrast_agent(series) for series in both), "contrast_agent"),
        (any(is_fat_suppressed(series) for series in both), "fat_suppressed"),
        (any(slice_step(series) < _THIN for series in both), "thin_slices"),
        (any(series.lossy for series in both), "lossy_compression"),
    )
    return tuple(name for holds, name in warnings if holds)
