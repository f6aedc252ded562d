"""JSON of any shape through declared schemas: one error that names the entry, and no other."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from stenosis_trt.engine.support.json_schema import JsonError, JsonObject, SingleLine, StrictModel, read_json


class _Inner(StrictModel):
    sizes: tuple[int, ...]


class _Outer(StrictModel):
    name: SingleLine
    free: JsonObject
    inner: _Inner


_OUTER = TypeAdapter(_Outer)


def _text(name: str = '"x"', free: str = "{}", inner: str = '{"sizes": [1]}') -> bytes:
    return f'{{"name": {name}, "free": {free}, "inner": {inner}}}'.encode()


def test_what_is_of_the_schema_is_read() -> None:
    found = read_json(_OUTER, _text(free='{"a": [1.5, {"b": null}]}'))
    assert (found.name, found.inner.sizes, found.free) == ("x", (1,), {"a": [1.5, {"b": None}]})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (_text(name="3"), "name: "),
        (_text(name='"a\\u001b[2J"'), "name: "),
        (_text(free='{"a": [{"b": 1e999}]}'), "free: numbers have to be finite"),
        (_text(free='{"a": NaN}'), "free: numbers have to be finite"),
        (_text(inner='{"sizes": [1, 2.0]}'), r"inner\.sizes\.1: "),
        (_text(inner='{"sizes": [true]}'), r"inner\.sizes\.0: "),
        (_text(inner='{"sizes": [], "more": 1}'), r"inner\.more: "),
        (_text(inner="{}"), r"inner\.sizes: Field required"),
        (b"[]", "object"),
    ],
)
def test_what_is_not_of_the_schema_is_named(text: bytes, fault: str) -> None:
    with pytest.raises(JsonError, match=f"^{fault}" if ":" in fault else fault) as caught:
        read_json(_OUTER, text)
    assert caught.value.is_json


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        _text(free='{"a":' * 5000 + "1" + "}" * 5000),
        _text(name='"\\ud800"'),
        _text(name="9" * 10_000),
    ],
)
def test_what_is_no_json_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(JsonError) as caught:
        read_json(_OUTER, text)
    assert not caught.value.is_json


def test_a_name_of_an_entry_brings_no_control_characters_into_the_message() -> None:
    with pytest.raises(JsonError) as caught:
        read_json(_OUTER, _text(inner='{"sizes": [], "\\u001b[31m' + "x" * 500 + '": 1}'))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
