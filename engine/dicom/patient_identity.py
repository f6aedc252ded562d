"""Keyed digests of the patient attributes of a header.

Only the digests leave the reading process. Their key is random for each run: they are comparable within the
run and reveal nothing afterwards.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from typing import NamedTuple

from stenosis_trt.engine.dicom.elements import Elements

PATIENT_KEYWORDS = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")

_DIGEST_BYTES = 16
_PLACEHOLDERS = {
    *("anon", "anonym", "anonymous", "anonymised", "anonymized", "anonymize", "anonymise"),
    *("deidentified", "identified", "de", "removed", "redacted", "unknown", "none", "null", "noname"),
    *("na", "no", "name", "id", "noid", "patient", "subject"),
}
"""Words that de-identification software writes in place of a name or an identifier."""
_WORD = re.compile(r"[^\W_]+")
_BIRTH_DATE = re.compile(r"\d{8}", re.ASCII)
_PROCESS_KEY = os.urandom(32)


class PatientIdentity(NamedTuple):
    """Keyed digests of a file's patient attributes; b"" if an attribute is absent.

    `names` are the alphabetic, ideographic and phonetic representation (DICOM PS3.5, 6.2: PN).
    """

    id: bytes
    issuer: bytes
    names: tuple[bytes, bytes, bytes]
    birth_date: bytes

    @property
    def named(self) -> bool:
        """True if there is an identifier or a name."""
        return bool(self.id) or any(self.names)

    @property
    def identified(self) -> bool:
        """True if the attributes identify a patient: an identifier, or name and birth date."""
        return bool(self.id) or (any(self.names) and bool(self.birth_date))


def read_patient(elements: Elements, key: bytes | None = None) -> PatientIdentity:
    """Return digests of a header's patient attributes with `key`, by default a random one of this process.

    Values are normalised first: padding, case, and order and empty components of a name do not matter.
    Leading zeros of an identifier do.
    """
    key = _PROCESS_KEY if key is None else key
    groups = [*_text(elements, "PatientName").split("="), "", "", ""][:3]
    birth_date = "".join(c for c in _text(elements, "PatientBirthDate") if c not in ".- ")
    return PatientIdentity(
        _digest(_identifier(_text(elements, "PatientID")), "id", key),
        _digest(_plain(_text(elements, "IssuerOfPatientID")), "issuer", key),
        tuple(_digest(_name(group), "name", key) for group in groups),  # type: ignore[arg-type]
        _digest(birth_date if _BIRTH_DATE.fullmatch(birth_date) else "", "birth", key),
    )


def _text(elements: Elements, keyword: str) -> str:
    try:
        return elements.text(keyword)
    except (ValueError, LookupError):
        # Unknown character set: compare the bytes.
        return elements.values[keyword][1].decode("latin-1")


def _plain(text: str) -> str:
    shown = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFKC", text) if c != "\0")
    return " ".join(shown.split()).casefold()


def _identifier(text: str) -> str:
    plain = _plain(text)
    words = _WORD.findall(plain)
    return "" if not words or set(words) <= _PLACEHOLDERS else plain


def _name(text: str) -> str:
    """Return family and given name in sorted order without diacritics, or "" for a placeholder."""
    family_and_given = " ".join(text.split("^")[:2]) if "^" in text else text
    letters = unicodedata.normalize("NFKD", _plain(family_and_given))
    words = _WORD.findall("".join(c for c in letters if not unicodedata.combining(c)))
    return "" if set(words) <= _PLACEHOLDERS else " ".join(sorted(words))


def _digest(text: str, kind: str, key: bytes) -> bytes:
    if not text:
        return b""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES, key=key, person=kind.encode()
    ).digest()
