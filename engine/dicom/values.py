"""Values of data elements as text and numbers, where they are written as the standard has it and where not.

What other readers accept is accepted: padding by NULs and blanks on either side, decimal strings that are
longer than allowed, a trailing backslash, decimal commas. What could be read in two ways is no value.
Encoding: DICOM PS3.5, 6.1 and 6.2.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import cache

from pydicom.charset import convert_encodings, decode_bytes, python_encoding

_TEXT_DELIMITERS = set(b"\t\n\f\r\\")
"""After each of them a text is in its first character set again (PS3.5, 6.1.2.5.3)."""
_LONGEST_NUMBER = 64
"""Bytes. The standard allows 16; writers that print all digits of a float take about 25."""
_PADDING = b" \0\t\r\n"
_NUMBER = re.compile(rb"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(rb"[+-]?[1-9]\d{0,2},\d{3}")
"""One comma that may stand for the decimal point or group thousands: "1,234", but not "0,234" or "1,5"."""


def commas_are_decimal_points(values: Iterable[bytes]) -> bool:
    """Whether commas stand for the decimal point in the decimal strings of one file, by all that have one.

    At least one of them can be nothing else ("0,7", "-101,25"), and none is used in another way ("1,234.5",
    "0.7,0.7"). Where all could be either ("1,234"), it is not decided, and the answer is no.
    """
    decided = False
    for raw in values:
        for part in raw.split(b"\\"):
            number = part.strip(_PADDING)[: _LONGEST_NUMBER + 1]
            if b"," not in number:
                continue
            if b"." in raw or not _NUMBER.fullmatch(number):
                return False
            decided |= _THOUSANDS.fullmatch(number) is None
    return decided


def parse_decimals(raw: bytes, decimal_commas: bool) -> list[float]:
    """The numbers of a decimal or integer string; empty values at its end are padding.

    Args:
        raw: the value field.
        decimal_commas: whether a comma stands for the decimal point.

    Raises:
        ValueError: one of the values is no number, or has a comma that is no decimal point.
    """
    parts = [part.strip(_PADDING) for part in raw.split(b"\\")]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    found = []
    for part in parts:
        if (
            len(part) > _LONGEST_NUMBER
            or not _NUMBER.fullmatch(part)
            or (b"," in part and not decimal_commas)
        ):
            raise ValueError("The value is no number.")
        found.append(float(part.replace(b",", b".")))
    return found


@cache
def _allowed_codecs() -> frozenset[str]:
    """Python's codecs for the character sets of DICOM, by whatever name a file calls them. pydicom would take
    any codec of Python's for a character set, those that are none and those that take long included."""
    return frozenset(codecs.lookup(name).name for name in python_encoding.values())


def decode_text(raw: bytes, charsets: Sequence[str]) -> str:
    """A value as text by the file's SpecificCharacterSet. Never raises.

    Where the character sets are none, or the bytes are not in them, the bytes outside of ASCII are shown as
    `\\xe4`, so that the rest can be read; in ISO 8859-1 where no character set is given and in UTF-8 where
    they are valid UTF-8.
    """
    if not charsets:
        # Without a character set only ASCII is allowed; this is what most writers mean by the rest.
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass
    try:
        codecs_of_file = convert_encodings(list(charsets))
        if not _allowed_codecs().issuperset(codecs.lookup(name).name for name in codecs_of_file):
            raise LookupError("no character set of DICOM")
        text = decode_bytes(raw, codecs_of_file, _TEXT_DELIMITERS)
    except (LookupError, ValueError, TypeError):
        return raw.decode("ascii", "backslashreplace")
    return raw.decode("ascii", "backslashreplace") if "\N{REPLACEMENT CHARACTER}" in text else text
