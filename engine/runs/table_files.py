"""CSV tables in the form for programs, and in the one for spreadsheets."""

from __future__ import annotations

import csv
import locale
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from stenosis_trt.engine.runs.tables import Cell, Row
from stenosis_trt.engine.support.safe_text import escape_formula

DECIMAL_MARKS = {"point": ".", "comma": ","}
"""Values of `--csv-for-excel` beside "locale"."""
_BYTE_ORDER_MARK = "\ufeff"
"""Without it Excel takes UTF-8 for the code page of the machine."""


@dataclass(frozen=True)
class CsvFormat:
    """How tables are written.

    Attributes:
        decimal_mark: "." or "," for a spreadsheet: with a byte order mark, separated by semicolons where the
            mark is a comma, lines ended as in RFC 4180, and an apostrophe before text that would be run as a
            formula. None for programs: UTF-8, commas and points.
    """

    decimal_mark: str | None = None


def parse_decimal_mark(setting: str) -> str:
    """The decimal mark for a value of `--csv-for-excel`.

    Raises:
        ValueError: there is no such value, or the locale of the environment is not installed.
    """
    if setting in DECIMAL_MARKS:
        return DECIMAL_MARKS[setting]
    if setting != "locale":
        raise ValueError(
            f"--csv-for-excel has no value {setting!r}. Give {', '.join(DECIMAL_MARKS)} or locale."
        )
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        locale.setlocale(locale.LC_NUMERIC, "")
        mark = str(locale.localeconv()["decimal_point"])
    except locale.Error as error:
        raise ValueError(
            "The locale that the environment names is not installed. Give --csv-for-excel comma or point."
        ) from error
    finally:
        # What reads numbers in this process expects points.
        locale.setlocale(locale.LC_NUMERIC, before)
    return "," if mark == "," else "."


class CsvTable:
    """A table that is written row by row."""

    def __init__(self, stream: TextIO, columns: Sequence[str], form: CsvFormat) -> None:
        self._mark = form.decimal_mark
        if self._mark is None:
            self._rows = csv.DictWriter(stream, columns, lineterminator="\n")
        else:
            stream.write(_BYTE_ORDER_MARK)
            self._rows = csv.DictWriter(stream, columns, delimiter=";" if self._mark == "," else ",")
        self._rows.writeheader()

    def add(self, rows: Iterable[Row]) -> None:
        """Write these rows."""
        for row in rows:
            self._rows.writerow({name: self._cell(value) for name, value in row.items()})

    def _cell(self, value: Cell) -> Cell:
        if self._mark is None:
            return value
        if isinstance(value, str):
            return escape_formula(value)
        return str(value).replace(".", self._mark) if isinstance(value, float) else value
