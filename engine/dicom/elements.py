"""Chosen data elements of a dataset, read under limits.

A header has hundreds of elements and the engine needs some forty. This reads those and steps over the
others, never past the file's end and never deeper or further than the limits: a header that lies about a
length, nests without end or consists of millions of elements costs no memory. It takes a third of the time
of a complete parser. Encoding: DICOM PS3.5, chapter 7.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.values import commas_are_decimal_points, decode_text, parse_decimals
from stenosis_trt.engine.records import Stage

UNDEFINED_LENGTH = 0xFFFFFFFF
FIRST_PIXEL_TAG = 0x7FE00008
"""FloatPixelData; DoubleFloatPixelData and PixelData follow. The tables of offsets come before it."""

_FIRST_READ = 1 << 16
"""Bytes. Most headers are shorter; each further read takes eight times as much."""
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LITTLE_ITEMS = {struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in (_ITEM, _SEQUENCE_END)}
LONG_LENGTH_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_BINARY = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}
_NUMERIC = {*_BINARY, b"DS", b"IS"}
KNOWN_VRS = LONG_LENGTH_VRS | set(_BINARY) | set(b"AE AS AT CS DA DS DT IS LO LT PN SH ST TM UI".split())

# For either byte order: its sign, and what decodes the head of an element and a long length.
_DECODERS = {
    little: (sign, struct.Struct(f"{sign}HH2sH").unpack_from, struct.Struct(f"{sign}L").unpack_from)
    for little, sign in ((True, "<"), (False, ">"))
}

TagTable = dict[int, tuple[str, bytes]]
"""Tag → (keyword, value representation)."""


def tag_table(keywords: Iterable[str]) -> TagTable:
    """The elements to read, by their keywords in the data dictionary (DICOM PS3.6)."""
    found: TagTable = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(f"{keyword} is not in the data dictionary.")
        found[tag] = keyword, dictionary_VR(tag).encode()
    return found


class ElementHeader(NamedTuple):
    """Where an element's value lies in the file."""

    tag: int
    form: bytes
    length: int
    start: int


@dataclass(slots=True)
class Elements:
    """Chosen elements of one dataset. An element that is absent, or no usable value, reads as none.

    `stopped_at` is the element where reading stopped, or None at the end of the file; `end` the offset
    where it stopped. `commas` are the decimal strings of the file that have commas, shared by its datasets.
    """

    byte_order: str = "<"
    charsets: tuple[str, ...] = ()
    commas: list[bytes] = field(default_factory=list)
    values: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    sequences: dict[str, list[Elements]] = field(default_factory=dict)
    stopped_at: ElementHeader | None = None
    end: int = 0

    def text(self, keyword: str) -> str:
        """The value as text, without padding; "" where there is none."""
        return self._decoded(self.values[keyword][1]) if keyword in self.values else ""

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values of a multi-valued text."""
        text = self.text(keyword)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """The values as finite numbers; () where one of them is none."""
        if keyword not in self.values:
            return ()
        form, raw = self.values[keyword]
        try:
            if form in _BINARY:
                count = len(raw) // struct.calcsize(f"<{_BINARY[form]}")
                found = [float(x) for x in struct.unpack(f"{self.byte_order}{count}{_BINARY[form]}", raw)]
            elif b"_" in raw:
                # Python takes it between digits.
                return ()
            else:
                found = [float(part) for part in raw.decode("ascii").strip(" \0").split("\\")]
        except (ValueError, struct.error):
            found = self._odd_numbers(form, raw)
        return tuple(found) if all(map(math.isfinite, found)) else ()

    def _odd_numbers(self, form: bytes, raw: bytes) -> list[float]:
        """Numbers that are written otherwise than the standard has it, or []."""
        try:
            decimal_commas = form == b"DS" and commas_are_decimal_points(self.commas)
            return [] if form in _BINARY else parse_decimals(raw, decimal_commas)
        except ValueError:
            return []

    def number(self, keyword: str) -> float | None:
        """The first value as a finite number, or None."""
        found = self.numbers(keyword)
        return found[0] if found else None

    def items(self, keyword: str) -> list[Elements]:
        """Items of a sequence."""
        return self.sequences.get(keyword, [])

    def _decoded(self, raw: bytes) -> str:
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii").strip(" \0")
        return decode_text(raw, self.charsets).strip(" \0")


class ElementReader:
    """Reads elements from a stream that holds `size` bytes."""

    def __init__(self, stream: BinaryIO, size: int, limits: ReadLimits) -> None:
        self._stream, self._size, self._limits = stream, size, limits
        stream.seek(0)
        self._data = stream.read(min(size, _FIRST_READ))
        self._wanted: TagTable = {}
        self._stop = 0
        self._items_read = 0
        self._order, self._head, self._length = _DECODERS[True]

    @property
    def first_bytes(self) -> bytes:
        """The beginning of the stream, 64 KiB or more where it has as many."""
        return self._data

    def read(self, start: int, explicit: bool, little_endian: bool, wanted: TagTable, stop: int) -> Elements:
        """Read the elements `wanted` from offset `start`, up to the first one whose tag is `stop` or above.

        Raises:
            DicomError: the file ends within an element, nests too deep, or has a header over the limit.
        """
        self._wanted, self._stop, self._items_read = wanted, stop, 0
        self._order, self._head, self._length = _DECODERS[little_endian]
        elements = Elements(self._order)
        if not explicit and self._data[start + 4 : start + 6] in KNOWN_VRS:
            # A length that spells a value representation: some files are explicit where they say implicit.
            explicit = True
        elements.end = self._dataset(elements, start, self._size, explicit, 0)
        return elements

    def _need(self, upto: int) -> None:
        """Have the first `upto` bytes in memory."""
        if upto <= len(self._data):
            return
        if upto > self._size:
            raise _broken("The file ends within its header.")
        if upto > self._limits.max_header_bytes:
            needed = max(upto, 2 * self._limits.max_header_bytes)
            raise _broken("The header is longer than the limit.", raise_limit("max_header_bytes", needed))
        wanted = min(self._size, self._limits.max_header_bytes, max(upto, 8 * len(self._data)))
        self._data += self._stream.read(wanted - len(self._data))
        if upto > len(self._data):
            raise _broken(
                "The file became shorter while it was read.", "Grade the folder once copying is done."
            )

    def _element(self, at: int, explicit: bool) -> ElementHeader:
        if at + 8 > len(self._data):
            self._need(at + 8)
        group, number, form, short = self._head(self._data, at)
        tag = group << 16 | number
        if group == 0xFFFE:
            form = b""
        elif explicit and form.isalpha() and form.isupper():
            if form not in LONG_LENGTH_VRS:
                return ElementHeader(tag, form, short, at + 8)
            if at + 12 > len(self._data):
                self._need(at + 12)
            length = self._length(self._data, at + 8)[0]
            return ElementHeader(tag, form, length, at + 12)
        else:
            form = b""
        length = self._length(self._data, at + 4)[0]
        return ElementHeader(tag, form, length, at + 8)

    def _dataset(self, elements: Elements, at: int, end: int, explicit: bool, depth: int) -> int:
        """Fill `elements` from `at` on; returns the offset behind the dataset."""
        while at < end:
            if end - at < 8 and depth == 0:
                # Padding behind the last element.
                return end
            place = self._element(at, explicit)
            tag, form, length, start = place
            if tag == _ITEM_END:
                return start
            if depth == 0 and tag >= self._stop:
                elements.stopped_at = place
                return at
            keyword, dictionary_form = self._wanted.get(tag, ("", b""))
            if keyword and dictionary_form == b"SQ":
                if form == b"UN" and self._order == ">":
                    with self._byte_order_of(place):
                        found, at = self._items(place, elements, explicit, depth + 1)
                else:
                    found, at = self._items(place, elements, explicit, depth + 1)
                elements.sequences[keyword] = found
                continue
            if length == UNDEFINED_LENGTH:
                if form == b"UN" and self._order == ">":
                    with self._byte_order_of(place):
                        at = self._behind(start, False, depth)
                else:
                    at = self._behind(start, explicit and form != b"UN", depth)
                continue
            at = start + length
            if at > end:
                raise _broken("An element of the header reaches beyond the end of the file.")
            if keyword:
                if at > len(self._data):
                    self._need(at)
                value = self._data[start:at]
                form = form if form in _NUMERIC else dictionary_form
                elements.values[keyword] = form, value
                if form == b"DS" and b"," in value:
                    elements.commas.append(value)
                if keyword == "SpecificCharacterSet":
                    elements.charsets = elements.texts(keyword)
        return at

    def _items(
        self, sequence: ElementHeader, parent: Elements, explicit: bool, depth: int
    ) -> tuple[list[Elements], int]:
        """The items of a sequence, and the offset behind it."""
        self._check_depth(depth)
        explicit = explicit and sequence.form != b"UN"
        bounded = sequence.length != UNDEFINED_LENGTH
        at, end = sequence.start, sequence.start + sequence.length if bounded else self._size
        if end > self._size:
            raise _broken("An element of the header reaches beyond the end of the file.")
        found: list[Elements] = []
        while at < end:
            item = self._element(at, explicit)
            if item.tag == _SEQUENCE_END:
                return found, item.start
            if item.tag != _ITEM:
                if bounded and not found:
                    # No sequence, whatever the dictionary says of the tag. It ends where its length says.
                    return found, end
                raise _broken("A sequence in the header holds something that is no item.")
            self._items_read += 1
            if self._items_read > self._limits.max_items:
                advice = raise_limit("max_items", 2 * self._limits.max_items)
                raise _broken("The header has more sequence items than the limit.", advice)
            elements = Elements(self._order, parent.charsets, parent.commas)
            item_end = end if item.length == UNDEFINED_LENGTH else item.start + item.length
            if item_end > end:
                raise _broken("An element of the header reaches beyond the end of the file.")
            content_explicit = explicit or self._spells_explicit(item.start, item_end)
            at = self._dataset(elements, item.start, item_end, content_explicit, depth)
            found.append(elements)
        return found, at

    def _behind(self, at: int, explicit: bool, depth: int) -> int:
        """The offset behind a value of undefined length that starts at `at`; nothing of it is kept."""
        forms = [explicit]
        while forms:
            self._check_depth(depth + len(forms) // 2)
            place = self._element(at, forms[-1])
            at = place.start
            if place.tag in (_ITEM_END, _SEQUENCE_END):
                forms.pop()
            elif place.length == UNDEFINED_LENGTH:
                if place.tag == _ITEM:
                    forms.append(forms[-1] or self._spells_explicit(at, self._size))
                else:
                    forms.append(forms[-1] and place.form != b"UN")
            else:
                at += place.length
        return at

    def _spells_explicit(self, at: int, end: int) -> bool:
        """Whether the dataset of an item, implicit by its place, is explicit by its bytes.

        The items of a sequence of VR UN are implicit (PS3.5, 6.2.2, note 4), and some writers leave them
        explicit. Two letters that name a value representation could also be an implicit length of 16 kB or
        more, so the element behind has to follow: a higher tag, in the same encoding, or the item's end.
        """
        last = -1
        for _ in range(2):
            if at + 8 > end:
                return last >= 0 and at == end
            self._need(at + 8)
            group, number, form, length = self._head(self._data, at)
            tag = group << 16 | number
            if tag == _ITEM_END:
                return last >= 0
            if form not in KNOWN_VRS or tag <= last:
                return False
            last, at = tag, at + 8
            if form in LONG_LENGTH_VRS:
                if at + 4 > end:
                    return False
                self._need(at + 4)
                length, at = self._length(self._data, at)[0], at + 4
                if length == UNDEFINED_LENGTH:
                    return True
            at += length
            if at > end:
                return False
            if at + 8 > self._limits.max_header_bytes:
                return True
        return True

    @contextmanager
    def _byte_order_of(self, place: ElementHeader) -> Iterator[None]:
        """For a sequence of VR UN in a big endian dataset, read in the byte order of its items: little endian
        by the standard."""
        little = self._data[place.start : place.start + 4] in _LITTLE_ITEMS
        self._order, self._head, self._length = _DECODERS[little]
        try:
            yield
        finally:
            self._order, self._head, self._length = _DECODERS[False]

    def _check_depth(self, depth: int) -> None:
        if depth > self._limits.max_sequence_depth:
            advice = raise_limit("max_sequence_depth", 2 * self._limits.max_sequence_depth)
            raise _broken("Sequences in the header are nested too deep.", advice)


def _broken(reason: str, advice: str = "Send or export the file again.") -> DicomError:
    return DicomError(Stage.HEADER, reason, advice)
