"""CSV files for programs, and for spreadsheets (`--csv-for-excel`)."""

from __future__ import annotations

import csv
import locale
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from stenosis_trt.engine.support.safe_text import escape_formula

Cell = str | int | float
"""A value of a row; "" where there is none."""
Row = dict[str, Cell]
DECIMAL_MARKS = {"point": ".", "comma": ","}
"""Values of `--csv-for-excel`; a third one is "locale"."""
_BYTE_ORDER_MARK = "\ufeff"
"""Without it Excel reads the file in the code page of the machine, not as UTF-8."""


@dataclass(frozen=True)
class CsvFormat:
    """Format of CSV files.

    Attributes:
        decimal_mark: "." or "," for spreadsheets, None for programs. For programs the file is UTF-8, with
            commas between values and decimal points. For spreadsheets it has a byte order mark, the line ends
            of RFC 4180, semicolons between values if the mark is a comma, and an apostrophe before text that
            would be evaluated as a formula.
    """

    decimal_mark: str | None = None


def parse_decimal_mark(setting: str) -> str:
    """Return the decimal mark for a value of `--csv-for-excel`: "point", "comma" or "locale".

    Raises:
        ValueError: `setting` is none of these, or the locale of the environment is not installed.
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
        # Libraries that parse numbers in this process expect decimal points.
        locale.setlocale(locale.LC_NUMERIC, before)
    return "," if mark == "," else "."


class CsvTable:
    """A CSV file that is written row by row."""

    def __init__(self, stream: TextIO, columns: Sequence[str], csv_format: CsvFormat) -> None:
        self._mark = csv_format.decimal_mark
        if self._mark is None:
            self._rows = csv.DictWriter(stream, columns, lineterminator="\n")
        else:
            stream.write(_BYTE_ORDER_MARK)
            self._rows = csv.DictWriter(stream, columns, delimiter=";" if self._mark == "," else ",")
        self._rows.writeheader()

    def add(self, rows: Iterable[Row]) -> None:
        """Write some rows; their keys are the columns."""
        for row in rows:
            self._rows.writerow({name: self._cell(value) for name, value in row.items()})

    def _cell(self, value: Cell) -> Cell:
        if self._mark is None:
            return value
        if isinstance(value, str):
            return escape_formula(value)
        return str(value).replace(".", self._mark) if isinstance(value, float) else value
