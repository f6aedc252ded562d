"""CSV tables for programs and for spreadsheets."""

from __future__ import annotations

import csv
import io
import locale

import pytest

from stenosis_trt.engine.runs.table_files import CsvFormat, CsvTable, parse_decimal_mark

COLUMNS = ("text", "ratio", "grade")


def _written(form: CsvFormat, *rows: tuple[str, float | str, int | str]) -> str:
    stream = io.StringIO(newline="")
    CsvTable(stream, COLUMNS, form).add(dict(zip(COLUMNS, row, strict=True)) for row in rows)
    return stream.getvalue()


def test_programs_get_commas_points_and_no_mark() -> None:
    assert _written(CsvFormat(), ("=1;a", -0.5, 2)) == "text,ratio,grade\n=1;a,-0.5,2\n"


def test_a_spreadsheet_with_a_decimal_comma_reads_back_what_was_written() -> None:
    text = _written(CsvFormat(","), ("a;b", -0.5, 2), ("c", "", ""))
    assert text.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=";"))
    assert rows == [{"text": "a;b", "ratio": "-0,5", "grade": "2"}, {"text": "c", "ratio": "", "grade": ""}]


def test_a_spreadsheet_with_a_decimal_point_gets_commas_between_cells() -> None:
    assert _written(CsvFormat("."), ("a", 0.5, 2)) == "\ufefftext,ratio,grade\r\na,0.5,2\r\n"


def test_text_is_no_formula_and_a_negative_number_stays_a_number() -> None:
    assert _written(CsvFormat("."), ("=1+1", -0.5, -1)).splitlines()[1] == "'=1+1,-0.5,-1"


def test_the_decimal_mark_is_named_or_the_locales(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (parse_decimal_mark("comma"), parse_decimal_mark("point")) == (",", ".")
    before = locale.setlocale(locale.LC_NUMERIC)
    monkeypatch.setenv("LC_ALL", "C")
    assert parse_decimal_mark("locale") == "."
    monkeypatch.setattr(locale, "localeconv", lambda: {"decimal_point": ","})
    assert parse_decimal_mark("locale") == ","
    assert locale.setlocale(locale.LC_NUMERIC) == before


def test_a_locale_that_is_not_installed_is_named_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    with pytest.raises(ValueError, match=r"not installed.*comma or point"):
        parse_decimal_mark("locale")


def test_an_unknown_mark_is_refused() -> None:
    with pytest.raises(ValueError, match=r"point, comma or locale"):
        parse_decimal_mark("semicolon")
