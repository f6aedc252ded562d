"""Fast reading of plain elements: those that are neither a sequence nor of undefined length.

Nearly all elements of a header are plain. `ElementReader` reads the others, and every one that is at fault.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

UNDEFINED_LENGTH = 0xFFFFFFFF
LONG_LENGTH_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
"""Value representations whose length has 32 bits after two reserved bytes (DICOM PS3.5, 7.1.2)."""
BINARY_FORMATS = {
    b"US": "H",
    b"SS": "h",
    b"UL": "L",
    b"SL": "l",
    b"FL": "f",
    b"FD": "d",
    b"UV": "Q",
    b"SV": "q",
}
"""Value representations of binary numbers, and the format of `struct` of each."""
NUMERIC_VRS = {*BINARY_FORMATS, b"DS", b"IS"}
KNOWN_VRS = (
    LONG_LENGTH_VRS | set(BINARY_FORMATS) | set(b"AE AS AT CS DA DS DT IS LO LT PN SH ST TM UI".split())
)

TagTable = dict[int, tuple[str, bytes]]
"""Tag → (keyword, value representation)."""

_FIRST_ITEM_TAG = 0xFFFE0000
_CHARACTER_SET = 0x00080005
_LETTERS = range(ord("A"), ord("Z") + 1)
_SHORT_LENGTH_VRS = {bytes((one, other)) for one in _LETTERS for other in _LETTERS} - LONG_LENGTH_VRS
"""Two capital letters, which are taken for a value representation, with a length of 16 bits."""

Values = dict[str, tuple[bytes, bytes]]
"""Keyword → (value representation, raw value)."""
_Unpack = Callable[[bytes, int], tuple[Any, ...]]

# Little endian? → decoders of an element's first 8 bytes, explicit and implicit, and of a 32-bit length.
_DECODERS: dict[bool, tuple[_Unpack, _Unpack, _Unpack]] = {
    little: (
        struct.Struct(f"{sign}HH2sH").unpack_from,
        struct.Struct(f"{sign}HHL").unpack_from,
        struct.Struct(f"{sign}L").unpack_from,
    )
    for little, sign in ((True, "<"), (False, ">"))
}


def read_plain(
    data: bytes,
    at: int,
    end: int,
    encoding: tuple[bool, bool],
    wanted: TagTable,
    stop: int,
    values: Values,
    comma_decimals: list[bytes],
) -> int:
    """Read the plain elements of a dataset up to the first element that is not plain.

    An element is plain unless it is a sequence that is wanted, the SpecificCharacterSet, or of undefined
    length; has no value representation in explicit VR; reaches beyond `end` or `data`; or is at `stop` or
    later.

    Args:
        data: first bytes of the file.
        at: offset of the first element.
        end: end of the dataset.
        encoding: (explicit VR, little endian).
        wanted: elements to return.
        stop: a tag.
        values: receives the wanted elements.
        comma_decimals: receives the wanted decimal strings that have commas.

    Returns:
        Offset of the first element that is not plain, or of less than 8 bytes before the end.
    """
    explicit, little_endian = encoding
    read = _read_explicit if explicit else _read_implicit
    end, stop = min(end, len(data)), min(stop, _FIRST_ITEM_TAG)
    return read(data, at, end, little_endian, wanted, stop, values, comma_decimals)


def _read_explicit(
    data: bytes,
    at: int,
    end: int,
    little_endian: bool,
    wanted: TagTable,
    stop: int,
    values: Values,
    comma_decimals: list[bytes],
) -> int:
    unpack, _, unpack_length = _DECODERS[little_endian]
    last = end - 8
    while at <= last:
        group, number, vr, length = unpack(data, at)
        tag = group << 16 | number
        if tag >= stop:
            break
        start = at + 8
        if vr not in _SHORT_LENGTH_VRS:
            start += 4
            if vr not in LONG_LENGTH_VRS or start > end:
                break
            (length,) = unpack_length(data, at + 8)
            if length == UNDEFINED_LENGTH:
                break
        after = start + length
        if after > end:
            break
        if tag in wanted:
            keyword, dictionary_vr = wanted[tag]
            if dictionary_vr == b"SQ" or tag == _CHARACTER_SET:
                break
            value = data[start:after]
            values[keyword] = vr if vr in NUMERIC_VRS else dictionary_vr, value
            if vr == b"DS" and b"," in value:
                comma_decimals.append(value)
        at = after
    return at


def _read_implicit(
    data: bytes,
    at: int,
    end: int,
    little_endian: bool,
    wanted: TagTable,
    stop: int,
    values: Values,
    comma_decimals: list[bytes],
) -> int:
    unpack, last = _DECODERS[little_endian][1], end - 8
    while at <= last:
        group, number, length = unpack(data, at)
        tag = group << 16 | number
        start = at + 8
        after = start + length
        if tag >= stop or after > end or length == UNDEFINED_LENGTH:
            break
        if tag in wanted:
            keyword, vr = wanted[tag]
            if vr == b"SQ" or tag == _CHARACTER_SET:
                break
            value = data[start:after]
            values[keyword] = vr, value
            if vr == b"DS" and b"," in value:
                comma_decimals.append(value)
        at = after
    return at
