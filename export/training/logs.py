"""Training log: one JSON object per validation and line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stenosis_trt.engine.support.atomic_files import write_text_atomically

LOG_SUFFIX = ".log.jsonl"
"""Suffix of log files, after the network's name."""


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read all rows; an incomplete last line is skipped.

    Raises:
        ValueError: a line is not a row.
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
            raise ValueError(f"Line {number} of {path} is not a row of a training log. Remove it.")
        rows.append(row)
    return rows


def truncate_log_after(path: Path, step: int) -> None:
    """Remove rows after `step`; a run may end between a row and its checkpoint, and repeats those steps."""
    if not path.exists():
        return
    text = "".join(json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= step)
    if text != path.read_text(encoding="utf-8"):
        write_text_atomically(path, text)
