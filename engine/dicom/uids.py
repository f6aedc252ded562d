"""Unique identifiers, made safe to write.

Many UIDs violate the standard slightly, by leading zeros or more than 64 characters. Some systems write
names, paths or formulas in their place. These are replaced by their hash, equal texts by equal hashes, so
that the files of a study stay together.
"""

from __future__ import annotations

import hashlib
import re

from stenosis_trt.engine.dicom.pydicom_loader import load_pydicom

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR: Media Storage Directory Storage."""
_VALID_UID = re.compile(r"[0-2](\.(0|[1-9]\d*))+", re.ASCII)
_SAFE_UID = re.compile(r"[0-9.]{1,64}")
_HASHED = "hash:"
_DIGITS = 32
"""128 bits, enough to exclude collisions."""


def is_uid(text: str) -> bool:
    """Return True if a text is a valid UID (DICOM PS3.5, 9.1)."""
    return len(text) <= 64 and _VALID_UID.fullmatch(text) is not None


def safe_uid(text: str) -> str:
    """Return a UID of at most 64 digits and dots (PS3.5, 9.1) unchanged, any other text as "hash:" with the
    first 128 bits of its SHA-256. An empty text stays empty."""
    if not text or _SAFE_UID.fullmatch(text):
        return text
    return _HASHED + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def stated_uid(text: str) -> str:
    """Return the UID that a header states, safe to write: see `safe_uid`. A writer with decimal commas may
    use commas in UIDs too, which become the dots that its archive has."""
    if "," in text and is_uid(text.replace(",", ".")):
        return text.replace(",", ".")
    return safe_uid(text)


def is_replacement(uid: str) -> bool:
    """Return True if `safe_uid` replaced the UID."""
    return uid.startswith(_HASHED)


def class_keyword(sop_class: str) -> str:
    """Return the keyword of a SOP class (DICOM PS3.6, A), as "MRImageStorage"; "" for an unknown one."""
    load_pydicom()
    from pydicom.uid import UID

    return str(UID(sop_class).keyword)
