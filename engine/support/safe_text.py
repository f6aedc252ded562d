"""Escaping of text from headers and file systems, for tables, terminals and spreadsheets."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

_ESCAPED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories without a glyph: control and format characters (which may reverse the direction of
writing), surrogates (bytes of a file name that are not UTF-8), private and unassigned characters, line and
paragraph separators."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""First characters with which a spreadsheet takes a cell for a formula (OWASP, CSV Injection)."""


def escape_controls(text: str) -> str:
    """Return the text with a backslash escape for each control character; see `_ESCAPED_CATEGORIES`."""
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _ESCAPED_CATEGORIES else c for c in text)


def escape_controls_in(value: Any) -> Any:
    """Apply `escape_controls` to every string in nested mappings, lists and tuples."""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, Mapping):
        return {escape_controls_in(key): escape_controls_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escape_controls_in(item) for item in value]
    return value


def escape_formula(text: str) -> str:
    """Return the text with a leading apostrophe if a spreadsheet would evaluate it as a formula."""
    # Some programs strip spaces first.
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULA_STARTS) else text
