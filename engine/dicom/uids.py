"""Unique identifiers as headers hold them, made safe to write.

Real UIDs are sloppy: components begin with a zero, or more than 64 characters are taken. Some systems put
names, paths or formulas there. What is no UID is replaced by its hash, the same text always by the same, so
files still belong together.
"""

from __future__ import annotations

import hashlib
import re

_UID = re.compile(r"[0-9.]{1,64}")
_HASHED = "hash:"
_DIGITS = 32
"""128 bits: no two texts of a run share them."""


def safe_uid(text: str) -> str:
    """The UID as it is if it consists of at most 64 digits and dots (PS3.5, 9.1); else "hash:" and the first
    128 bits of its SHA-256. An empty text stays empty."""
    if not text or _UID.fullmatch(text):
        return text
    return _HASHED + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def is_replacement(uid: str) -> bool:
    """Return True if `safe_uid` replaced the UID."""
    return uid.startswith(_HASHED)
