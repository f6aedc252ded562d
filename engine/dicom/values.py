"""Decoding of element values to text and numbers (DICOM PS3.5, 6.1 and 6.2).

Common deviations from the standard are accepted: padding by NULs and blanks on either side, decimal strings
that are too long, a trailing backslash, decimal commas. Ambiguous values are rejected.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import cache

from stenosis_trt.engine.dicom.pydicom_loader import load_pydicom

_TEXT_DELIMITERS = set(b"\t\n\f\r\\")
"""Each resets a text to its first character set (PS3.5, 6.1.2.5.3)."""
_MAX_NUMBER_BYTES = 64
"""Bytes. The standard allows 16; writers that print all digits of a float need about 25."""
_COMMON_CODECS = {"ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}
"""Character sets that most files have; pydicom, whose import takes long, decodes the others."""
_PADDING = b" \0\t\r\n"
_NUMBER = re.compile(rb"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(rb"[+-]?[1-9]\d{0,2},\d{3}")
"""A comma that may be a decimal point or a thousands separator: "1,234", but not "0,234" or "1,5"."""


def commas_are_decimal_points(values: Iterable[bytes]) -> bool:
    """Return True if commas are decimal points in the decimal strings of one file.

    At least one comma must be unambiguous ("0,7", "-101,25") and none used otherwise ("1,234.5", "0.7,0.7").
    If all are ambiguous ("1,234"), the result is False.
    """
    decided = False
    for raw in values:
        for part in raw.split(b"\\"):
            number = part.strip(_PADDING)[: _MAX_NUMBER_BYTES + 1]
            if b"," not in number:
                continue
            if b"." in raw or not _NUMBER.fullmatch(number):
                return False
            decided |= _THOUSANDS.fullmatch(number) is None
    return decided


def parse_decimals(raw: bytes, decimal_commas: bool) -> list[float]:
    """Return the numbers of a decimal or integer string; trailing empty values are padding.

    Args:
        raw: raw value.
        decimal_commas: True if commas are decimal points.

    Raises:
        ValueError: a value is not a number, or has a comma that is not a decimal point.
    """
    parts = [part.strip(_PADDING) for part in raw.split(b"\\")]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    found = []
    for part in parts:
        if (
            len(part) > _MAX_NUMBER_BYTES
            or not _NUMBER.fullmatch(part)
            or (b"," in part and not decimal_commas)
        ):
            raise ValueError("The value is not a number.")
        found.append(float(part.replace(b",", b".")))
    return found


@cache
def _allowed_codecs() -> frozenset[str]:
    """Return the names of Python's codecs for the character sets of DICOM. pydicom accepts any Python codec,
    even slow ones and those that are not character sets."""
    load_pydicom()
    from pydicom.charset import python_encoding

    return frozenset(codecs.lookup(name).name for name in python_encoding.values())


def decode_text(raw: bytes, charsets: Sequence[str]) -> str:
    """Decode a text by the file's SpecificCharacterSet. Never raises.

    Without a character set it is UTF-8 if the bytes are valid UTF-8, else ISO 8859-1. If a character set is
    unknown or the bytes are not valid in it, bytes outside ASCII are escaped as `\\xe4`.
    """
    if not charsets:
        # The standard allows only ASCII then; most writers that use more mean UTF-8.
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass
    elif len(charsets) == 1 and charsets[0] in _COMMON_CODECS and b"\x1b" not in raw:
        try:
            text = raw.decode(_COMMON_CODECS[charsets[0]])
        except UnicodeDecodeError:
            return raw.decode("ascii", "backslashreplace")
        return raw.decode("ascii", "backslashreplace") if "\N{REPLACEMENT CHARACTER}" in text else text
    load_pydicom()
    from pydicom.charset import convert_encodings, decode_bytes

    try:
        codecs_of_file = convert_encodings(list(charsets))
        if not _allowed_codecs().issuperset(codecs.lookup(name).name for name in codecs_of_file):
            raise LookupError("no character set of DICOM")
        text = decode_bytes(raw, codecs_of_file, _TEXT_DELIMITERS)
    except (LookupError, ValueError, TypeError):
        return raw.decode("ascii", "backslashreplace")
    return raw.decode("ascii", "backslashreplace") if "\N{REPLACEMENT CHARACTER}" in text else text
