"""Text from headers and file systems made fit for tables, terminals and spreadsheets."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

_OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that are not shown but obeyed, or that have no glyph: control characters, format
characters (among them those that turn the direction of writing), surrogates (bytes of a file name that are no
UTF-8), line and paragraph separators."""
_FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins with one of these is a formula to a spreadsheet, as CSV-injection lists name them."""


def escape_controls(text: str) -> str:
    """The text with every character that a terminal would obey as its backslash escape."""
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _OBEYED else c for c in text)


def escape_controls_in(value: Any) -> Any:
    """The same for each string in dictionaries, lists and tuples of values."""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, Mapping):
        return {escape_controls_in(key): escape_controls_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escape_controls_in(item) for item in value]
    return value


def escape_formula(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would run it as a formula."""
    # Some programs strip spaces first.
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULA_MARKS) else text
