"""The summary that `grade` prints: studies by worst grade, frequent warnings, where the results are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stenosis_trt.engine.reports.warning_meanings import WARNING_MEANINGS

if TYPE_CHECKING:
    from stenosis_trt.engine.runs.batch import RunSummary

_MOST_FREQUENT = 6


def summary_lines(run: RunSummary) -> Iterator[str]:
    """Yield the summary of a run line by line."""
    worst = run.worst_grades
    if worst:
        yield "Studies by worst grade:"
        for grade, studies in sorted(worst.items(), key=lambda item: 1 if item[0] is None else -item[0]):
            yield f"  {'no level graded' if grade is None else f'grade {grade}':24} {studies:6}"
    if run.warnings:
        # Equally frequent warnings are in alphabetical order, so that the output is reproducible.
        ranked = sorted(run.warnings.items(), key=lambda item: (-item[1], item[0]))
        yield "Most frequent warnings, by studies:"
        for warning, studies in ranked[:_MOST_FREQUENT]:
            yield f"  {warning:24} {studies:6}  {WARNING_MEANINGS.get(warning, '')}".rstrip()
        if len(ranked) > _MOST_FREQUENT:
            yield f"  and {len(ranked) - _MOST_FREQUENT} more; see studies.csv and docs/results.md"
    yield _totals(run)
    yield f"Results: {run.display_path}"


def _totals(run: RunSummary) -> str:
    parts = [f"{run.graded} of {run.studies} studies graded"] if run.studies else ["No study was found"]
    if run.skipped:
        parts.append(f"{run.skipped} done before")
    if run.failed:
        parts.append(f"{run.failed} could not be graded")
    if run.failed_reports:
        parts.append(f"{run.failed_reports} lack a report")
    if run.problems:
        problems = "1 problem" if run.problems == 1 else f"{run.problems} problems"
        parts.append(f"{problems} in errors.csv")
    return f"{', '.join(parts)}."
