"""Validation against a published JSON Schema, with every field that it does not describe as an error."""

from __future__ import annotations

import copy
import json
from typing import Any

from jsonschema import Draft202012Validator


def faults(schema: dict[str, Any], instance: Any) -> list[str]:
    """What is wrong with an instance: the faults a reader sees, and fields that nothing describes."""
    Draft202012Validator.check_schema(schema)
    closed = copy.deepcopy(schema)
    _close(closed)
    return [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(closed).iter_errors(instance)
    ]


def parse_strictly(text: str) -> Any:
    """Parse JSON as RFC 8259 has it: without NaN and infinity."""

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for item in schema:
            _close(item)
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            schema.setdefault("additionalProperties", False)
        for item in schema.values():
            _close(item)
