"""The tables results.csv, results.jsonl, errors.csv and studies.csv: columns, rows, and their writer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TextIO

from stenosis_trt.engine.records import LevelResult, Problem, StudyResult
from stenosis_trt.engine.reports import result_columns
from stenosis_trt.engine.runs import table_columns
from stenosis_trt.engine.runs.stored_results import StoredStudy
from stenosis_trt.engine.runs.table_files import CsvFormat, CsvTable, Row
from stenosis_trt.engine.support.safe_text import escape_controls

RESULT_COLUMNS = tuple(result_columns.RESULT_COLUMNS)
ERROR_COLUMNS = tuple(table_columns.ERRORS)
STUDY_COLUMNS = tuple(table_columns.STUDIES)

_GRADES = range(4)


def result_rows(number: int, result: StudyResult) -> Iterator[Row]:
    """Yield one row per level, with the keys RESULT_COLUMNS. A missing value is ""."""
    for row in result.rows():
        yield {"study_number": number, **{key: "" if value is None else value for key, value in row.items()}}


def error_row(problem: Problem, study_number: int | None = None) -> Row:
    """Return the row of a problem, with the keys ERROR_COLUMNS."""
    return {
        "path": escape_controls(problem.path),
        "stage": problem.stage.value,
        "reason": escape_controls(problem.reason),
        "what_to_do": escape_controls(problem.advice),
        "study_uid": problem.study_uid,
        "study_number": _or_empty(study_number),
        "harmless": "yes" if problem.harmless else "no",
        "of_study": "yes" if problem.of_study else "no",
    }


def study_row(number: int, study: StoredStudy, reports: str = "") -> Row:
    """Return the row of a study with or without a result, with the keys STUDY_COLUMNS.

    `reports` is the folder of its reports in the output folder, "" if there is none.
    """
    row = unreached_row(number, study.study_uid)
    row["path"] = study.path
    result = study.result
    if result is None:
        # The last problem is that of the study; those of its files come before it.
        return {**row, "status": "failed", "reason": study.problems[-1].reason}
    grades = [level.grade for level in result.levels]
    worst = worst_level(result)
    return {
        **row,
        "status": "graded",
        "sagittal_series_uid": result.sagittal_series_uid,
        "axial_series_uid": result.axial_series_uid,
        **{f"grade_{grade}": grades.count(grade) for grade in _GRADES},
        "ungraded": grades.count(None),
        "worst_grade": _or_empty(worst.grade if worst else None),
        "worst_level": worst.level if worst else "",
        "warning_count": len(study_warnings(result)),
        "reports": reports,
    }


def unreached_row(number: int, study_uid: str) -> Row:
    """Return the row of a study that the run did not reach, with the keys STUDY_COLUMNS."""
    return {
        **dict.fromkeys(STUDY_COLUMNS, ""),
        "study_number": number,
        "study_uid": study_uid,
        "status": "open",
    }


def worst_level(result: StudyResult) -> LevelResult | None:
    """Return the level with the highest grade, of several the uppermost; None if no level has a grade."""
    graded = [level for level in result.levels if level.grade is not None]
    return max(graded, key=lambda level: level.grade or 0, default=None)


def study_warnings(result: StudyResult) -> list[str]:
    """Return the warnings of the study and of all its levels, each once."""
    return list(
        dict.fromkeys([*result.warnings, *(warning for level in result.levels for warning in level.warnings)])
    )


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value


@dataclass
class TableTotals:
    """Counts of what the tables hold.

    A study is requested if it lies below the paths of the present run. The tables also hold studies that an
    earlier run left in the output folder.

    Attributes:
        graded, failed: requested studies with and without a result.
        problems: rows of errors.csv.
        lost_files: images of requested studies whose pixels could not be read.
        graded_now: requested studies that the present run graded.
        failed_reports: requested studies of which a report that was asked for could not be made.
        worst_grades: number of requested studies by their worst grade; None where no level has a grade.
        warnings: number of requested and graded studies by warning.
    """

    graded: int
    failed: int
    problems: int
    lost_files: int = 0
    graded_now: int = 0
    failed_reports: int = 0
    worst_grades: Counter[int | None] = field(default_factory=Counter, compare=False)
    warnings: Counter[str] = field(default_factory=Counter, compare=False)


class TableWriter:
    """Writes the four tables study by study, and counts their rows in `totals`.

    Args:
        results, lines, errors, studies: streams of results.csv, results.jsonl, errors.csv, studies.csv.
        csv_format: format of the CSV files.
        run: id of the present run, which `TableTotals.graded_now` counts.
    """

    def __init__(
        self,
        results: TextIO,
        lines: TextIO,
        errors: TextIO,
        studies: TextIO,
        *,
        csv_format: CsvFormat,
        run: str,
    ) -> None:
        self._results = CsvTable(results, RESULT_COLUMNS, csv_format)
        self._lines = lines
        self._errors = CsvTable(errors, ERROR_COLUMNS, csv_format)
        self._studies = CsvTable(studies, STUDY_COLUMNS, csv_format)
        self._run = run
        self.totals = TableTotals(graded=0, failed=0, problems=0)

    def add_problem(self, problem: Problem, study_number: int | None) -> None:
        """Write a row of errors.csv; `study_number` is None where the file belongs to no known study."""
        self._errors.add([error_row(problem, study_number)])
        self.totals.problems += 1

    def add_open_study(self, number: int, study_uid: str) -> None:
        """Write the row of a study that the run did not reach."""
        self._studies.add([unreached_row(number, study_uid)])

    def add_study(
        self,
        number: int,
        study: StoredStudy,
        requested: bool,
        reports: str = "",
        report_problems: Sequence[Problem] = (),
    ) -> None:
        """Write all rows of a study: its result, or why there is none, and its problems.

        Args:
            number: number of the study.
            study: the study.
            requested: see `TableTotals`.
            reports: folder of its reports in the output folder; "" if there is none.
            report_problems: reasons of reports that could not be made.
        """
        self._studies.add([study_row(number, study, reports)])
        for problem in (*study.problems, *report_problems):
            self.add_problem(problem, number)
        self.totals.failed_reports += requested and bool(report_problems)
        if study.result is not None:
            self._results.add(result_rows(number, study.result))
            line = {"study_number": number, "study_path": study.path, **asdict(study.result)}
            self._lines.write(json.dumps(line) + "\n")
        if requested:
            self._count(study)

    def _count(self, study: StoredStudy) -> None:
        totals = self.totals
        totals.lost_files += len(study.lost_images)
        if study.result is None:
            totals.failed += 1
            return
        totals.graded += 1
        totals.graded_now += study.run == self._run
        worst = worst_level(study.result)
        totals.worst_grades[worst.grade if worst else None] += 1
        totals.warnings.update(study_warnings(study.result))
