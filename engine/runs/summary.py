"""The counts of a run, and what `grade` prints of them: studies by worst grade, frequent warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stenosis_trt.engine.reports.warning_meanings import WARNING_MEANINGS

_MOST_FREQUENT = 6


@dataclass(frozen=True)
class RunSummary:
    """Counts of a run.

    Attributes:
        studies: studies found below the paths.
        graded: studies that this run graded.
        skipped: studies that the run it resumes had graded.
        failed: studies that could not be graded.
        lost_files: files that may have held an image and could not be read.
        problems: rows of errors.csv.
        failed_reports: studies of which a report that was asked for could not be made.
        out: the output folder.
        display_path: the output folder as messages name it.
        worst_grades: number of studies by their worst grade; None where no level has a grade.
        warnings: number of graded studies by warning.
    """

    studies: int
    graded: int
    skipped: int
    failed: int
    lost_files: int
    problems: int
    out: Path
    failed_reports: int = 0
    display_path: str = ""
    worst_grades: Mapping[int | None, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if there are studies, all studies and files could be used, and all reports made; 1 otherwise."""
        lacking = self.failed or self.lost_files or self.failed_reports
        return 0 if self.studies and not lacking else 1


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
