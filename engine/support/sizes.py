"""Sizes of files and memory as text: "2GiB", "512MiB", "1048576"."""

from __future__ import annotations

import re

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
SIZE_SYNTAX = "a whole number, alone or with KiB, MiB or GiB"


def parse_size(text: str) -> int:
    """Return the size in bytes.

    Raises:
        ValueError: the text is not a size.
    """
    found = re.fullmatch(r"([0-9]{1,18}) *(KiB|MiB|GiB)?", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size. Give {SIZE_SYNTAX}.")
    return int(found[1]) * _UNITS[found[2] or ""]


def format_size(size: int) -> str:
    """Return a size in bytes with the largest unit that it reaches, rounded down."""
    unit = max((unit for unit in _UNITS if size >= _UNITS[unit]), key=_UNITS.__getitem__)
    return f"{size // _UNITS[unit]}{unit}"
