"""Selection of the sagittal and the axial T2 series of a study, with a reason for every other series.

`eligibility` decides which roles a series may take; the criteria of `ranking` order the candidates for a
role. The first criterion on which two candidates differ decides, and is the reason reported for the loser.
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
    DEPTH_BELOW_HEAD_MM,
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

_THIN_SLICE_MM = 2.0
"""mm: the models were trained on slices of 3 to 4 mm, which have more partial volume."""

SEND_SAGITTAL = "Send the sagittal T2 series of the cervical spine"
_ADVICE = f"{SEND_SAGITTAL}; `stenosis-trt inspect` shows each series' reason."


@dataclass(frozen=True)
class SeriesDecision:
    """Decision on one series: its role, or "" and the reason why it has none."""

    series: SeriesHeader
    role: str
    reason: str


@dataclass(frozen=True)
class SeriesSelection:
    """The series that a study is graded from.

    Attributes:
        study: header of the study.
        sagittal: the sagittal series, or None if the study cannot be graded; then `problem` says why.
        axial: the best axial series, if there is one.
        same_frame_of_reference: True if axial slices can be matched to sagittal levels.
        decisions: one for each series, in the order of the study.
        problem: why the study cannot be graded, or None.
        warnings: those of the study, followed by those of the selection.
        axial_packs: series joined to `axial`, which show other discs.
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
        return next(k for k, decision in enumerate(self.decisions) if decision.role == SAGITTAL_ROLE)


def select_series(study: StudyHeader, excluded: Collection[int] = ()) -> SeriesSelection:
    """Select the sagittal and the axial T2 series of a study.

    Args:
        study: header of the study.
        excluded: indices into `study.series` of sagittal series that could not be graded.
    """
    checked = [
        (series, _excluded(check_series(series)) if place in excluded else check_series(series))
        for place, series in enumerate(study.series)
    ]
    sagittals, axials = _series_with_role(checked, SAGITTAL_ROLE), _axial_series(checked)
    criteria = {id(series): sagittal_criteria(series, sagittals, axials) for series in sagittals}
    sagittal = next(iter(_ranked(sagittals, criteria)), None)
    if sagittal is not None:
        checked = [(series, _require_neck(series, eligibility, sagittal)) for series, eligibility in checked]
        axials = _axial_series(checked)
    criteria |= {id(series): axial_criteria(series, axials, sagittal) for series in axials}
    axial, packs = _with_packs(_ranked(axials, criteria), _series_with_role(checked, AXIAL_ROLE), sagittal)
    selected = _Selected(sagittal, axial, packs)
    decisions = tuple(_decision(place, checked, selected, criteria) for place in range(len(checked)))
    if sagittal is None:
        return SeriesSelection(
            study, None, axial, False, decisions, _no_sagittal_problem(study, checked, axial), study.warnings
        )
    same = axial is not None and same_frame_of_reference(sagittal, axial)
    warnings = (*study.warnings, *_warnings(sagittal, axial, same))
    if axial is None and any(map(_is_mixed_axial, study.series)):
        warnings = (*warnings, "axial_slices_mixed")
    if any(decision.role and not selected.holds(decision.series) for decision in decisions):
        warnings = (*warnings, "slices_left_out")
    return SeriesSelection(study, sagittal, axial, same, decisions, None, warnings, packs)


def _is_mixed_axial(series: SeriesHeader) -> bool:
    """Return True if a series is axial but its slices are not one stack."""
    return bool(series.defect) and slice_poses(series)[0].orientation == "axial"


def _excluded(eligibility: Eligibility) -> Eligibility:
    return replace(eligibility, role="", reason="it was tried and could not be graded")


@dataclass(frozen=True)
class _Selected:
    """The selected series, without their slices in other planes."""

    sagittal: SeriesHeader | None
    axial: SeriesHeader | None
    packs: tuple[SeriesHeader, ...]

    def holds(self, series: SeriesHeader) -> bool:
        return any(series is item for item in (self.sagittal, self.axial, *self.packs))

    def best(self, role: str) -> SeriesHeader | None:
        return {SAGITTAL_ROLE: self.sagittal, AXIAL_ROLE: self.axial}.get(role)


_CheckedSeries = Sequence[tuple[SeriesHeader, Eligibility]]
"""The series of a study with their eligibility."""


def _series_with_role(checked: _CheckedSeries, role: str) -> list[SeriesHeader]:
    """Return the series eligible for a role, without slices in other planes."""
    return [eligibility.series for _, eligibility in checked if eligibility.role == role]


def _axial_series(checked: _CheckedSeries) -> list[SeriesHeader]:
    """Return the axial series and the packs that can be joined to one."""
    return [eligibility.series for _, eligibility in checked if _serves_as_axial(eligibility)]


def _ranked(
    candidates: Sequence[SeriesHeader], criteria: dict[int, list[RankingCriterion]]
) -> list[SeriesHeader]:
    """Return the candidates, the best first; the result does not depend on their order."""
    return sorted(
        candidates,
        key=lambda item: (tuple(-criterion.value for criterion in criteria[id(item)]), tie_breaker(item)),
    )


def _with_packs(
    ranked: Sequence[SeriesHeader], whole: Sequence[SeriesHeader], sagittal: SeriesHeader | None
) -> tuple[SeriesHeader | None, tuple[SeriesHeader, ...]]:
    """Return the best axial series and the packs joined to it.

    Args:
        ranked: candidates, the best first.
        whole: candidates with enough slices by themselves; the best of them comes first. If there is none,
            packs are joined if they have enough slices together.
        sagittal: the selected sagittal series.
    """
    first = next((item for item in ranked if any(item is other for other in whole)), None)
    best = first or next(iter(ranked), None)
    if best is None or sagittal is None:
        return first, ()
    packs = select_axial_packs(best, [item for item in ranked if item is not best], sagittal)
    if first is None and sum(len(item.frames) for item in (best, *packs)) < MINIMUM_SLICES:
        return None, ()
    return best, packs


def _require_neck(series: SeriesHeader, eligibility: Eligibility, sagittal: SeriesHeader) -> Eligibility:
    """Exclude an axial series outside the neck: a whole-spine study has one for each region."""
    if (
        _serves_as_axial(eligibility)
        and same_frame_of_reference(sagittal, series)
        and not count_slices_within(eligibility.series, sagittal, DEPTH_BELOW_HEAD_MM)
    ):
        reason = (
            f"none of its slices lies within the upper {DEPTH_BELOW_HEAD_MM:.0f} mm of the sagittal series"
        )
        return replace(eligibility, role="", reason=reason, is_pack=False)
    return eligibility


def _decision(
    place: int, checked: _CheckedSeries, selected: _Selected, criteria: dict[int, list[RankingCriterion]]
) -> SeriesDecision:
    series, eligibility = checked[place]
    kept = eligibility.series
    if selected.holds(kept):
        role = SAGITTAL_ROLE if kept is selected.sagittal else AXIAL_ROLE
        left_out = len(series.frames) - len(kept.frames)
        plural = "s" if left_out > 1 else ""
        more = f", {left_out} slice{plural} in another plane left out" if left_out else ""
        if any(kept is pack for pack in selected.packs):
            best = next(k for k, (_, other) in enumerate(checked, start=1) if other.series is selected.axial)
            more += f", joined to series {best}"
        return SeriesDecision(series, role, f"{_description(kept)}{more}")
    winner = selected.best(eligibility.role)
    if winner is None:
        return SeriesDecision(series, "", eligibility.reason)
    reasons = (
        mine.reason_if_worse
        for mine, theirs in zip(criteria[id(kept)], criteria[id(winner)], strict=True)
        if mine.value != theirs.value
    )
    reason = next(
        reasons, "this one is equal in all criteria and sorts after it by UID, echo time and first image"
    )
    return SeriesDecision(series, "", f"another {eligibility.role} series is selected: {reason}")


def _description(series: SeriesHeader) -> str:
    tags = series.contrast
    stated = (("TE", positive_or_none(tags.echo_time_ms)), ("TR", positive_or_none(tags.repetition_time_ms)))
    times = "".join(f", {name} {value:.0f} ms" for name, value in stated if value is not None)
    return f"{len(series.frames)} slices, {slice_poses(series)[0].column_spacing:.2f} mm pixels{times}"


def _no_sagittal_problem(study: StudyHeader, checked: _CheckedSeries, axial: SeriesHeader | None) -> Problem:
    """Return the problem of a study without a sagittal T2: what is missing, and the nearest series."""
    others = [(place, item) for place, (_, item) in enumerate(checked, start=1) if not _serves_as_axial(item)]
    if not checked:
        reason = "it has no series of images"
    elif axial is not None:
        reason = "there is an axial T2 but no sagittal T2, on which Kang's grade is defined"
    elif len(checked) == 1:
        reason = f"the only series is not a sagittal T2 ({checked[0][1].reason})"
    else:
        reason = f"none of {len(checked)} series is a sagittal T2"
    if len(checked) > 1 and others:
        place, nearest = max(others, key=lambda item: (item[1].checks_passed, -item[0]))
        reason += f" (the nearest, series {place}: {nearest.reason})"
    reason = f"cannot grade: {reason}."
    return Problem(study.path, Stage.CHOOSE, reason, _ADVICE, study.study_uid, of_study=True)


def _serves_as_axial(eligibility: Eligibility) -> bool:
    return eligibility.role == AXIAL_ROLE or eligibility.is_pack


def _warnings(sagittal: SeriesHeader, axial: SeriesHeader | None, same: bool) -> tuple[str, ...]:
    both = [series for series in (sagittal, axial) if series is not None]
    warnings = (
        (axial is None, "no_axial_series"),
        (axial is not None and not same, "axial_unmatched"),
        (any(names_other_region(series) for series in both), "body_part_not_cervical"),
        (any(after_contrast_agent(series) for series in both), "contrast_agent"),
        (any(is_fat_suppressed(series) for series in both), "fat_suppressed"),
        (any(slice_step(series) < _THIN_SLICE_MM for series in both), "thin_slices"),
        (any(series.lossy for series in both), "lossy_compression"),
    )
    return tuple(name for holds, name in warnings if holds)
