"""Tables of `inspect`: every series with its role and reason, without identifiers of the patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from rich.table import Column, Table
from rich.text import Text

from stenosis_trt.engine.cli.documents import (
    FilesDocument,
    InspectDocument,
    InspectedProblem,
    InspectedSeries,
    InspectedStudy,
    ListedFile,
)
from stenosis_trt.engine.records import Problem, StudyHeader
from stenosis_trt.engine.runs.path_names import reported_files, study_files
from stenosis_trt.engine.selection.select import SEND_SAGITTAL, SeriesDecision, SeriesSelection
from stenosis_trt.engine.support.safe_text import escape_controls

_COLUMNS = ("series", "plane", "slices", "description", "role", "reason")
_FOLDED = ("description", "reason")
_NO_ROLE = "–"
_MAX_LISTED = 3
"""Largest number of files with the same reason that are listed; more are counted."""
_MAX_DESCRIPTION = 64
"""Longest description in characters, as for value representation LO (PS3.5, 6.2)."""


def _printable(text: str) -> str:
    """Return the text on one line, shortened, without control characters that a terminal would interpret."""
    shown = "".join(c if c.isprintable() else " " for c in text[: _MAX_DESCRIPTION + 1]).strip()
    return shown if len(shown) <= _MAX_DESCRIPTION else shown[: _MAX_DESCRIPTION - 1] + "…"


def _cells(decision: SeriesDecision) -> tuple[str, ...]:
    frames = decision.series.frames
    pose = frames[0].pose if frames else None
    return (
        pose.orientation if pose is not None else "",
        str(len(frames)),
        _printable(decision.series.description),
        decision.role or _NO_ROLE,
        decision.reason,
    )


def _rows(selection: SeriesSelection) -> Iterator[tuple[str, ...]]:
    """Yield the cells of one row for each series."""
    for place, decision in enumerate(selection.decisions, start=1):
        yield str(place), *_cells(decision)


def inspection_tables(selections: Iterable[SeriesSelection]) -> Iterator[Table]:
    """Yield one table for each study, titled with its folder; the selected series are bold.

    Folders and descriptions are plain text, not Rich markup.
    """
    for number, selection in enumerate(selections, start=1):
        warnings = f" ({', '.join(selection.study.warnings)})" if selection.study.warnings else ""
        title = Text(f"Study {number}: {escape_controls(selection.study.path)}{warnings}")
        # Headings and roles are shown whole, however narrow the terminal is; the others are folded.
        columns = (Column(name, no_wrap=name not in _FOLDED, overflow="fold") for name in _COLUMNS)
        table = Table(*columns, title=title, title_justify="left")
        for row in _rows(selection):
            style = "dim" if row[_COLUMNS.index("role")] == _NO_ROLE else "bold"
            table.add_row(*(Text(cell) for cell in row), style=style)
        yield table


def inspection_lines(selections: Iterable[SeriesSelection]) -> Iterator[str]:
    """Yield the same rows tab-separated under a heading, for files and pipes."""
    yield "\t".join(("study", *_COLUMNS, "folder", "study_uid", "study_warnings"))
    for number, selection in enumerate(selections, start=1):
        study = selection.study
        for row in _rows(selection):
            told = escape_controls(study.path), study.study_uid, ";".join(study.warnings)
            yield "\t".join((str(number), *row, *told))


def study_lines(selections: Iterable[SeriesSelection]) -> Iterator[str]:
    """Yield a line for each study that cannot be graded or has warnings, worded as in errors.csv."""
    for number, selection in enumerate(selections, start=1):
        warnings = ", ".join(selection.warnings)
        if selection.problem is not None:
            more = f" ({warnings})" if warnings else ""
            yield f"Study {number}: {selection.problem.reason} {SEND_SAGITTAL}.{more}"
        elif warnings:
            yield f"Study {number}: can be graded; {warnings}."


def problem_lines(problems: Iterable[Problem]) -> Iterator[str]:
    """Yield the unusable files by reason, worded as in errors.csv; many with one reason are counted."""
    by_reason: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        by_reason[problem.reason, problem.advice].append(problem)
    for (reason, advice), alike in by_reason.items():
        if len(alike) <= _MAX_LISTED:
            yield from (f"{escape_controls(problem.path)}: {reason} {advice}" for problem in alike)
        else:
            yield f"{len(alike)} files, the first {escape_controls(alike[0].path)}: {reason} {advice}"


def inspect_document(selections: Iterable[SeriesSelection], problems: Iterable[Problem]) -> InspectDocument:
    """Return the rows of `inspection_lines`, and what `study_lines` and `problem_lines` say, as values."""
    return InspectDocument(
        tuple(_inspected(number, selection) for number, selection in enumerate(selections, start=1)),
        tuple(
            InspectedProblem(escape_controls(item.path), item.reason, item.advice, item.harmless)
            for item in problems
        ),
    )


def _inspected(number: int, selection: SeriesSelection) -> InspectedStudy:
    study, problem = selection.study, selection.problem
    series = []
    for place, decision in enumerate(selection.decisions, start=1):
        plane, slices, description, _, reason = _cells(decision)
        series.append(InspectedSeries(place, plane, int(slices), description, decision.role or None, reason))
    return InspectedStudy(
        number,
        escape_controls(study.path),
        study.study_uid,
        problem is None,
        "" if problem is None else problem.reason,
        selection.warnings,
        tuple(series),
    )


def files_document(studies: Iterable[StudyHeader], problems: Iterable[Problem]) -> FilesDocument:
    """Return the rows of `file_lines` as values."""
    of_studies = [
        ListedFile(number, place, escape_controls(path))
        for number, study in enumerate(studies, start=1)
        for place, path in enumerate(study_files(study), start=1)
    ]
    reported = [
        ListedFile(None, place, escape_controls(path))
        for place, path in enumerate(reported_files(problems), start=1)
    ]
    return FilesDocument((*of_studies, *reported))


def file_lines(studies: Iterable[StudyHeader], problems: Iterable[Problem]) -> Iterator[str]:
    """Yield the number of each file in its study and of each reported file, tab-separated under a heading."""
    yield "\t".join(("study", "file", "path"))
    for number, study in enumerate(studies, start=1):
        for place, path in enumerate(study_files(study), start=1):
            yield "\t".join((str(number), str(place), escape_controls(path)))
    for place, path in enumerate(reported_files(problems), start=1):
        yield "\t".join(("", str(place), escape_controls(path)))
