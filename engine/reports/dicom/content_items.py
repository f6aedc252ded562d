"""Content items of structured reports (PS3.3, C.17.3), encoded as Explicit VR Little Endian.

Each function returns one encoded item. highdicom builds the same trees, and the tests compare both, item by
item; it takes 0.24 s of one core for the reports of a study, more than 20 times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from stenosis_trt.engine.reports.dicom.coded_values import SOURCE, Code

CONTAINS = "CONTAINS"
HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
HAS_PROPERTIES = "HAS PROPERTIES"
INFERRED_FROM = "INFERRED FROM"
SELECTED_FROM = "SELECTED FROM"

CONTENT_SEQUENCE = 0x0040A730
"""Tag of the content sequence: the last one in a document, whose other tags are all lower."""
_ITEM = 0xFFFEE000
_LONG_LENGTH = {"SQ", "UT"}
"""VRs with a length of four bytes (PS3.5, 7.1.2)."""
_PADDING = {"UI": b"\0"}
"""Padding of a value to an even length; a space for all other texts."""


class ImageReference(NamedTuple):
    """An image that coordinates refer to.

    Attributes:
        sop_class_uid, sop_instance_uid: the object.
        frame_number: frame of a multi-frame object, from 1; None for a single-frame object.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None = None


def text(name: Code, value: str, relationship: str = CONTAINS, children: Iterable[bytes] = ()) -> bytes:
    """Return a TEXT item."""
    return _item("TEXT", name, relationship, [_text_element(0x0040A160, "UT", value)], children)


def code(name: Code, value: Code, relationship: str = CONTAINS, children: Iterable[bytes] = ()) -> bytes:
    """Return a CODE item."""
    return _item("CODE", name, relationship, [_code_sequence(0x0040A168, value)], children)


def uid_reference(name: Code, uid: str, relationship: str = CONTAINS) -> bytes:
    """Return a UIDREF item."""
    return _item("UIDREF", name, relationship, [_text_element(0x0040A124, "UI", uid)])


def number(
    name: Code,
    value: float,
    digits: int,
    unit: Code,
    relationship: str = CONTAINS,
    children: Iterable[bytes] = (),
) -> bytes:
    """Return a NUM item.

    Args:
        name: what was measured.
        value: the number. digits: decimals that are kept of it.
        unit: UCUM code.
        relationship: to the item that contains this one.
        children: items below.
    """
    shown = f"{value:.{digits}f}"
    measured = (
        _code_sequence(0x004008EA, unit)
        + _element(0x0040A161, "FD", struct.pack("<d", float(shown)))
        + _text_element(0x0040A30A, "DS", shown)
    )
    return _item("NUM", name, relationship, [_sequence(0x0040A300, [measured])], children)


def coordinates(
    name: Code, points: Sequence[tuple[float, float]], image: ImageReference, relationship: str
) -> bytes:
    """Return an SCOORD item, a POINT or a POLYLINE, with the IMAGE that it is selected from.

    Args:
        name: purpose of the reference.
        points: (column, row); the centre of the first pixel is at (0.5, 0.5).
        image: the image.
        relationship: to the item that contains this one.
    """
    flat = [value for point in points for value in point]
    graphic = [
        _element(0x00700022, "FL", struct.pack(f"<{len(flat)}f", *flat)),
        _text_element(0x00700023, "CS", "POINT" if len(points) == 1 else "POLYLINE"),
    ]
    return _item("SCOORD", name, relationship, [], [_image(image)], graphic)


def container(
    name: Code, children: Iterable[bytes], relationship: str = CONTAINS, template: str = ""
) -> bytes:
    """Return a CONTAINER item.

    Args:
        name: its title.
        children: items below.
        relationship: to the item that contains this one.
        template: identifier of its template in PS3.16; "" if it follows none.
    """
    fields = [_text_element(0x0040A050, "CS", "CONTINUOUS")]
    if template:
        mapping = _text_element(0x00080105, "CS", "DCMR") + _text_element(0x0040DB00, "CS", template)
        fields.append(_sequence(0x0040A504, [mapping]))
    return _item("CONTAINER", name, relationship, fields, children)


def content_sequence(items: Iterable[bytes]) -> bytes:
    """Return the content sequence with these items, as an encoded element."""
    return _sequence(CONTENT_SEQUENCE, items)


def _image(image: ImageReference) -> bytes:
    """An IMAGE item, SELECTED FROM by the coordinates that it is below."""
    reference = _text_element(0x00081150, "UI", image.sop_class_uid)
    reference += _text_element(0x00081155, "UI", image.sop_instance_uid)
    if image.frame_number is not None:
        reference += _text_element(0x00081160, "IS", str(image.frame_number))
    return _sequence(0x00081199, [reference]) + _item("IMAGE", SOURCE, SELECTED_FROM, [])


def _item(
    value_type: str,
    name: Code,
    relationship: str,
    fields: Iterable[bytes],
    children: Iterable[bytes] = (),
    graphic: Iterable[bytes] = (),
) -> bytes:
    """An item; `fields` have tags between those of its name and its children, `graphic` higher ones."""
    below = list(children)
    return b"".join(
        (
            _text_element(0x0040A010, "CS", relationship),
            _text_element(0x0040A040, "CS", value_type),
            _code_sequence(0x0040A043, name),
            *fields,
            *((content_sequence(below),) if below else ()),
            *graphic,
        )
    )


@lru_cache(maxsize=512)
def _code_sequence(tag: int, value: Code) -> bytes:
    item = _text_element(0x00080100, "SH", value.value)
    item += _text_element(0x00080102, "SH", value.scheme)
    return _sequence(tag, [item + _text_element(0x00080104, "LO", value.meaning)])


def _sequence(tag: int, items: Iterable[bytes]) -> bytes:
    return _element(tag, "SQ", b"".join(_tag(_ITEM) + struct.pack("<I", len(item)) + item for item in items))


def _text_element(tag: int, vr: str, value: str) -> bytes:
    encoded = value.encode("utf-8")
    return _element(tag, vr, encoded + _PADDING.get(vr, b" ") if len(encoded) % 2 else encoded)


def _element(tag: int, vr: str, value: bytes) -> bytes:
    length = struct.pack("<2xI" if vr in _LONG_LENGTH else "<H", len(value))
    return _tag(tag) + vr.encode("ascii") + length + value


def _tag(tag: int) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)
