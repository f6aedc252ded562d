"""UIDs of the DICOM objects that reports are, derived from what is reported.

Equal results of equal images by the same models get equal UIDs, so that a receiver recognises an object that
it has. The UIDs have the form 2.25.<integer> (PS3.5, B.2), of a hash that is a UUID of version 8 (RFC 9562).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict
from typing import Any

from stenosis_trt.engine.reports.study_report import Provenance, StudyReport

_DIGITS = 4
"""Decimals of results that are compared; reports show fewer or as many."""
_UNCOMPARED = ("patient_id", "seconds")
"""Of a result: how long it took, and what is there only if identifiers are kept."""


def report_uid(report: StudyReport, *parts: str) -> str:
    """Return a UID for an object made from a report.

    It depends on the result, which names the images; on the models, the software and how it computed; and on
    `parts`. It does not depend on when and how fast the study was graded, on its place in the run, or on
    whether identifiers are kept.

    Args:
        report: the study.
        parts: what distinguishes the objects of one study, such as ("sc", "series").

    Returns:
        A valid UID of at most 44 characters.
    """
    result = {name: value for name, value in asdict(report.result).items() if name not in _UNCOMPARED}
    return _uid("report", device_uid(report.provenance), report.provenance.backend, _rounded(result), parts)


def derived_uid(uid: str, *parts: str) -> str:
    """Return the UID of a part of an object, or of one of several objects, from a UID that they share.

    It saves hashing the whole result once more.
    """
    return _uid("derived", uid, parts)


def device_uid(provenance: Provenance) -> str:
    """Return the UID of the algorithm: of the pack's content, the software and the precision of the models.

    Another pack is another device, as IHE AI Results asks. The same networks in another precision have other
    weights, and are another device as well.
    """
    return _uid("device", provenance.pack_sha256, provenance.software_version, provenance.precision)


def _uid(*content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    digest = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80  # version 8
    digest[8] = digest[8] & 0x3F | 0x80  # variant of RFC 9562
    return f"2.25.{uuid.UUID(bytes=bytes(digest)).int}"


def _rounded(value: Any) -> Any:
    """The value with all floats in it rounded, so that the last bits of a computation change no UID."""
    if isinstance(value, float):
        return round(value, _DIGITS) + 0.0  # -0.0 becomes 0.0
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
