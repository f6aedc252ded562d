"""JSON files of which the shape is not trusted, read through declared schemas.

A schema is a pydantic model, or a dataclass with `STRICT_CONFIG` as its `__pydantic_config__`. Types are
taken as they are written ("3" is no number), numbers have to be finite, and entries that nothing reads are
refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

STRICT_CONFIG = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

_SHOWN = 80
"""Characters of an entry's name that are shown."""

Checked = TypeVar("Checked")


class JsonError(ValueError):
    """A text that is no JSON, or not of its schema.

    Attributes:
        entry: where, as "models.cord.input.size"; "" for the whole text.
        fault: what is wrong there, as pydantic says it.
        is_json: whether the text is JSON at all.
    """

    def __init__(self, entry: str, fault: str, is_json: bool) -> None:
        super().__init__(f"{entry}: {fault}" if entry else fault)
        self.entry, self.fault, self.is_json = entry, fault, is_json


class StrictModel(BaseModel):
    """Base of schemas."""

    model_config = STRICT_CONFIG


def _finite(value: Any) -> Any:
    """Refuse numbers that JSON has no word for, at any depth; the parser bounds how deep that is."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers have to be finite")
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _finite(item)
    return value


JsonObject = Annotated[Mapping[str, Any], AfterValidator(_finite)]
"""A table of anything that JSON can hold."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
SingleLine = Annotated[
    str, StringConstraints(max_length=400, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")
]
"""A text without control characters."""
LongText = Annotated[str, StringConstraints(max_length=20_000)]
NumbersByName = Annotated[dict[SingleLine, float], Field(max_length=1000)]


def read_json(schema: TypeAdapter[Checked], text: bytes | str) -> Checked:
    """What a JSON text holds, checked against a schema.

    Args:
        schema: of what is wanted.
        text: UTF-8; numbers, names and depth as hostile as may be.

    Raises:
        JsonError: it is no JSON, or not of the schema; the first fault is told.
    """
    try:
        return schema.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        entry = ".".join(map(str, first["loc"])).encode("unicode_escape").decode()
        fault = first["msg"].removeprefix("Value error, ")
        raise JsonError(entry[:_SHOWN], fault, first["type"] != "json_invalid") from None
