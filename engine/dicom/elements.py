"""Reader of selected data elements of a dataset, under limits (encoding: DICOM PS3.5, chapter 7).

A header has hundreds of elements, of which the engine needs about forty. The reader decodes those and skips
the others. It never reads past the end of the file or the limits, so wrong lengths, endless nesting and
millions of elements cost no memory. It takes a third of the time of a complete parser.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from stenosis_trt.engine.dicom.errors import header_error
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.plain_elements import (
    BINARY_FORMATS,
    KNOWN_VRS,
    LONG_LENGTH_VRS,
    NUMERIC_VRS,
    UNDEFINED_LENGTH,
    TagTable,
    Values,
    read_plain,
)
from stenosis_trt.engine.dicom.values import commas_are_decimal_points, decode_text, parse_decimals

FIRST_PIXEL_TAG = 0x7FE00008
"""FloatPixelData; DoubleFloatPixelData and PixelData follow, the extended offset tables precede it."""

_FIRST_READ = 1 << 14
"""Bytes. Many headers are shorter; those of Siemens have 130 kB, most of it in few private elements."""
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LITTLE_ITEMS = {struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in (_ITEM, _SEQUENCE_END)}
_NO_STOP = 1 << 32
"""Above every tag."""

# Little endian? → byte order of `struct`, decoder of an element's first 8 bytes, decoder of a 32-bit length.
_DECODERS = {
    little: (sign, struct.Struct(f"{sign}HH2sH").unpack_from, struct.Struct(f"{sign}L").unpack_from)
    for little, sign in ((True, "<"), (False, ">"))
}


class ElementHeader(NamedTuple):
    """Tag, value representation, value length and offset of the value in the file."""

    tag: int
    vr: bytes
    length: int
    value_offset: int


@dataclass(slots=True)
class Elements:
    """Selected elements of one dataset. Absent elements and unusable values read as empty.

    Attributes:
        byte_order: "<" or ">", as in `struct`.
        charsets: values of SpecificCharacterSet.
        comma_decimals: decimal strings with commas, of all datasets of the file.
        values: keyword → (value representation, raw value).
        sequences: keyword → items.
        stopped_at: the element at which reading stopped, or None at the end of the file.
        end: offset at which reading stopped.
    """

    byte_order: str = "<"
    charsets: tuple[str, ...] = ()
    comma_decimals: list[bytes] = field(default_factory=list)
    values: Values = field(default_factory=dict)
    sequences: dict[str, list[Elements]] = field(default_factory=dict)
    stopped_at: ElementHeader | None = None
    end: int = 0

    def text(self, keyword: str) -> str:
        """Return the value as text without padding, or ""."""
        return self._decoded(self.values[keyword][1]) if keyword in self.values else ""

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return the values of a multi-valued text."""
        text = self.text(keyword)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return the values as numbers, or () if one of them is not a finite number."""
        if keyword not in self.values:
            return ()
        vr, raw = self.values[keyword]
        try:
            if vr in BINARY_FORMATS:
                count = len(raw) // struct.calcsize(f"<{BINARY_FORMATS[vr]}")
                found = [
                    float(x) for x in struct.unpack(f"{self.byte_order}{count}{BINARY_FORMATS[vr]}", raw)
                ]
            elif b"_" in raw:
                # `float` accepts underscores between digits.
                return ()
            else:
                found = [float(part) for part in raw.decode("ascii").strip(" \0").split("\\")]
        except (ValueError, struct.error):
            found = self._nonstandard_numbers(vr, raw)
        return tuple(found) if all(map(math.isfinite, found)) else ()

    def _nonstandard_numbers(self, vr: bytes, raw: bytes) -> list[float]:
        """Return numbers in a non-standard notation, or []."""
        try:
            decimal_commas = vr == b"DS" and commas_are_decimal_points(self.comma_decimals)
            return [] if vr in BINARY_FORMATS else parse_decimals(raw, decimal_commas)
        except ValueError:
            return []

    def number(self, keyword: str) -> float | None:
        """Return the first value as a finite number, or None."""
        found = self.numbers(keyword)
        return found[0] if found else None

    def items(self, keyword: str) -> list[Elements]:
        """Return the items of a sequence."""
        return self.sequences.get(keyword, [])

    def _decoded(self, raw: bytes) -> str:
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii").strip(" \0")
        return decode_text(raw, self.charsets).strip(" \0")


class ElementReader:
    """Reads elements from a stream of `size` bytes, with or without buffer. Nothing else may move it."""

    def __init__(self, stream: BinaryIO, size: int, limits: ReadLimits) -> None:
        self._stream, self._size, self._limits = stream, size, limits
        stream.seek(0)
        self._data = b""
        self._read_on(min(size, _FIRST_READ))
        self._wanted: TagTable = {}
        self._stop = 0
        self._items_read = 0
        self._order, self._unpack_header, self._unpack_length = _DECODERS[True]

    def first_bytes(self, count: int) -> bytes:
        """Return at least the first `count` bytes of the stream, or all of a shorter one."""
        self._read_on(min(count, self._size))
        return self._data

    def read(self, start: int, explicit: bool, little_endian: bool, wanted: TagTable, stop: int) -> Elements:
        """Read the elements `wanted` from offset `start` up to the first tag that is not below `stop`.

        Raises:
            DicomError: the file ends within an element, nests too deep, or has a header over the limit.
        """
        self._wanted, self._stop, self._items_read = wanted, stop, 0
        self._order, self._unpack_header, self._unpack_length = _DECODERS[little_endian]
        elements = Elements(self._order)
        if not explicit and self._data[start + 4 : start + 6] in KNOWN_VRS:
            # Some files that are declared as implicit are explicit.
            explicit = True
        elements.end = self._read_dataset(elements, start, self._size, explicit, 0)
        return elements

    def _require(self, upto: int) -> None:
        """Read on until the first `upto` bytes are in memory."""
        if upto <= len(self._data):
            return
        if upto > self._size:
            raise header_error("The file ends within its header.")
        if upto > self._limits.max_header_bytes:
            needed = max(upto, 2 * self._limits.max_header_bytes)
            raise header_error(
                "The header is longer than the limit.", raise_limit("max_header_bytes", needed)
            )
        ahead = max(upto + _FIRST_READ, 2 * len(self._data))
        self._read_on(min(self._size, self._limits.max_header_bytes, ahead))
        if upto > len(self._data):
            raise header_error(
                "The file became shorter while it was read.", "Grade the folder once copying is done."
            )

    def _read_on(self, count: int) -> None:
        """Read on until the first `count` bytes are in memory, or the stream ends."""
        while len(self._data) < count:
            # A stream without buffer may return less than it is asked for.
            more = self._stream.read(count - len(self._data))
            if not more:
                break
            self._data += more

    def _read_header(self, at: int, explicit: bool) -> ElementHeader:
        if at + 8 > len(self._data):
            self._require(at + 8)
        group, number, vr, short = self._unpack_header(self._data, at)
        tag = group << 16 | number
        if group == 0xFFFE:
            vr = b""
        elif explicit and vr.isalpha() and vr.isupper():
            if vr not in LONG_LENGTH_VRS:
                return ElementHeader(tag, vr, short, at + 8)
            if at + 12 > len(self._data):
                self._require(at + 12)
            length = self._unpack_length(self._data, at + 8)[0]
            return ElementHeader(tag, vr, length, at + 12)
        else:
            vr = b""
        length = self._unpack_length(self._data, at + 4)[0]
        return ElementHeader(tag, vr, length, at + 8)

    def _read_dataset(self, elements: Elements, at: int, end: int, explicit: bool, depth: int) -> int:
        """Read the dataset at offset `at` into `elements`; return the offset after it."""
        stop = _NO_STOP if depth else self._stop
        values, comma_decimals = elements.values, elements.comma_decimals
        while at < end:
            encoding = explicit, self._order == "<"
            at = read_plain(self._data, at, end, encoding, self._wanted, stop, values, comma_decimals)
            if at >= end:
                break
            if end - at < 8 and depth == 0:
                # Padding after the last element.
                return end
            header = self._read_header(at, explicit)
            tag, vr, length, start = header
            if tag == _ITEM_END:
                return start
            if tag >= stop:
                elements.stopped_at = header
                return at
            keyword, dictionary_vr = self._wanted.get(tag, ("", b""))
            if keyword and dictionary_vr == b"SQ":
                if vr == b"UN" and self._order == ">":
                    with self._byte_order_of(header):
                        found, at = self._read_items(header, elements, explicit, depth + 1)
                else:
                    found, at = self._read_items(header, elements, explicit, depth + 1)
                elements.sequences[keyword] = found
                continue
            if length == UNDEFINED_LENGTH:
                if vr == b"UN" and self._order == ">":
                    with self._byte_order_of(header):
                        at = self._skip_undefined(start, False, depth)
                else:
                    at = self._skip_undefined(start, explicit and vr != b"UN", depth)
                continue
            at = start + length
            if at > end:
                raise header_error("An element of the header reaches beyond the end of the file.")
            if keyword:
                if at > len(self._data):
                    self._require(at)
                value = self._data[start:at]
                vr = vr if vr in NUMERIC_VRS else dictionary_vr
                values[keyword] = vr, value
                if vr == b"DS" and b"," in value:
                    comma_decimals.append(value)
                if keyword == "SpecificCharacterSet":
                    elements.charsets = elements.texts(keyword)
        return at

    def _read_items(
        self, sequence: ElementHeader, parent: Elements, explicit: bool, depth: int
    ) -> tuple[list[Elements], int]:
        """Return the items of a sequence and the offset after it."""
        self._check_depth(depth)
        explicit = explicit and sequence.vr != b"UN"
        bounded = sequence.length != UNDEFINED_LENGTH
        at, end = sequence.value_offset, sequence.value_offset + sequence.length if bounded else self._size
        if end > self._size:
            raise header_error("An element of the header reaches beyond the end of the file.")
        found: list[Elements] = []
        while at < end:
            item = self._read_header(at, explicit)
            if item.tag == _SEQUENCE_END:
                return found, item.value_offset
            if item.tag != _ITEM:
                if bounded and not found:
                    # Not a sequence, although the data dictionary says so: skip it by its length.
                    return found, end
                raise header_error("A sequence in the header contains something other than items.")
            self._items_read += 1
            if self._items_read > self._limits.max_items:
                advice = raise_limit("max_items", 2 * self._limits.max_items)
                raise header_error("The header has more sequence items than the limit.", advice)
            elements = Elements(self._order, parent.charsets, parent.comma_decimals)
            item_end = end if item.length == UNDEFINED_LENGTH else item.value_offset + item.length
            if item_end > end:
                raise header_error("An element of the header reaches beyond the end of the file.")
            content_explicit = explicit or self._is_explicit(item.value_offset, item_end)
            at = self._read_dataset(elements, item.value_offset, item_end, content_explicit, depth)
            found.append(elements)
        return found, at

    def _skip_undefined(self, at: int, explicit: bool, depth: int) -> int:
        """Return the offset after a value of undefined length at `at`; its content is skipped."""
        explicit_stack = [explicit]
        while explicit_stack:
            self._check_depth(depth + len(explicit_stack) // 2)
            header = self._read_header(at, explicit_stack[-1])
            at = header.value_offset
            if header.tag in (_ITEM_END, _SEQUENCE_END):
                explicit_stack.pop()
            elif header.length == UNDEFINED_LENGTH:
                if header.tag == _ITEM:
                    explicit_stack.append(explicit_stack[-1] or self._is_explicit(at, self._size))
                else:
                    explicit_stack.append(explicit_stack[-1] and header.vr != b"UN")
            else:
                at += header.length
        return at

    def _is_explicit(self, at: int, end: int) -> bool:
        """Return True if the dataset of an item that should be implicit VR is encoded as explicit VR.

        Items of a sequence of VR UN are implicit (PS3.5, 6.2.2, note 4), but some writers leave them
        explicit. The two letters of a value representation could also be an implicit length of 16 kB or more,
        so the next element must have a higher tag and the same encoding, or the item must end there.
        """
        last = -1
        for _ in range(2):
            if at + 8 > end:
                return last >= 0 and at == end
            self._require(at + 8)
            group, number, vr, length = self._unpack_header(self._data, at)
            tag = group << 16 | number
            if tag == _ITEM_END:
                return last >= 0
            if vr not in KNOWN_VRS or tag <= last:
                return False
            last, at = tag, at + 8
            if vr in LONG_LENGTH_VRS:
                if at + 4 > end:
                    return False
                self._require(at + 4)
                length, at = self._unpack_length(self._data, at)[0], at + 4
                if length == UNDEFINED_LENGTH:
                    return True
            at += length
            if at > end:
                return False
            if at + 8 > self._limits.max_header_bytes:
                return True
        return True

    @contextmanager
    def _byte_order_of(self, header: ElementHeader) -> Iterator[None]:
        """Within a big endian dataset, read a sequence of VR UN in the byte order of its items: little endian
        by the standard."""
        little = self._data[header.value_offset : header.value_offset + 4] in _LITTLE_ITEMS
        self._order, self._unpack_header, self._unpack_length = _DECODERS[little]
        try:
            yield
        finally:
            self._order, self._unpack_header, self._unpack_length = _DECODERS[False]

    def _check_depth(self, depth: int) -> None:
        if depth > self._limits.max_sequence_depth:
            advice = raise_limit("max_sequence_depth", 2 * self._limits.max_sequence_depth)
            raise header_error("Sequences in the header are nested too deep.", advice)
