"""Files of benchmark records: JSON, written whole or not at all, and checked when read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from stenosis_trt.bench.record.record import Absence, BenchRecord, Section
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.support.atomic_files import write_text_atomically
from stenosis_trt.engine.support.json_schema import JsonError, JsonObject, StrictModel, read_json
from stenosis_trt.engine.support.safe_text import escape_controls_in

SCHEMA = 1
"""Version of the layout that this release writes and reads."""
_MAXIMUM_BYTES = 256 << 20
_ADVICE = "Give a file that `stenosis-trt bench all` wrote."


class RecordError(InputError):
    """A file that is no benchmark record, or one of another release."""


class _Content(StrictModel):
    layout: int = Field(alias="schema")
    command: str
    started: str
    machine: JsonObject
    versions: dict[str, str]
    product: JsonObject
    studies: JsonObject
    busy: JsonObject
    sections: tuple[Section, ...]
    failures: tuple[Absence, ...]
    settings: JsonObject


def record_json(record: BenchRecord) -> str:
    """Return the record as JSON.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value is not one of JSON's types.
    """
    return json.dumps({"schema": SCHEMA, **asdict(record)}, allow_nan=False, indent=1) + "\n"


def write_record(path: Path, record: BenchRecord) -> None:
    """Write the record to a JSON file.

    Raises:
        OSError: the file cannot be written; what was there is unchanged.
        ValueError, TypeError: see `record_json`.
    """
    write_text_atomically(path, record_json(record))


def read_record(path: Path) -> BenchRecord:
    """Read a record that `write_record` wrote.

    Raises:
        RecordError: the file cannot be read, or is no record of this layout.
    """
    try:
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise RecordError(f"{path} is too large for a benchmark record.", _ADVICE)
        text = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}).", _ADVICE) from error
    try:
        head = read_json(TypeAdapter(dict[str, Any]), text)
        if "schema" in head and "sections" in head and head["schema"] != SCHEMA:
            raise RecordError(
                f"{path} has layout {head['schema']}, and this release reads {SCHEMA}.",
                "Compare records of one release.",
            )
        # A file of others may hold what a terminal would obey.
        content = read_json(TypeAdapter(_Content), json.dumps(escape_controls_in(head)))
    except JsonError as error:
        fault = str(error) if error.is_json else "it is not JSON"
        raise RecordError(f"{path} is no benchmark record: {fault}.", _ADVICE) from error
    values = {name: getattr(content, name) for name in _Content.model_fields if name != "layout"}
    return BenchRecord(**values)


def json_value(value: Any) -> Any:
    """Return a value made of JSON's types: arrays and scalars of NumPy, paths and tuples are converted.

    Numbers that are not finite become None.

    Raises:
        TypeError: there is something else in it.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(item) for item in value]
    if hasattr(value, "tolist"):
        return json_value(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a value of type {type(value).__name__} is no JSON")
