"""Validation of JSON from untrusted files against declared schemas.

A schema is a pydantic model, or a dataclass with `STRICT_CONFIG` as its `__pydantic_config__`. Types are not
coerced ("3" is not a number), numbers must be finite, and unknown keys are an error.
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

_MAX_ENTRY_CHARACTERS = 80
"""Length to which the name of an entry is cut in messages."""

_Content = TypeVar("_Content")


class JsonError(ValueError):
    """Error of a text that is not JSON, or does not match its schema.

    Attributes:
        entry: path of the faulty entry, such as "models.cord.input.size"; "" for the whole text.
        fault: pydantic's message.
        is_json: False if the text is not JSON at all.
    """

    def __init__(self, entry: str, fault: str, is_json: bool) -> None:
        super().__init__(f"{entry}: {fault}" if entry else fault)
        self.entry, self.fault, self.is_json = entry, fault, is_json


class StrictModel(BaseModel):
    """Base class of schemas."""

    model_config = STRICT_CONFIG


def _finite(value: Any) -> Any:
    """Raise ValueError for NaN and infinity at any depth. The parser limits the depth."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers have to be finite")
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _finite(item)
    return value


JsonObject = Annotated[Mapping[str, Any], AfterValidator(_finite)]
"""A JSON object with any content."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
SingleLine = Annotated[
    str, StringConstraints(max_length=400, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")
]
"""A string without control characters."""
LongText = Annotated[str, StringConstraints(max_length=20_000)]
NumbersByName = Annotated[dict[SingleLine, float], Field(max_length=1000)]


def read_json(schema: TypeAdapter[_Content], text: bytes | str) -> _Content:
    """Parse a JSON text and validate it.

    Args:
        schema: the type of the result.
        text: untrusted UTF-8.

    Raises:
        JsonError: the text is not JSON, or does not match the schema; it has the first fault.
    """
    try:
        return schema.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        entry = ".".join(map(str, first["loc"])).encode("unicode_escape").decode()
        fault = first["msg"].removeprefix("Value error, ")
        raise JsonError(entry[:_MAX_ENTRY_CHARACTERS], fault, first["type"] != "json_invalid") from None
