"""JSON Schemas of the files and documents that programs of others read, made from the types that write them.

The description of a field is its entry under "Attributes:" in the docstring of its class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
OPEN_POLICY = (
    "Readers have to ignore fields that they do not know: a later release may add some. If a field is "
    "removed or changes its type or meaning, the number at the end of $id changes."
)
_SECTION = re.compile(r"^\s*Attributes:\s*$(.*?)(?=^\s*\w+:\s*$|\Z)", re.MULTILINE | re.DOTALL)
_PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}


@dataclass(frozen=True)
class SchemaName:
    """What identifies a schema.

    Attributes:
        name: the file that it describes, such as "run.json".
        version: changes when a field is removed or changes its type or meaning.
        title: one phrase.
        description: what the file holds, and the policy on unknown fields.
    """

    name: str
    version: int
    title: str
    description: str = OPEN_POLICY

    @property
    def uri(self) -> str:
        """Its `$id`."""
        return f"urn:stenosis-trt:schema:{self.name}:{self.version}"


def object_schema(
    names: SchemaName, properties: Mapping[str, Any], definitions: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the schema of an object whose properties are all present."""
    return {
        **_heading(names),
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        **({"$defs": dict(definitions)} if definitions else {}),
    }


def type_schema(
    names: SchemaName,
    kind: Any,
    described: Iterable[type],
    limits: Mapping[str, Mapping[str, Any]] | None = None,
    written: bool = True,
) -> dict[str, Any]:
    """Return the schema of a dataclass or pydantic model.

    Args:
        names: name, version and title.
        kind: the type.
        described: classes whose docstrings describe the fields: `kind` and the classes of its fields.
        limits: further keywords of a field, by "Class.field".
        written: all fields are present, as in a file that this program writes. Otherwise fields with a
            default may be absent.
    """
    # Imported here: the documents of commands import this module, and `--help` them.
    from pydantic import TypeAdapter

    schema = TypeAdapter(kind).json_schema(mode="serialization" if written else "validation")
    definitions: dict[str, Any] = schema.pop("$defs", {})
    objects = {kind.__name__: schema, **definitions}
    for name, found in objects.items():
        _drop_titles(found)
        if written and "properties" in found:
            found["required"] = list(found["properties"])
        for keywords in found.get("properties", {}).values():
            if written:
                keywords.pop("default", None)
        found.pop("description", None)
        found.setdefault("title", name)
    for item in described:
        _describe(item, objects.get(item.__name__, {}))
    for place, keywords in (limits or {}).items():
        owner, _, field = place.partition(".")
        _limit(objects[owner]["properties"][field], keywords)
    result = {**_heading(names), **{key: schema[key] for key in schema if key not in _heading(names)}}
    return {**result, **({"$defs": definitions} if definitions else {})}


def attribute_texts(item: type) -> dict[str, str]:
    """Return the text of each attribute under "Attributes:" in the docstring of a dataclass or model."""
    section = _SECTION.search(item.__doc__ or "")
    if section is None:
        return {}
    names = "|".join(sorted(map(re.escape, _field_names(item)), key=len, reverse=True))
    text = " ".join(section[1].split())
    heads = list(re.finditer(rf"(?:^|(?<=[.;,] ))((?:{names})(?:, (?:{names}))*): ", text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return {
        name: _sentence(text[head.end() : end])
        for head, end in zip(heads, ends, strict=True)
        for name in head[1].split(", ")
    }


def _heading(names: SchemaName) -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": names.uri, "title": names.title, "description": names.description}


def _field_names(item: Any) -> list[str]:
    if is_dataclass(item):
        return [field.name for field in fields(item)]
    return list(item.model_fields)


def _describe(item: type, schema: dict[str, Any]) -> None:
    summary = (item.__doc__ or "").strip().partition("\n")[0]
    if summary and "$id" not in schema:
        schema.setdefault("description", summary)
    for name, text in attribute_texts(item).items():
        if name in schema.get("properties", {}):
            schema["properties"][name].setdefault("description", text)


def _limit(schema: dict[str, Any], keywords: Mapping[str, Any]) -> None:
    """Add keywords to a field; to the alternative that is not null if there are two."""
    target = next((item for item in schema.get("anyOf", ()) if item.get("type") != "null"), schema)
    target.update(keywords)


def _drop_titles(schema: dict[str, Any]) -> None:
    """Remove the titles that pydantic makes from field names."""
    for item in schema.get("properties", {}).values():
        item.pop("title", None)


def _sentence(text: str) -> str:
    text = re.sub(r"\b(None|True|False)\b", lambda word: _PYTHON_WORDS[word[0]], text.strip())
    # References to modules and classes mean nothing outside Python.
    text = re.sub(r"; see `[^`]*`", "", text)
    is_name = "_" in text.partition(" ")[0]
    return text if is_name else text[:1].upper() + text[1:]
