"""results.parquet holds the rows of results.csv, with types, one row group at a time."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import stand_in

from stenosis_trt.engine.records import Cell
from stenosis_trt.engine.reports import parquet
from stenosis_trt.engine.runs.table_files import CsvFormat, CsvTable
from stenosis_trt.engine.runs.tables import RESULT_COLUMNS, result_rows


def test_every_column_of_results_csv_has_a_type_and_a_description() -> None:
    schema = parquet.parquet_schema()
    assert tuple(schema.names) == RESULT_COLUMNS
    assert all(field.metadata[b"description"] for field in schema)
    assert schema.field("kang_grade").type == pyarrow.int8()
    assert schema.field("warnings").type == pyarrow.list_(pyarrow.string())


def test_the_values_are_those_of_the_csv_and_what_is_missing_is_null(tmp_path: Path) -> None:
    result = stand_in.result("1.2", patient_id="")
    path = tmp_path / "results.parquet"
    parquet.compose(path, result_rows(7, result))
    table = pyarrow.parquet.read_table(path)
    assert table.schema.equals(parquet.parquet_schema())
    text = io.StringIO()
    CsvTable(text, RESULT_COLUMNS, CsvFormat()).add(result_rows(7, result))
    told = list(csv.DictReader(io.StringIO(text.getvalue())))
    found = table.to_pylist()
    assert len(found) == len(told) == 6
    for row, cells in zip(found, told, strict=True):
        assert row["warnings"] == cells.pop("warnings").split(";")
        for name, cell in cells.items():
            assert cell == ("" if row[name] is None else str(row[name])), name
    assert found[0]["kang_grade"] == 2
    assert found[1]["kang_grade"] is None
    assert found[0]["patient_id"] is None


def test_rows_with_none_and_rows_with_empty_text_are_the_same(tmp_path: Path) -> None:
    result = stand_in.result("1.2")
    parquet.compose(tmp_path / "none", ({"study_number": 1, **row} for row in result.rows()))
    parquet.compose(tmp_path / "empty", result_rows(1, result))
    one, other = (pyarrow.parquet.read_table(tmp_path / name) for name in ("none", "empty"))
    assert one.equals(other)


def test_a_level_without_warnings_has_an_empty_list(tmp_path: Path) -> None:
    parquet.compose(tmp_path / "file", result_rows(1, replace(stand_in.result("1.2"), warnings=())))
    assert pyarrow.parquet.read_table(tmp_path / "file").to_pylist()[0]["warnings"] == []


def test_rows_are_read_one_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 5)
    rows = [row for number in range(1, 4) for row in result_rows(number, stand_in.result("1.2"))]
    parquet.compose(tmp_path / "file", iter(rows))
    file = pyarrow.parquet.ParquetFile(tmp_path / "file")
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [5, 5, 5, 3]
    assert file.read().column("study_number").to_pylist() == [1] * 6 + [2] * 6 + [3] * 6


def test_no_row_gives_a_valid_file_without_rows(tmp_path: Path) -> None:
    def nothing() -> Iterator[dict[str, Cell]]:
        yield from ()

    parquet.compose(tmp_path / "file", nothing())
    table = pyarrow.parquet.read_table(tmp_path / "file")
    assert (table.num_rows, tuple(table.schema.names)) == (0, RESULT_COLUMNS)


def test_a_value_of_another_type_is_not_written_as_something_else(tmp_path: Path) -> None:
    (row, *_) = result_rows(1, stand_in.result("1.2"))
    with pytest.raises((pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, TypeError)):
        parquet.compose(tmp_path / "file", [{**row, "kang_grade": "two"}])


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from stenosis_trt.engine.errors import StenosisError\n"
        "from stenosis_trt.engine.reports.parquet import compose\n"
        "try:\n"
        "    compose(Path(sys.argv[1]), [])\n"
        "except StenosisError as error:\n"
        "    print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines() == [
        "Parquet needs pyarrow, which is not installed. pip install 'stenosis-trt[report]'"
    ]
    assert not (tmp_path / "file").exists()
