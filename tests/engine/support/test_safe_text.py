"""Text that a terminal would obey or a spreadsheet would run."""

from __future__ import annotations

import pytest

from stenosis_trt.engine.support.safe_text import escape_controls, escape_controls_in, escape_formula


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain/Müller/診断 1", "plain/Müller/診断 1"),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),
        ("a\nb\r\x1b[31m\x9b1m\x00", r"a\nb\r\x1b[31m\x9b1m\x00"),
        ("a\u202eb\u2066c\u200bd", r"a\u202eb\u2066c\u200bd"),
        ("M\udcfcller", r"M\udcfcller"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
    ],
)
def test_what_would_be_obeyed_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert escape_controls(text) == shown
    assert escape_controls(shown) == shown


def test_texts_are_made_visible_wherever_they_stand_and_numbers_stay() -> None:
    assert escape_controls_in({"a\n": ["\x1b", {"b": (1, 0.5, None, True, "\t")}]}) == {
        r"a\n": [r"\x1b", {"b": [1, 0.5, None, True, r"\t"]}]
    }


@pytest.mark.parametrize("text", ["=cmd|'/C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\tx", "\r=1", " =1+1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert escape_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "C2/3", "1.2.840.113", "/study", "low_contrast;thin_slices"])
def test_other_text_is_left_to_a_spreadsheet_as_it_is(text: str) -> None:
    assert escape_formula(text) == text
