"""Codes of the structured report, against pydicom's tables of PS3.16 and the dictionary in the docs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes as standard

from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.reports.dicom import coded_values
from stenosis_trt.engine.reports.dicom.coded_values import (
    DISCS,
    PRIVATE_CODES,
    PRIVATE_SCHEME,
    PROCESSING_OUTCOMES,
    SEVERITIES,
    Code,
)

PAGE = Path(__file__).resolve().parents[4] / "docs" / "structured-report.md"

NOT_IN_TABLES = {"83561009", "241646009"}
"""SNOMED CT codes that PS3.16 does not use; their check digits are verified."""

_PRODUCT = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_PERMUTATION = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870",
    "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def _codes(value: object) -> Iterator[Code]:
    if isinstance(value, Code):
        yield value
    elif isinstance(value, dict):
        yield from (code for part in value.values() for code in _codes(part))
    elif isinstance(value, tuple):
        yield from (code for part in value for code in _codes(part))


ALL = sorted({code for value in vars(coded_values).values() for code in _codes(value)})
PRIVATE = [code for code in ALL if code.scheme == PRIVATE_SCHEME]


def _meanings(scheme: str, value: str) -> set[str]:
    """What a code means in pydicom's tables, in lower case, without "(qualifier value)" and the like."""
    found = {entry[value][0] for entry in concepts[scheme].values() if value in entry}
    return {re.sub(r" \([a-z ]+\)$", "", meaning).lower() for meaning in found}


@pytest.mark.parametrize(
    "code",
    [
        code
        for code in ALL
        if code.scheme in ("DCM", "SCT", "UCUM")
        and code.value not in NOT_IN_TABLES
        and code.value != "{ratio}"
    ],
    ids=lambda code: code.value,
)
def test_a_standard_code_means_what_pydicom_says(code: Code) -> None:
    assert code.meaning.lower() in _meanings(code.scheme, code.value)


def test_the_tables_know_no_wrong_code() -> None:
    """So that the test above can fail."""
    assert "c3/c4 disc" in _meanings("SCT", "58820006")
    assert "c4/c5 disc" not in _meanings("SCT", "58820006")
    assert _meanings("SCT", "58820007") == set()


@pytest.mark.parametrize("code", [c for c in ALL if c.scheme == "SCT"], ids=lambda code: code.value)
def test_a_snomed_code_has_the_right_check_digit(code: Code) -> None:
    assert _verhoeff(code.value) == 0


def test_codes_that_the_tables_lack_are_few() -> None:
    assert {
        code.value for code in ALL if code.scheme == "SCT" and not _meanings("SCT", code.value)
    } == NOT_IN_TABLES
    assert _verhoeff("83561008") != 0


def _verhoeff(digits: str) -> int:
    check = 0
    for position, digit in enumerate(reversed(digits)):
        check = int(_PRODUCT[check][int(_PERMUTATION[position % 8][int(digit)])])
    return check


def _values(codes: Iterable[str], table: object) -> set[str]:
    return {getattr(table, name).value for name in codes}


def test_codes_are_of_the_context_groups_of_their_places() -> None:
    assert list(DISCS) == list(LEVELS)
    for level, code in DISCS.items():
        top, bottom = level.split("/")
        bottom = bottom if bottom.startswith("T") else f"C{bottom}"
        assert code.value == getattr(standard.cid7604, f"{top}{bottom}Disc").value
    severities = _values(["None_", "Mild", "Moderate", "Severe"], standard.cid3716)
    assert {code.value for code in SEVERITIES} == severities
    assert {code.value for code in PROCESSING_OUTCOMES.values()} < _values(
        standard.cid6047.dir(), standard.cid6047
    )


def test_every_private_code_has_a_definition_and_fits_its_attribute() -> None:
    assert set(PRIVATE) == set(PRIVATE_CODES)
    for code in PRIVATE:
        assert re.fullmatch(r"[A-Z0-9]{1,16}", code.value)
        assert len(code.meaning) <= 64
        assert PRIVATE_CODES[code].endswith(".")
    assert len({code.value for code in PRIVATE}) == len({code.meaning for code in PRIVATE}) == len(PRIVATE)


def test_the_page_prints_the_private_dictionary() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("| code | meaning | definition |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert rows == [[code.value, code.meaning, definition] for code, definition in PRIVATE_CODES.items()]


def test_codes_on_the_page_are_those_that_are_written() -> None:
    table = (
        PAGE.read_text(encoding="utf-8").partition("## Codes")[2].partition("\n\n")[2].partition("\n\n")[0]
    )
    named = {Code(*match) for match in re.findall(r"(\d{6,}), (SCT), ([\w /]+?) \|", table)}
    assert named == {
        *DISCS.values(),
        *SEVERITIES,
        coded_values.SPINAL_STENOSIS,
        coded_values.SPINAL_CORD,
        coded_values.MR_OF_CERVICAL_SPINE,
    }
    assert f"({coded_values.SEVERITY.value}, SCT)" in table
