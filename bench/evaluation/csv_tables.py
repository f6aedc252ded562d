"""CSV tables as programs and spreadsheets write them, and the cells of them as grades and numbers."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.support.safe_text import escape_controls

_SEPARATORS = (";", "\t", ",")
"""Tried in this order: with decimal commas a comma is no separator."""
_MAX_BYTES = 256 * 2**20
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_LEVEL = re.compile(r"C([2-7])[/-]?(C?[3-7]|T1)", re.IGNORECASE)


@dataclass(frozen=True)
class CsvRow:
    """One row: its line number in the file, from 1, and its cells without surrounding spaces."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class CsvFile:
    """A table with a header line.

    Attributes:
        path: the file. columns: names in the header line. rows: those with any content.
        decimal_comma: numbers may have a comma, since it does not separate cells.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]
    decimal_comma: bool

    @property
    def name(self) -> str:
        """File name for messages."""
        return escape_controls(self.path.name)

    def require(self, columns: Sequence[str], advice: str) -> None:
        """Check that the columns are there.

        Raises:
            InputError: one is missing.
        """
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise InputError(f"{self.name} has no column {missing[0]}.", advice)

    def number(self, row: CsvRow, column: str, low: float, high: float) -> float | None:
        """Return the number in a cell; None for an empty cell or a column that is not there.

        Raises:
            InputError: the cell is not a number from `low` to `high`.
        """
        text = row.cells.get(column, "")
        if not text:
            return None
        value = _parse(text, self.decimal_comma)
        if value is None or not low <= value <= high:
            limits = "" if math.isinf(high) else f" from {low:g} to {high:g}"
            raise InputError(
                f"{self.name}, line {row.line}: {column} is not a number{limits}.",
                "Correct the cell, or leave it empty.",
            )
        return value

    def grade(self, row: CsvRow) -> int | None:
        """Return the Kang grade of a row; None for an empty cell.

        Raises:
            InputError: the cell is not 0, 1, 2 or 3.
        """
        text = row.cells.get("kang_grade", "")
        if not text:
            return None
        value = _parse(text, self.decimal_comma)
        if value is None or value not in (0, 1, 2, 3):
            raise InputError(
                f"{self.name}, line {row.line}: kang_grade is not 0, 1, 2 or 3.",
                "Correct the grade, or leave the cell empty where none was given.",
            )
        return int(value)

    def level(self, row: CsvRow) -> str:
        """Return the disc level of a row, as in results.csv; C5-6, C5/C6 and C5/6 are the same.

        Raises:
            InputError: the cell is no level from C2/3 to C7/T1.
        """
        match = _LEVEL.fullmatch(row.cells["level"])
        found = f"C{match[1]}/{match[2].upper().removeprefix('C')}" if match else ""
        if found not in LEVELS:
            raise InputError(
                f"{self.name}, line {row.line}: level is none of {', '.join(LEVELS)}.",
                "Name levels as results.csv does.",
            )
        return found


def read_csv(path: Path) -> CsvFile:
    """Read a table. Cells are separated by commas, semicolons or tabs; the first line that has one decides.

    Raises:
        InputError: the file is empty, not a CSV file in UTF-8, or a row does not fit its header.
        OSError: the file cannot be read.
    """
    name = escape_controls(path.name)
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{name} is larger than {_MAX_BYTES // 2**20} MiB.", "Give a table of grades.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{name} is not text in UTF-8.", 'Save it as "CSV UTF-8".') from None
    heading = next((line for line in text.splitlines() if line.strip()), "")
    if not heading:
        raise _empty(name)
    separator = next((mark for mark in _SEPARATORS if mark in heading), ",")
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        numbered = [(lines.line_num, [cell.strip() for cell in cells]) for cells in lines]
    except csv.Error as error:
        raise InputError(f"{name} is not a CSV file ({error}).", "Save it as CSV.") from None
    columns, rows = _split(name, numbered)
    return CsvFile(path, columns, rows, decimal_comma=separator != ",")


def _split(name: str, lines: Sequence[tuple[int, list[str]]]) -> tuple[tuple[str, ...], tuple[CsvRow, ...]]:
    """Header and rows of a table; blank lines are left out."""
    filled = [(line, cells) for line, cells in lines if any(cells)]
    if not filled:
        raise _empty(name)
    columns = tuple(filled[0][1])
    repeated = [column for column in columns if column and columns.count(column) > 1]
    if repeated:
        raise InputError(
            f"{name} has the column {escape_controls(repeated[0])} twice.", "Name each one once."
        )
    rows = []
    for line, cells in filled[1:]:
        if any(cells[len(columns) :]):
            raise InputError(
                f"{name}, line {line}: there are more cells than columns in the header line.",
                "Put text with a separator into quotation marks.",
            )
        padded = cells + [""] * (len(columns) - len(cells))
        rows.append(CsvRow(line, dict(zip(columns, padded, strict=False))))
    if not rows:
        raise InputError(f"{name} has no rows below its header line.", "Give a row for each level.")
    return columns, tuple(rows)


def _empty(name: str) -> InputError:
    return InputError(f"{name} is empty.", "Give a table with a header line and a row for each level.")


def _parse(text: str, decimal_comma: bool) -> float | None:
    """Finite number of a cell, or None."""
    plain = text.replace(",", ".") if decimal_comma else text
    value = float(plain) if _NUMBER.fullmatch(plain) else math.inf
    return value if math.isfinite(value) else None
