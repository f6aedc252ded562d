"""Datasets without the marks of DICOM Part 10: recognised, and their encoding found, by their first elements.

Old archives keep images as bare datasets: no preamble, no meta header. Nothing but the elements themselves
tells that such a file is DICOM, so the first of them have to be what only a dataset begins with: tags of the
data dictionary in ascending order, with lengths that lie in the file, and values that fit.
"""

from __future__ import annotations

import re
import struct

from pydicom.datadict import dictionary_has_tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from stenosis_trt.engine.dicom.elements import KNOWN_VRS, LONG_LENGTH_VRS, UNDEFINED_LENGTH

DATASET_STARTS = (b"\x08\0", b"\x02\0", b"\0\x08")
"""How a dataset without preamble begins: group 0002 or 0008 in little endian, group 0008 in big endian."""

_FIRST_GROUPS = (0x0002, 0x0008)
_ENCODINGS = (
    (ExplicitVRLittleEndian, "<", True),
    (ImplicitVRLittleEndian, "<", False),
    (ExplicitVRBigEndian, ">", True),
)
_ENOUGH = 8
"""Elements. After these random bytes have no chance, and text none after the first."""
_FEWEST = 3
_UID = re.compile(r"[0-2](\.(0|[1-9]\d*))+", re.ASCII)


def is_uid(text: str) -> bool:
    """Whether a text can be a UID (DICOM PS3.5, 9.1)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def guess_transfer_syntax(data: bytes, start: int, size: int) -> str | None:
    """The native transfer syntax in which a dataset begins at `start`, or None where none does.

    Args:
        data: the first bytes of the file.
        start: where the dataset is to begin.
        size: of the whole file, in bytes.
    """
    return next(
        (syntax for syntax, order, explicit in _ENCODINGS if _begins(data, start, size, order, explicit)),
        None,
    )


def _begins(data: bytes, at: int, size: int, order: str, explicit: bool) -> bool:
    last = -1
    for count in range(_ENOUGH):
        if at + 12 > len(data):
            return count >= _FEWEST and at <= size
        group, number, form, short = struct.unpack_from(f"{order}HH2sH", data, at)
        tag = group << 16 | number
        if last >> 16 == 0x0002 and group != 0x0002:
            # Behind a meta header the dataset may be encoded otherwise.
            return count >= _FEWEST
        if tag <= last or (last < 0 and group not in _FIRST_GROUPS) or not _is_known(group, number):
            return False
        last = tag
        if not explicit:
            (length,) = struct.unpack_from(f"{order}L", data, at + 4)
            at += 8
        elif form not in KNOWN_VRS:
            return False
        elif form in LONG_LENGTH_VRS:
            (length,) = struct.unpack_from(f"{order}L", data, at + 8)
            at += 12
        else:
            length, at = short, at + 8
        if length == UNDEFINED_LENGTH:
            return count + 1 >= _FEWEST
        at += length
        if at > size:
            return False
    return True


def _is_known(group: int, number: int) -> bool:
    """Whether the data dictionary has a tag; group lengths and private elements count as known."""
    return number == 0 or group % 2 == 1 or bool(dictionary_has_tag(group << 16 | number))
