"""Changes to valid input: bytes, nodes of JSON, elements of DICOM, one file among several.

What is valid but for one place gets farther into a reader than noise. Everything is drawn from the generator
that is handed in: the same state gives the same change.
"""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any

_INTERESTING_BYTES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\r\n", b"\\", b"/", b'"', b"\xff\xff\xff\xff")
_TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "nan",
    "inf",
    "1,5",
    "..",
    "../x",
    "/etc/passwd",
    "a\\b",
    "\x00",
    "\n",
    "\x1b[31m",
    "=1+1",
    "é",
    "\ud800",
    "1.2.3",
    "9" * 400,
    "A" * 70000,
)
_NUMBERS = (
    "0",
    "-1",
    "1",
    "true",
    "1e999",
    "-1e999",
    "NaN",
    "1e308",
    "5e-324",
    "1" + "0" * 400,
    "2147483648",
)


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """One to four changes: bits, bytes, pieces removed, doubled, moved or put in."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content) + 1)
        end = min(len(content), place + rng.choice((1, 1, 2, 4, 8, 64, 1024)))
        match rng.randrange(7):
            case 0 if place < len(content):
                content[place] ^= 1 << rng.randrange(8)
            case 1 if place < len(content):
                content[place] = rng.randrange(256)
            case 2:
                del content[place:end]
            case 3:
                content[place:place] = content[place:end]
            case 4:
                content[place:end] = rng.choice(_INTERESTING_BYTES)
            case 5:
                other = rng.randrange(len(content) + 1)
                content[place:place] = content[other : other + end - place]
            case _:
                del content[place:]
    return bytes(content)


class _Raw(str):
    """A JSON value as it is to be written."""


def mutated_json(rng: random.Random, text: bytes) -> bytes:
    """JSON with one to three nodes replaced, removed, renamed or moved; now and then bytes changed."""
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        return mutated_bytes(rng, text)
    if rng.random() < 0.1:
        return mutated_bytes(rng, text)
    root = [root]
    for _ in range(rng.randint(1, 3)):
        holders = _holders(root)
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = rng.choice(keys)
        match rng.randrange(8):
            case 0 if holder is not root:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice([*_TEXTS, *keys])] = holder.pop(key)
            case 2:
                other = rng.choice(holders)
                holder[key] = json.loads(json.dumps(other, default=str))
            case 3 if isinstance(holder, list) and holder is not root:
                holder.extend(holder[key : key + 1] * rng.choice((1, 2, 100)))
            case _:
                holder[key] = _any_json(rng)
    return _written(root[0]).encode("utf-8", "surrogatepass")


def _holders(node: Any) -> list[Any]:
    """Every object and array in a tree, itself first."""
    found, waiting = [], [node]
    while waiting:
        holder = waiting.pop()
        found.append(holder)
        values = holder.values() if isinstance(holder, dict) else holder
        waiting += [value for value in values if isinstance(value, dict | list)]
    return found


def _any_json(rng: random.Random) -> Any:
    deep = rng.choice((20, 2000, 20000))
    return rng.choice(
        (
            None,
            True,
            {},
            [],
            [[]],
            {"a": {}},
            [None],
            {"": None},
            rng.choice(_TEXTS),
            rng.choice(_TEXTS),
            _Raw(rng.choice(_NUMBERS)),
            _Raw(rng.choice(_NUMBERS)),
            _Raw("[" * deep + "]" * deep),
        )
    )


def _written(node: Any) -> str:
    if isinstance(node, _Raw):
        return str(node)
    if isinstance(node, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_written(value)}" for key, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(_written, node)) + "]"
    return json.dumps(node)


Bundle = dict[str, bytes]
"""Several files in one input, by their names."""


def packed(files: Mapping[str, bytes]) -> bytes:
    """A bundle as JSON, each file in base64."""
    return json.dumps({name: base64.b64encode(data).decode() for name, data in files.items()}).encode()


def unpacked(data: bytes) -> Bundle | None:
    """The files of a bundle; None where it is none, as a mutation of bytes may leave it."""
    try:
        content = json.loads(data)
        return {str(name): base64.b64decode(text, validate=True) for name, text in content.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None


def mutated_bundle(rng: random.Random, data: bytes, mutate: Callable[[random.Random, bytes], bytes]) -> bytes:
    """A bundle with one of its files changed by `mutate`, now and then exchanged with another or missing."""
    files = unpacked(data)
    if not files:
        return data
    names = list(files)
    name = rng.choice(names)
    match rng.randrange(12):
        case 0:
            files[name] = files[rng.choice(names)]
        case 1:
            del files[name]
        case _:
            files[name] = mutate(rng, files[name])
    return packed(files)


_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_VRS = sorted(_LONG | {b"AE", b"CS", b"DA", b"DS", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"UI", b"US"})
_UNDEFINED = 0xFFFFFFFF
_PREAMBLE = 128 + 4
_VALUES = (
    b"",
    b" ",
    b"\\",
    b"\\\\",
    b"0\\0\\0",
    b"1e400\\0\\0",
    b"nan\\0\\0",
    b"1,5\\2,5",
    b"-1\\-1",
    b"0.0",
    b"99999999999999999999",
    b"ISO_IR 192",
    b"ISO 2022 IR 87",
    b"\\ISO 2022 IR 58",
    b"%l`R6",
    b"ISO_IR\x00100",
    b"ISO_IR 100\\ISO_IR\x00 6",
    b"\xff\xfe\x00",
    b"1.2." * 20,
    b"\x00" * 8,
    b"MR",
    b"A" * 5000,
)
Element = list[Any]
"""Group, element, VR, value, and the length that is written for it: None for the true one."""


def _elements(data: bytes) -> list[Element] | None:
    """The elements at the top of an explicit little-endian dataset; None where it is not in order."""
    found: list[Element] = []
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            return None
        group, element, vr = struct.unpack_from("<HH2s", data, place)
        if vr in _LONG:
            if place + 12 > len(data):
                return None
            (length,) = struct.unpack_from("<I", data, place + 8)
            place += 12
        else:
            (length,) = struct.unpack_from("<H", data, place + 6)
            place += 8
        if length == _UNDEFINED:
            # To its end: what follows an element of unknown length is changed as bytes.
            found.append([group, element, vr, data[place:], _UNDEFINED])
            return found
        if place + length > len(data):
            return None
        found.append([group, element, vr, data[place : place + length], None])
        place += length
    return found


def _joined(elements: list[Element]) -> bytes:
    parts = []
    for group, element, vr, value, length in elements:
        written = len(value) if length is None else length
        head = struct.pack("<HH2s", group, element, vr)
        if vr in _LONG:
            parts.append(head + struct.pack("<HI", 0, written & _UNDEFINED))
        else:
            parts.append(head + struct.pack("<H", written & 0xFFFF))
        parts.append(value)
    return b"".join(parts)


def mutated_dicom(rng: random.Random, data: bytes) -> bytes:
    """A Part 10 file with one to three elements changed; now and then only bytes.

    Lengths stay true but where they are the change, so that what follows is still read.
    """
    elements = _elements(data[_PREAMBLE:]) if rng.random() < 0.9 else None
    if not elements:
        return mutated_bytes(rng, data)
    for _ in range(rng.randint(1, 3)):
        if not elements:
            break
        place = rng.randrange(len(elements))
        element = elements[place]
        match rng.randrange(10):
            case 0:
                del elements[place]
            case 1:
                elements.insert(place, list(element))
            case 2:
                other = rng.randrange(len(elements))
                elements[place], elements[other] = elements[other], elements[place]
            case 3:
                element[2] = rng.choice(_VRS)
            case 4:
                element[4] = rng.choice((0, 1, len(element[3]) + 1, 0xFFFF, 0x7FFFFFFF, _UNDEFINED))
            case 5:
                element[3] = mutated_bytes(rng, element[3][:4096])
            case 6 if element[2] == b"SQ":
                inner = _nested(rng, element[3])
                element[3], element[4] = inner, None
            case 7:
                # The same value under another tag: of its own group, or of any element that is there.
                element[0], element[1] = rng.choice(elements)[:2]
            case _:
                element[3] = rng.choice((*_VALUES, struct.pack("<H", rng.choice((0, 1, 7, 0x7FFF, 0xFFFF)))))
    return data[:_PREAMBLE] + _joined(elements)


def _nested(rng: random.Random, value: bytes) -> bytes:
    """The value of a sequence in itself, many times."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
    for _ in range(rng.choice((1, 10, 200))):
        inner = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(item)) + item
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    return item
