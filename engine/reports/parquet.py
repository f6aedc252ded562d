"""The format "parquet": results.parquet, the rows of results.csv with types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stenosis_trt.engine.errors import StenosisError
from stenosis_trt.engine.records import Cell
from stenosis_trt.engine.reports.result_columns import RESULT_COLUMNS, ColumnKind

if TYPE_CHECKING:
    import pyarrow

_ROWS_PER_GROUP = 1 << 14
"""Rows in memory at once: about 25 MB as Python objects."""


def check_available() -> None:
    """Check that pyarrow is installed.

    Raises:
        StenosisError: it is not.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError as error:
        raise StenosisError(
            "Parquet needs pyarrow, which is not installed.", "pip install 'stenosis-trt[report]'"
        ) from error


def compose(path: Path, rows: Iterable[Mapping[str, Cell]]) -> None:
    """Write rows of results.csv to a Parquet file, one row group at a time.

    Whole numbers are int32, the Kang grade int8, other numbers float64, text string, and `warnings` is a list
    of strings. None and "" are null; a row without warnings has an empty list. Each field has the metadata
    "description".

    Args:
        path: the file. After an error it may be incomplete: write to a temporary file and rename it.
        rows: rows with the keys of `RESULT_COLUMNS`.

    Raises:
        StenosisError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    check_available()
    import pyarrow
    import pyarrow.parquet

    schema = parquet_schema()
    remaining = iter(rows)
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(remaining, _ROWS_PER_GROUP)):
            columns = {name: [_value(name, row[name]) for row in group] for name in RESULT_COLUMNS}
            writer.write_table(pyarrow.table(columns, schema=schema))


def parquet_schema() -> pyarrow.Schema:
    """Return the Arrow schema of results.parquet. pyarrow has to be installed."""
    import pyarrow

    types = {
        ColumnKind.TEXT: pyarrow.string(),
        ColumnKind.NAMES: pyarrow.list_(pyarrow.string()),
        ColumnKind.GRADE: pyarrow.int8(),
        ColumnKind.COUNT: pyarrow.int32(),
        ColumnKind.NUMBER: pyarrow.float64(),
    }
    return pyarrow.schema(
        [
            pyarrow.field(name, types[column.kind], metadata={"description": column.meaning})
            for name, column in RESULT_COLUMNS.items()
        ]
    )


def _value(name: str, value: Cell) -> Any:
    if RESULT_COLUMNS[name].kind is ColumnKind.NAMES:
        return [part for part in str(value or "").split(";") if part]
    return None if value == "" else value
