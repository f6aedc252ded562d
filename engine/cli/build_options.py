"""What is typed behind the options of `stenosis-trt build`, as values."""

from __future__ import annotations

import re

from stenosis_trt.engine.trt.flavours import Capability, parse_capability

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a list with commas, each once, in the order of their first mention."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_batches(text: str) -> tuple[int, ...]:
    """(1, 8) of "8,1".

    Raises:
        ValueError: something in it is no whole number.
    """
    for part in parse_names(text):
        if not re.fullmatch(r"[0-9]{1,9}", part):
            raise ValueError(f"{part!r} is no batch. Give whole numbers, such as --batch 1,8.")
    return tuple(sorted({int(part) for part in parse_names(text)}))


def parse_capabilities(text: str) -> tuple[Capability, ...]:
    """((8, 6), (8, 9)) of "8.9,8.6".

    Raises:
        ValueError: something in it is no compute capability.
    """
    return tuple(sorted({parse_capability(part) for part in parse_names(text)}))


def parse_size(text: str) -> int | None:
    """Bytes of "2GiB", "512MiB" or "1048576"; None of "".

    Raises:
        ValueError: it is none of these.
    """
    if not text.strip():
        return None
    found = re.fullmatch(r"([0-9]{1,18})(KiB|MiB|GiB)?", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size. Give a whole number, alone or with KiB, MiB or GiB.")
    return int(found[1]) * _UNITS[found[2] or ""]
