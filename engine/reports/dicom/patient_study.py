"""Patient and study attributes of an image, for the DICOM objects of its study (PS3.3, C.7.1.1 and C.7.2.1).

Values are decoded by the image's character set and written as UTF-8. What is not valid for its attribute is
left empty, as the standard allows, except what a receiver files the object by: the PatientID and UIDs.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from stenosis_trt.engine.dicom.uids import is_replacement, stated_uid
from stenosis_trt.engine.dicom.values import decode_text
from stenosis_trt.engine.reports.dicom.dicom_text import LONG_STRING, long_string
from stenosis_trt.engine.reports.study_report import CannotReport

if TYPE_CHECKING:
    from pydicom import Dataset

UTF_8 = "ISO_IR 192"
_SHORT_STRING = 16
"""Characters of the value representation SH (PS3.5, 6.2)."""
_NAME_GROUPS, _NAME_COMPONENTS = 3, 5
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", re.ASCII)
_TIMEZONE = re.compile(r"[+-](0\d|1[0-4])[0-5]\d", re.ASCII)
_SEXES = ("M", "F", "O")
_EXPORT_AGAIN = "Export the scanner's original images, and grade them."


def patient_and_study(image: Dataset) -> Dataset:
    """Return a data set with the patient and the study of an image, in UTF-8.

    It has the attributes of type 1 and 2 of the modules Patient and General Study, and where the image has
    them IssuerOfPatientID, StudyDescription, TimezoneOffsetFromUTC, and that the identity was removed.

    Args:
        image: data set of the image.

    Raises:
        CannotReport: the Study Instance UID or the PatientID is not one that can be written.
    """
    from pydicom import Dataset

    found = Dataset()
    found.SpecificCharacterSet = UTF_8
    found.StudyInstanceUID = required_uid(image, "StudyInstanceUID")
    found.PatientName = _person_name(text_of(image, "PatientName"))
    found.PatientID = _patient_id(image)
    found.PatientBirthDate = _date(text_of(image, "PatientBirthDate"))
    sex = text_of(image, "PatientSex").upper()
    found.PatientSex = sex if sex in _SEXES else ""
    found.StudyDate = _date(text_of(image, "StudyDate"))
    found.StudyTime = _time(text_of(image, "StudyTime"))
    found.ReferringPhysicianName = _person_name(text_of(image, "ReferringPhysicianName"))
    found.AccessionNumber = _if_valid(text_of(image, "AccessionNumber"), _SHORT_STRING)
    found.StudyID = _if_valid(text_of(image, "StudyID"), _SHORT_STRING)
    if issuer := _if_valid(text_of(image, "IssuerOfPatientID"), LONG_STRING):
        found.IssuerOfPatientID = issuer
    if description := long_string(text_of(image, "StudyDescription")):
        found.StudyDescription = description
    if _TIMEZONE.fullmatch(offset := text_of(image, "TimezoneOffsetFromUTC")):
        found.TimezoneOffsetFromUTC = offset
    if text_of(image, "PatientIdentityRemoved").upper() == "YES":
        found.PatientIdentityRemoved = "YES"
        # Required then; the images may name codes instead.
        found.DeidentificationMethod = long_string(text_of(image, "DeidentificationMethod")) or "See images"
    return found


def required_uid(image: Dataset, keyword: str) -> str:
    """Return a UID of an image.

    A UID of digits and dots is taken as it is, even with leading zeros: the images have no other name.

    Raises:
        CannotReport: it is missing, or no UID.
    """
    uid = stated_uid(text_of(image, keyword))
    if not uid or is_replacement(uid):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=P)(?=C)|(?<=P)(?=Instance)", " ", keyword)
        raise CannotReport(f"The {name} of an image is missing or not valid.", _EXPORT_AGAIN)
    return uid


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return the text of an element, decoded by the data set's character set; "" if there is none.

    Several values are separated by backslashes. Padding is removed.
    """
    item = dataset.get_item(keyword)
    if item is None or item.value is None:
        return ""
    value = item.value
    if isinstance(value, bytes):
        value = decode_text(value, _charsets(dataset))
    elif not isinstance(value, str) and hasattr(value, "__iter__") and not hasattr(value, "components"):
        value = "\\".join(str(part) for part in value)
    return str(value).strip(" \0")


def _charsets(dataset: Dataset) -> tuple[str, ...]:
    item = dataset.get_item("SpecificCharacterSet")
    value = "" if item is None or item.value is None else item.value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    parts = value.split("\\") if isinstance(value, str) else [str(part) for part in value]
    stripped = tuple(part.strip(" \0") for part in parts)
    return stripped if any(stripped) else ()


def _patient_id(image: Dataset) -> str:
    text = text_of(image, "PatientID")
    if text != _if_valid(text, LONG_STRING):
        raise CannotReport("The PatientID of an image is not valid in a DICOM object.", _EXPORT_AGAIN)
    return text


def _if_valid(text: str, limit: int) -> str:
    """The text, or "" if it would have to be changed: half an identifier names somebody else."""
    return text if long_string(text, limit) == text else ""


def _person_name(text: str) -> str:
    """The text as a value of PN: up to three groups of up to five components, 64 characters a group."""
    groups = []
    for group in text.split("=")[:_NAME_GROUPS]:
        components = [long_string(part) for part in group.split("^")[:_NAME_COMPONENTS]]
        groups.append("^".join(components)[:LONG_STRING].rstrip("^ "))
    return "=".join(groups).rstrip("=")


def _date(text: str) -> str:
    digits = text.replace(".", "") if len(text) == len("2000.01.01") else text
    try:
        datetime.strptime(digits, "%Y%m%d")
    except ValueError:
        return ""
    return digits if len(digits) == len("20000101") and digits.isascii() else ""


def _time(text: str) -> str:
    digits = text.replace(":", "")
    return digits if _TIME.fullmatch(digits) else ""
