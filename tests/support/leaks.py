"""Search for strings in files of every kind that a run writes, also where they are compressed or encoded.

Each kind is opened as its readers open it: the elements of a DICOM object, the text chunks of a PNG, the
values and metadata of a Parquet file, the data URLs of a page, the members of an archive.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

_PNG = b"\x89PNG\r\n\x1a\n"
_DATA_URL = re.compile(rb"data:[\w/+.-]*(?:;[\w=.-]+)*;base64,([A-Za-z0-9+/=]+)")
_YEAR_FIRST = re.compile(r"(?=(\d{4})[-./]?(\d{2})[-./]?(\d{2}))")
_DAY_FIRST = re.compile(r"(?=(\d{2})[-./](\d{2})[-./](\d{4}))")
_START = 2
_PIXELS = {"PixelData", "FloatPixelData", "DoubleFloatPixelData"}


@dataclass(frozen=True)
class Leak:
    """A marker, and where it was found: a file, and within it an attribute or part."""

    marker: str
    file: str
    part: str = ""


def leaks_in(folder: Path, markers: Collection[str]) -> Iterator[Leak]:
    """Yield every marker in the names and contents of all files below a folder."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        yield from (Leak(marker, name, "file name") for marker in _in_text(name, markers))
        if path.is_file():
            yield from (
                Leak(marker, name, part) for marker, part in leaks_in_bytes(path.read_bytes(), markers)
            )


def leaks_in_bytes(content: bytes, markers: Collection[str]) -> set[tuple[str, str]]:
    """Return each marker in a file's content with the part that has it."""
    found = set()
    for part, piece in _parts(content):
        found |= {(marker, part) for marker in _in_text(piece, markers)}
    return found


def _in_text(text: str, markers: Collection[str]) -> set[str]:
    """Markers in a text, whatever the case; dates also as ISO 8601 and in the usual other forms."""
    days = {marker for marker in markers if marker.isdigit()}
    found = days & {"".join(parts) for parts in _YEAR_FIRST.findall(text)}
    found |= days & {year + month + day for day, month, year in _DAY_FIRST.findall(text)}
    folded = text.casefold()
    words = {marker.casefold(): marker for marker in markers if marker not in days}
    # Nearly all texts have none: the first letters, which many markers share, are looked for first.
    for start in {word[:_START] for word in words}:
        if start in folded:
            found |= {words[word] for word in words if word.startswith(start) and word in folded}
    return found


def _parts(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of all parts of a file."""
    if content[128:132] == b"DICM":
        yield "preamble", _text(content[:128])
        yield from _elements(pydicom.dcmread(io.BytesIO(content)))
        return
    yield "content", _text(content)
    if content.startswith(_PNG):
        yield from _png_texts(content)
    elif content.startswith(b"PAR1"):
        yield from _parquet_texts(content)
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield f"member {name}", name
                yield from _parts(archive.read(name))
    elif content.startswith(b"\x1f\x8b"):
        yield from _parts(gzip.decompress(content))
    for found in _DATA_URL.finditer(content):
        yield from _parts(base64.b64decode(found[1]))
    if content.startswith((_PNG, b"PAR1")):
        return
    text = _text(content)
    if "&" in text:
        yield "unescaped content", html.unescape(text)
    if "\\u" in text:
        yield "decoded content", re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _elements(dataset: Dataset, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each element of a data set, its items and its file meta information as text."""
    if not prefix and hasattr(dataset, "file_meta"):
        yield from _elements(dataset.file_meta, "file_meta.")
    for element in dataset:
        name = f"{prefix}{element.keyword or element.tag}"
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item, f"{name}.")
        elif element.keyword not in _PIXELS:
            value: Any = element.value
            if isinstance(value, bytes):
                yield from ((f"{name}: {part}", text) for part, text in _parts(value))
            else:
                yield name, str(value)


def _png_texts(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the texts of the chunks tEXt, zTXt and iTXt (PNG specification, 11.3.3)."""
    position = len(_PNG)
    while position + 8 <= len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind = content[position + 4 : position + 8]
        data = content[position + 8 : position + 8 + length]
        if kind == b"zTXt":
            keyword, _, rest = data.partition(b"\0")
            yield "chunk zTXt", _text(keyword + b" " + zlib.decompress(rest[1:]))
        elif kind == b"iTXt":
            keyword, _, rest = data.partition(b"\0")
            # Compression flag and method, language tag, translated keyword.
            _, _, text = rest[2:].partition(b"\0")[2].partition(b"\0")
            yield "chunk iTXt", _text(keyword + b" " + (zlib.decompress(text) if rest[0] else text))
        position += 12 + length


def _parquet_texts(content: bytes) -> Iterator[tuple[str, str]]:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    yield "metadata", str(table.schema.to_string(show_schema_metadata=True))
    for name in table.column_names:
        yield f"column {name}", json.dumps(table.column(name).to_pylist(), ensure_ascii=False, default=str)
