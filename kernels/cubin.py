"""What a kernel takes of the device, read from the compiled image: registers, stack and shared memory.

A cubin is a little-endian ELF64 file. Its section `.nv.info` holds attributes; those that matter here are
pairs of a symbol's number and a value. Older images have the registers in a section header too, those of
CUDA 13 have them in the attributes alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = b"\x7fELF\x02\x01"
_SYMBOL_TABLE = 2
_SHORT_VALUE, _SIZED_VALUE = 3, 4
"""Formats of an attribute: up to 3, a value within its four bytes; 4, that many bytes behind it."""

# Attribute codes as cuobjdump names them: EIATTR_FRAME_SIZE, EIATTR_MIN_STACK_SIZE and EIATTR_REGCOUNT.
_FRAME_SIZE, _MIN_STACK_SIZE, _REGCOUNT = 0x11, 0x12, 0x2F


@dataclass(frozen=True)
class Resources:
    """What one kernel takes.

    Attributes:
        registers: of each thread.
        stack_bytes: local memory of each thread: spilled registers, indexed arrays, calls.
        shared_bytes: static shared memory of each block, with the 1 KiB that is reserved from 9.0 on.
    """

    registers: int
    stack_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    offset: int
    size: int
    link: int


def resources(cubin: bytes) -> dict[str, Resources]:
    """Resources of each kernel in a cubin, by the kernels' names in alphabetical order.

    Raises:
        ValueError: the bytes are no cubin, or one whose attributes are not where they are known to be.
    """
    if cubin[: len(_MAGIC)] != _MAGIC:
        raise ValueError("this is no cubin: it does not begin as a little-endian ELF64 file does")
    try:
        sections = {section.name: section for section in _sections(cubin)}
        names = _symbols(cubin, list(sections.values()))
        info = sections[".nv.info"]
        values: dict[tuple[str, int], int] = {}
        for code, payload in _attributes(cubin[info.offset : info.offset + info.size]):
            if code in (_FRAME_SIZE, _MIN_STACK_SIZE, _REGCOUNT):
                symbol, value = struct.unpack("<II", payload)
                values[names[symbol], code] = value
        kernels = sorted(name[len(".text.") :] for name in sections if name.startswith(".text."))
        return {
            kernel: Resources(
                registers=values[kernel, _REGCOUNT],
                stack_bytes=max(values[kernel, _FRAME_SIZE], values[kernel, _MIN_STACK_SIZE]),
                shared_bytes=sections[shared].size if (shared := f".nv.shared.{kernel}") in sections else 0,
            )
            for kernel in kernels
        }
    except (struct.error, KeyError, IndexError) as error:
        raise ValueError(f"this cubin is damaged or of a kind that is not known here: {error!r}") from error


def _sections(cubin: bytes) -> Iterator[_Section]:
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQII", cubin, table + size * index) for index in range(count)]
    names = headers[names_index][4]
    for name, kind, _flags, _address, offset, length, link, _info in headers:
        yield _Section(_string(cubin, names + name), kind, offset, length, link)


def _symbols(cubin: bytes, sections: list[_Section]) -> list[str]:
    """Names of the symbols, in their order."""
    table = next(section for section in sections if section.kind == _SYMBOL_TABLE)
    strings = sections[table.link].offset
    entries = struct.iter_unpack("<IBBHQQ", cubin[table.offset : table.offset + table.size])
    return [_string(cubin, strings + entry[0]) for entry in entries]


def _attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(info):
        form, code, value = struct.unpack_from("<BBH", info, position)
        position += 4
        if form > _SIZED_VALUE:
            raise KeyError(f"attribute {code:#x} of format {form}")
        length = value if form == _SIZED_VALUE else 0
        yield code, info[position : position + length]
        position += length


def _string(cubin: bytes, start: int) -> str:
    return cubin[start : cubin.index(b"\0", start)].decode()
