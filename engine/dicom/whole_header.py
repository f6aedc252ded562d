"""All attributes of a file, as a pydicom data set: what reports repeat of patient and study.

Run it in a process with limited memory, on files whose header was read before (see `header`).
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

_CHARSET = re.compile(
    # Explicit VR in little and in big endian, then implicit VR; the last two bytes are the length.
    rb"(\x08\0\x05\0CS(?P<little>..)|\0\x08\0\x05CS(?P<big>..)|\x08\0\x05\0(?P<implicit>..)\0\0)",
    re.DOTALL,
)
"""Tag, value representation and length of SpecificCharacterSet."""


def read_whole_header(path: Path) -> Dataset:
    """Return the attributes of a file without its pixels.

    Values stay as they are in the file until they are asked for: decode text with `values.decode_text`. A
    SpecificCharacterSet that pydicom cannot interpret reads as empty.

    Raises:
        OSError: the file cannot be read.
        Exception: whatever pydicom raises for a file that changed since its header was read.
    """
    from pydicom import dcmread

    try:
        # Old archives store files without the preamble.
        return dcmread(path, stop_before_pixels=True, force=True)
    except (ValueError, LookupError):
        # pydicom looks the codecs up when it meets the element, and raises these for some values.
        data = path.read_bytes()
        blank = _without_charset(data)
        if blank == data:
            raise
        return dcmread(io.BytesIO(blank), stop_before_pixels=True, force=True)


def _without_charset(data: bytes) -> bytes:
    """Return a file with blanks as its first SpecificCharacterSet; the file itself if there is none."""
    found = _CHARSET.search(data)
    if found is None:
        return data
    length = int.from_bytes(found["little"] or found["implicit"] or b"", "little")
    length = length or int.from_bytes(found["big"] or b"", "big")
    return data[: found.end()] + b" " * length + data[found.end() + length :]
