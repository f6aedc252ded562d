"""Text for DICOM attributes of limited length."""

from __future__ import annotations

from stenosis_trt.engine.support.safe_text import escape_controls

LONG_STRING = 64
"""Characters of the value representation LO (PS3.5, 6.2)."""


def long_string(text: str, limit: int = LONG_STRING) -> str:
    """Return a text as one valid value of LO, or with `limit` 16 of SH.

    Control characters are escaped, a backslash, which would separate two values, becomes a slash, and what is
    too long ends in "...".
    """
    line = escape_controls(" ".join(text.split())).replace("\\", "/")
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."
