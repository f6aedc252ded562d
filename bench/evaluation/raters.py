"""What the model, the truth and each reader say of each level, read from their tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.bench.evaluation.csv_tables import CsvFile, CsvRow, read_csv
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.runs.output_folder import RESULTS_CSV
from stenosis_trt.engine.support.safe_text import escape_controls

MEASURES = ("compression_ratio", "ap_mm", "transverse_mm")
"""Columns of measurements of the cord."""
MODEL, TRUTH = "model", "truth"
"""Names of the two raters that are not readers."""

_KEYS = ("study_uid", "level", "kang_grade")
_PROBABILITIES = ("p0", "p1", "p2", "p3")
_NO_GRADE = ("reject", "artefact")
"""Decisions of review.csv with which a level counts as not graded."""
LevelKey = tuple[str, str]
"""Study Instance UID and level."""


@dataclass(frozen=True)
class LevelReading:
    """One level as one rater sees it; None for what was not given.

    Attributes:
        grade: Kang grade, 0 to 3. measures: values of `MEASURES`, in their order.
        p_grade_2_or_3: the model's probability of grade 2 or 3.
    """

    grade: int | None
    measures: tuple[float | None, float | None, float | None]
    p_grade_2_or_3: float | None = None


@dataclass(frozen=True)
class Rater:
    """All levels of one table.

    Attributes:
        name: `model`, `truth`, or the name of a reader's file without its suffix.
        levels: readings by study and level. patients: PatientID by study, where the table has it.
        folds: fold by study, where the table has it.
        unblinded: number of levels graded with the model's grade in sight, by the column `blinded` of
            review.csv.
    """

    name: str
    levels: dict[LevelKey, LevelReading]
    patients: dict[str, str]
    folds: dict[str, str]
    unblinded: int = 0

    @property
    def studies(self) -> set[str]:
        """Study Instance UIDs of the table."""
        return {study for study, _ in self.levels}


def read_results(path: Path) -> Rater:
    """Read a folder of `grade`, or its results.csv.

    Raises:
        InputError: there are no results, or they are of another version or damaged.
        OSError: the file cannot be read.
    """
    if path.is_dir():
        if not (path / RESULTS_CSV).is_file():
            raise InputError(f"The folder {escape_controls(path.name)} has no {RESULTS_CSV}.", _GIVE_RESULTS)
        path = path / RESULTS_CSV
    table = read_csv(path)
    table.require(
        (*_KEYS, *_PROBABILITIES, *MEASURES), "Give the results of this version: grade the studies again."
    )
    return _rater(MODEL, table, with_probabilities=True)


_GIVE_RESULTS = "Give the folder of stenosis-trt grade."


def read_truth(path: Path) -> Rater:
    """Read the table of the truth; see `read_reader` for its columns. It may have a column `fold`.

    Raises:
        InputError: the table lacks a column, repeats a level, or has a value that is none.
        OSError: the file cannot be read.
    """
    return _rater(TRUTH, _graded_table(path))


def read_readers(paths: Sequence[Path]) -> tuple[Rater, ...]:
    """Read the tables of readers: columns study_uid, level, kang_grade, and any of `MEASURES` and patient_id.

    The `review.csv` of the HTML report is one too: a level that was rejected, or called an artefact, has no
    grade.

    Raises:
        InputError: see `read_truth`; or two files have the same name.
        OSError: a file cannot be read.
    """
    names = [escape_controls(path.stem) for path in paths]
    repeated = [name for name in names if names.count(name) > 1 or name in (MODEL, TRUTH)]
    if repeated:
        raise InputError(
            f"A reader cannot be called {repeated[0]}: the name is taken.",
            "Give each reader's file a name of its own.",
        )
    return tuple(_rater(name, _graded_table(path)) for name, path in zip(names, paths, strict=True))


def _graded_table(path: Path) -> CsvFile:
    table = read_csv(path)
    table.require(_KEYS, "Give a table with the columns study_uid, level and kang_grade.")
    return table


def _rater(name: str, table: CsvFile, with_probabilities: bool = False) -> Rater:
    levels: dict[LevelKey, LevelReading] = {}
    lines: dict[LevelKey, int] = {}
    patients: dict[str, str] = {}
    folds: dict[str, str] = {}
    for row in table.rows:
        study = row.cells["study_uid"]
        if not study:
            raise InputError(
                f"{table.name}, line {row.line}: study_uid is empty.", "Give the Study Instance UID."
            )
        key = (study, table.level(row))
        if key in levels:
            raise InputError(
                f"{table.name}, lines {lines[key]} and {row.line} are of the same study and level.",
                "Leave one row for each level.",
            )
        lines[key] = row.line
        levels[key] = _reading(table, row, with_probabilities)
        for column, known in (("patient_id", patients), ("fold", folds)):
            _note(table, row, column, known)
    seen = sum(row.cells.get("blinded", "").lower() == "no" for row in table.rows)
    return Rater(name, levels, patients, folds, unblinded=seen)


def _reading(table: CsvFile, row: CsvRow, with_probabilities: bool) -> LevelReading:
    grade = table.grade(row)
    if row.cells.get("decision", "").lower() in _NO_GRADE:
        grade = None
    ratio, ap, transverse = (
        table.number(row, name, 0.0, math.inf if name.endswith("_mm") else 10.0) for name in MEASURES
    )
    probability = None
    if with_probabilities:
        parts = [table.number(row, column, 0.0, 1.0) for column in _PROBABILITIES]
        if None not in parts:
            probability = float((parts[2] or 0.0) + (parts[3] or 0.0))
    return LevelReading(grade, (ratio, ap, transverse), probability)


def _note(table: CsvFile, row: CsvRow, column: str, known: dict[str, str]) -> None:
    """Keep the value of a column that all rows of a study share."""
    value = row.cells.get(column, "")
    if value and known.setdefault(row.cells["study_uid"], value) != value:
        raise InputError(
            f"{table.name}, line {row.line}: the study has another {column} in an earlier row.",
            "Give all rows of a study the same one.",
        )
