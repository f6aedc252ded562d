"""Compare two benchmark records: what moved beyond the noise of the runs.

A figure moved if three things hold:

- the 95 % intervals of the two runs are disjoint;
- the p-value of the difference is below 0.05 after Holm's correction over all figures that are compared. The
  standard error of each value is the half of its interval that faces the other value, divided by 1.96;
- the change is at least the minimum effect, which covers what differs between two runs of one build and no
  interval of a single run can show: memory layout, clocks, temperature. Where other processes disturbed a
  run, the minimum is also what they explain; see `contention`.

A measured figure without an interval is not judged. A computed figure has no noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stenosis_trt.bench.record.contention import Contention, contention_by_section
from stenosis_trt.bench.record.differences import Difference, other_machine, record_differences
from stenosis_trt.bench.record.record import BenchRecord, Figure
from stenosis_trt.bench.statistics.multiple_comparisons import holm

SIGNIFICANCE = 0.05
MINIMUM_EFFECT = 0.05
"""Smallest change that is reported: 5 %."""
_NORMAL_975 = 1.959964
"""97.5 % quantile of the normal distribution."""

Verdict = Literal["worse", "better", "changed", "same", "contention", "not judged"]
"""Outcome of one figure. "changed": it moved, and neither direction is better. "contention": it moved by more
than its intervals and the minimum effect, but by no more than other processes explain. "not judged": there is
no interval, or the unit differs."""


@dataclass(frozen=True)
class Change:
    """One figure in both records.

    Attributes:
        before, after: the figure in the first and second record.
        verdict: see `Verdict`.
        effect: relative change, ≥ 0: the larger value divided by the smaller one, minus 1; infinite if one is
            zero or the signs differ.
        needed: the effect from which this figure counts as moved.
        p_value: of the difference, after Holm's correction; None if it is not judged or computed.
    """

    before: Figure
    after: Figure
    verdict: Verdict
    effect: float
    needed: float
    p_value: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What differs between two records.

    Attributes:
        differences: of machine, versions, product, studies, settings and verdicts of sections.
        other_machine: the runs are of different machines.
        changes: figures of both records, in the order of the second.
        only_before, only_after: names of figures of one record, with the reason that the other gives, or "".
        minimum_effect: smallest change that counts.
    """

    differences: tuple[Difference, ...]
    other_machine: bool
    changes: tuple[Change, ...]
    only_before: tuple[tuple[str, str], ...]
    only_after: tuple[tuple[str, str], ...]
    minimum_effect: float

    def having(self, *verdicts: Verdict) -> tuple[Change, ...]:
        """Return the changes of these verdicts, the largest first."""
        found = [change for change in self.changes if change.verdict in verdicts]
        return tuple(sorted(found, key=lambda change: -change.effect))


def compare_records(
    before: BenchRecord, after: BenchRecord, minimum_effect: float = MINIMUM_EFFECT
) -> Comparison:
    """Compare two records.

    Args:
        before, after: the records; changes are from the first to the second.
        minimum_effect: smallest relative change that counts, such as 0.05.
    """
    old, new = before.figures(), after.figures()
    common = [name for name in new if name in old]
    p_values = [_p_value(old[name], new[name]) for name in common]
    contention = contention_by_section((before, after))
    sections = {figure.name: section.name for section in after.sections for figure in section.figures}
    changes = tuple(
        _change(old[name], new[name], adjusted, minimum_effect, contention.get(sections[name], Contention()))
        for name, adjusted in zip(common, holm(p_values), strict=True)
    )
    return Comparison(
        record_differences(before, after),
        other_machine(before, after),
        changes,
        tuple(_missing(before, after)),
        tuple(_missing(after, before)),
        minimum_effect,
    )


def _change(
    old: Figure, new: Figure, p_value: float | None, minimum_effect: float, contention: Contention
) -> Change:
    effect = _effect(old.value, new.value)
    if old.unit != new.unit or old.source != new.source or old.better != new.better:
        return Change(old, new, "not judged", effect, math.inf)
    if new.source == "computed":
        moved = effect >= minimum_effect
        return Change(old, new, _moved(old, new) if moved else "same", effect, minimum_effect)
    if p_value is None:
        return Change(old, new, "not judged", effect, math.inf)
    needed = max(minimum_effect, contention.explained(old, new))
    if not (_disjoint(old, new) and p_value < SIGNIFICANCE and effect >= minimum_effect):
        verdict: Verdict = "same"
    elif effect < needed:
        verdict = "contention"
    else:
        verdict = _moved(old, new)
    return Change(old, new, verdict, effect, needed, p_value)


def _moved(old: Figure, new: Figure) -> Verdict:
    if new.better == "neither":
        return "changed"
    return "better" if (new.value > old.value) == (new.better == "higher") else "worse"


def _effect(old: float, new: float) -> float:
    if old == new:
        return 0.0
    if old * new <= 0:
        return math.inf
    ratio = new / old
    return max(ratio, 1 / ratio) - 1


def _disjoint(old: Figure, new: Figure) -> bool:
    assert old.low is not None
    assert old.high is not None
    assert new.low is not None
    assert new.high is not None
    return old.high < new.low or new.high < old.low


def _p_value(old: Figure, new: Figure) -> float | None:
    """Two-sided p-value of the difference, by the normal distribution; None if a figure has no interval."""
    if "computed" in (old.source, new.source) or old.unit != new.unit or old.better != new.better:
        return None
    if None in (old.low, old.high, new.low, new.high):
        return None
    difference = new.value - old.value
    if difference == 0:
        return 1.0
    error = math.hypot(_error(old, difference > 0), _error(new, difference < 0))
    return math.erfc(abs(difference) / error / math.sqrt(2)) if error else 0.0


def _error(figure: Figure, upper: bool) -> float:
    """Standard error of a value, from the upper or the lower half of its interval.

    A percentile may be an end of its own interval: then from the other half.
    """
    assert figure.low is not None
    assert figure.high is not None
    above, below = abs(figure.high - figure.value), abs(figure.value - figure.low)
    return ((above or below) if upper else (below or above)) / _NORMAL_975


def _missing(has: BenchRecord, lacks: BenchRecord) -> Iterator[tuple[str, str]]:
    """Yield the figures of `has` that `lacks` has not, with the reason that it gives."""
    reasons = {item.name: item.reason for section in lacks.sections for item in section.absences}
    failed = {item.name: item.reason for item in lacks.failures}
    measured = {section.name for section in lacks.sections}
    there = lacks.figures()
    for section in has.sections:
        for figure in section.figures:
            if figure.name in there:
                continue
            reason = _longest_prefix(figure.name, reasons) or failed.get(section.name, "")
            if not reason and section.name not in measured:
                reason = f"section {section.name} was not measured"
            yield figure.name, reason


def _longest_prefix(name: str, reasons: dict[str, str]) -> str:
    """Return the reason of the longest name that is `name` or a beginning of it, by dots."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        if (reason := reasons.get(".".join(parts[:count]))) is not None:
            return reason
    return ""
