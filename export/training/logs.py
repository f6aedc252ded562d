"""The log of a run: a JSON object a line for each validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stenosis_trt.engine.support.atomic_files import write_text_atomically

LOG_SUFFIX = ".log.jsonl"
"""Of a log's name, after the network's."""


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write the next row.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a log; a last one that is still being written is left out.

    Raises:
        ValueError: a line is not such a row.
        OSError: the file cannot be read.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or "step" not in row:
            raise ValueError(f"Line {number} of {path} is no row of a training log. Remove it.")
        rows.append(row)
    return rows


def truncate_log_after(path: Path, step: int) -> None:
    """Drop rows of later steps, which will be done again: a run may end between a row and its checkpoint."""
    if not path.exists():
        return
    text = "".join(json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= step)
    if text != path.read_text(encoding="utf-8"):
        write_text_atomically(path, text)
