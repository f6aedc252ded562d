"""The tables that `inspect` prints: every series, its role, and the reason. No identifier of the patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from rich.table import Column, Table
from rich.text import Text

from stenosis_trt.engine.records import Problem, StudyHeader
from stenosis_trt.engine.runs.path_names import reported_files, study_files
from stenosis_trt.engine.selection.select import SEND_SAGITTAL, SeriesDecision, SeriesSelection
from stenosis_trt.engine.support.safe_text import escape_controls

_COLUMNS = ("series", "plane", "slices", "description", "role", "reason")
_FOLDED = ("description", "reason")
_NO_ROLE = "–"
_LISTED = 3
"""Files with one reason that are named; of more, the first one and their number."""
_LONGEST = 64
"""Characters of a description: what the standard allows it (LO), and what a table has room for."""


def _printable(text: str) -> str:
    """On one line and without control characters, which a terminal would obey."""
    shown = "".join(c if c.isprintable() else " " for c in text[: _LONGEST + 1]).strip()
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _cells(verdict: SeriesDecision) -> tuple[str, ...]:
    frames = verdict.series.frames
    pose = frames[0].pose if frames else None
    return (
        pose.orientation if pose is not None else "",
        str(len(frames)),
        _printable(verdict.series.description),
        verdict.role or _NO_ROLE,
        verdict.reason,
    )


def _rows(choice: SeriesSelection) -> Iterator[tuple[str, ...]]:
    """One row a series, as text."""
    for place, verdict in enumerate(choice.decisions, start=1):
        yield str(place), *_cells(verdict)


def inspection_tables(choices: Iterable[SeriesSelection]) -> Iterator[Table]:
    """Tables for a terminal, one a study under its folder; the series that would be graded stand out.

    Folders and descriptions are put in as plain text: brackets in them are no markup.
    """
    for number, choice in enumerate(choices, start=1):
        warnings = f" ({', '.join(choice.study.warnings)})" if choice.study.warnings else ""
        title = Text(f"Study {number}: {escape_controls(choice.study.path)}{warnings}")
        # Headings and roles are shown whole, however narrow the terminal is; the others are folded.
        columns = (Column(name, no_wrap=name not in _FOLDED, overflow="fold") for name in _COLUMNS)
        table = Table(*columns, title=title, title_justify="left")
        for row in _rows(choice):
            style = "dim" if row[_COLUMNS.index("role")] == _NO_ROLE else "bold"
            table.add_row(*(Text(cell) for cell in row), style=style)
        yield table


def inspection_lines(choices: Iterable[SeriesSelection]) -> Iterator[str]:
    """The same, tab-separated under a heading, for files and pipes; each line names its study."""
    yield "\t".join(("study", *_COLUMNS, "folder", "study_uid", "study_warnings"))
    for number, choice in enumerate(choices, start=1):
        study = choice.study
        for row in _rows(choice):
            told = escape_controls(study.path), study.study_uid, ";".join(study.warnings)
            yield "\t".join((str(number), *row, *told))


def study_lines(choices: Iterable[SeriesSelection]) -> Iterator[str]:
    """Of each study that cannot be graded, or with something to note, why: in the words of errors.csv."""
    for number, choice in enumerate(choices, start=1):
        warnings = ", ".join(choice.warnings)
        if choice.problem is not None:
            more = f" ({warnings})" if warnings else ""
            yield f"Study {number}: {choice.problem.reason} {SEND_SAGITTAL}.{more}"
        elif warnings:
            yield f"Study {number}: can be graded; {warnings}."


def problem_lines(problems: Iterable[Problem]) -> Iterator[str]:
    """Files that cannot be used, by reason, in the words of errors.csv; many with one reason are counted."""
    by_reason: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        by_reason[problem.reason, problem.advice].append(problem)
    for (reason, advice), alike in by_reason.items():
        if len(alike) <= _LISTED:
            yield from (f"{escape_controls(problem.path)}: {reason} {advice}" for problem in alike)
        else:
            yield f"{len(alike)} files, the first {escape_controls(alike[0].path)}: {reason} {advice}"


def file_lines(studies: Iterable[StudyHeader], problems: Iterable[Problem]) -> Iterator[str]:
    """The number of each file in its study, and of each that was reported, under a heading; tab-separated."""
    yield "\t".join(("study", "file", "path"))
    for number, study in enumerate(studies, start=1):
        for place, path in enumerate(study_files(study), start=1):
            yield "\t".join((str(number), str(place), escape_controls(path)))
    for place, path in enumerate(reported_files(problems), start=1):
        yield "\t".join(("", str(place), escape_controls(path)))
