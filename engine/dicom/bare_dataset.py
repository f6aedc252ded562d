"""Recognition of bare datasets, without preamble and file meta information, and of their transfer syntax.

Old archives store images in this form. A file is accepted if its first elements have ascending tags of the
data dictionary, valid value representations and lengths within the file.
"""

from __future__ import annotations

import struct

from stenosis_trt.engine.dicom.plain_elements import KNOWN_VRS, LONG_LENGTH_VRS, UNDEFINED_LENGTH
from stenosis_trt.engine.dicom.pydicom_loader import load_pydicom
from stenosis_trt.engine.dicom.transfer_syntaxes import (
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
)

DATASET_STARTS = (b"\x08\0", b"\x02\0", b"\0\x08")
"""First bytes of a bare dataset: group 0002 or 0008 in little endian, group 0008 in big endian."""

_FIRST_GROUPS = (0x0002, 0x0008)
_ENCODINGS = (
    (EXPLICIT_LITTLE_ENDIAN, "<", True),
    (IMPLICIT_LITTLE_ENDIAN, "<", False),
    (EXPLICIT_BIG_ENDIAN, ">", True),
)
_MAX_ELEMENTS = 8
"""Elements after which a match by chance is ruled out."""
_MIN_ELEMENTS = 3


def guess_transfer_syntax(data: bytes, start: int, size: int) -> str | None:
    """Return the native transfer syntax of a dataset, or None if there is no dataset at `start`.

    Args:
        data: first bytes of the file.
        start: offset of the dataset.
        size: size of the whole file in bytes.
    """
    return next(
        (syntax for syntax, order, explicit in _ENCODINGS if _is_dataset(data, start, size, order, explicit)),
        None,
    )


def _is_dataset(data: bytes, at: int, size: int, order: str, explicit: bool) -> bool:
    last = -1
    for count in range(_MAX_ELEMENTS):
        if at + 12 > len(data):
            return count >= _MIN_ELEMENTS and at <= size
        group, number, vr, short = struct.unpack_from(f"{order}HH2sH", data, at)
        tag = group << 16 | number
        if last >> 16 == 0x0002 and group != 0x0002:
            # The dataset after the meta header may have another encoding.
            return count >= _MIN_ELEMENTS
        if tag <= last or (last < 0 and group not in _FIRST_GROUPS) or not _is_known(group, number):
            return False
        last = tag
        if not explicit:
            (length,) = struct.unpack_from(f"{order}L", data, at + 4)
            at += 8
        elif vr not in KNOWN_VRS:
            return False
        elif vr in LONG_LENGTH_VRS:
            (length,) = struct.unpack_from(f"{order}L", data, at + 8)
            at += 12
        else:
            length, at = short, at + 8
        if length == UNDEFINED_LENGTH:
            return count + 1 >= _MIN_ELEMENTS
        at += length
        if at > size:
            return False
    return True


def _is_known(group: int, number: int) -> bool:
    """Return True for tags of the data dictionary, group lengths and private elements."""
    load_pydicom()
    from pydicom.datadict import dictionary_has_tag

    return number == 0 or group % 2 == 1 or bool(dictionary_has_tag(group << 16 | number))
