"""Tests of the page of the HTML report as text; tests/viewers opens it in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from html_runs import FAILED, run_report, sample_piece, varied_pieces
from report_samples import sample_report

from stenosis_trt.engine.reports.page import html_page
from stenosis_trt.engine.reports.page.html_page import compose
from stenosis_trt.engine.reports.run_report import RunReport

HOSTILE = "a</script><img src=x onerror=alert(1)><!--<script>\"'&quot;&lt;\u2028\u2029{{ 7*7 }}b"
TEMPLATES = Path(html_page.__file__).with_name("templates")
_MAX_BYTES = 20_000_000


class _Elements(HTMLParser):
    """All elements of a page with their attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self._open = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.append((*self.tags[-1], data))

    def data(self, part: str) -> list[Any]:
        """Return the JSON of each data script of a kind."""
        return [
            json.loads(text)
            for tag, attributes, text in self.texts
            if tag == "script" and attributes.get("data-part") == part and text.strip()
        ]


def _page(pieces: list[dict[str, Any]], run: RunReport | None = None) -> str:
    out = io.StringIO()
    compose(out, run or run_report(len(pieces)), [json.dumps(piece).encode() for piece in pieces])
    return out.getvalue()


def _tag_names(page: str) -> list[str]:
    return [tag for tag, _ in _Elements(page).tags]


def test_a_page_holds_each_study_and_its_pictures() -> None:
    pieces = varied_pieces(3)
    page = _Elements(_page(pieces))
    assert [study["number"] for study in page.data("study")] == [1, 2, 3]
    assert [study["levels"] for study in page.data("study")] == [piece["levels"] for piece in pieces]
    assert page.data("pictures") == [piece["pictures"] for piece in pieces]


@pytest.mark.parametrize("field", ["path", "text", "patient_id", "study_uid"])
def test_text_of_a_study_cannot_become_markup(field: str) -> None:
    plain, hostile = (_page([{**varied_pieces(1)[0], field: text}]) for text in ("plain", HOSTILE))
    assert _tag_names(hostile) == _tag_names(plain)
    assert _Elements(hostile).data("study")[0][field] == HOSTILE
    assert "\u2028" not in hostile


def test_text_of_the_run_cannot_become_markup() -> None:
    provenance = replace(sample_report().provenance, pack_name=HOSTILE, intended_use=HOSTILE, backend=HOSTILE)
    failed = FAILED._replace(path=HOSTILE, reason=HOSTILE, advice=HOSTILE)
    pieces = varied_pieces(1)
    page = _page(pieces, run_report(1, provenance=provenance, failed=(failed,)))
    assert _tag_names(page) == _tag_names(_page(pieces))
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\u2028" not in page


def test_a_page_names_no_other_place() -> None:
    page = _Elements(_page(varied_pieces(2)))
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    code = "".join(text for tag, attributes, text in page.texts if tag in ("style", "script"))
    # The name of SVG elements, which nothing is loaded from.
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w[\w./-]*", code))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon)\b|@import|url\(", code)


def test_the_policy_lets_through_the_inline_style_and_script_alone() -> None:
    page = _Elements(_page(varied_pieces(1)))
    policy = next(
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        text = "".join(text for other, attributes, text in page.texts if other == tag and not attributes)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert "unsafe" not in policy


def test_no_element_has_a_style_or_a_handler_of_its_own() -> None:
    """The policy would block them."""
    for tag, attributes in _Elements(_page(varied_pieces(1))).tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_scripts_set_text_and_never_markup() -> None:
    for path in sorted(TEMPLATES.glob("page_*.js")):
        code = path.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", code
        )
        assert "</script" not in code


def test_every_script_in_the_folder_is_part_of_the_page() -> None:
    assert {path.name for path in TEMPLATES.glob("page_*.js")} == set(html_page._SCRIPTS)


def test_pieces_are_written_one_at_a_time() -> None:
    out = io.StringIO()
    written_before: list[bool] = []

    def pieces() -> Iterator[bytes]:
        for number, piece in enumerate(varied_pieces(5), 1):
            if number > 1:
                written_before.append(
                    f"cohort/site-{(number - 1) % 3}/study_{number - 1:04}" in out.getvalue()
                )
            yield json.dumps(piece).encode()

    compose(out, run_report(5), pieces())
    assert written_before == [True] * 4


def test_a_hundred_studies_take_less_than_20_mb() -> None:
    class Counter(io.StringIO):
        bytes = 0

        def write(self, text: str) -> int:
            Counter.bytes += len(text.encode())
            return len(text)

    compose(Counter(), run_report(100), (sample_piece() for _ in range(100)))
    assert 2_000_000 < Counter.bytes < _MAX_BYTES


def test_a_page_says_not_for_clinical_use_unless_the_pack_is() -> None:
    pieces = varied_pieces(1)
    assert "Not for clinical use." in _page(pieces)
    provenance = replace(sample_report().provenance, clinical_use=True)
    clinical = _page([{**pieces[0], "text": ""}], run_report(1, provenance=provenance))
    assert "Not for clinical use." not in clinical


def test_a_page_names_the_failed_studies_and_the_provenance() -> None:
    page = _page(varied_pieces(1))
    provenance = sample_report().provenance
    for text in (FAILED.path, FAILED.reason, FAILED.advice, provenance.pack_sha256, provenance.backend):
        assert text in page


def test_a_page_without_studies_is_complete() -> None:
    page = _page([])
    assert _Elements(page).data("study") == []
    assert page.rstrip().endswith("</html>")


@pytest.mark.parametrize("piece", [{"format": 0}, {}, []])
def test_a_piece_of_another_version_is_refused(piece: Any) -> None:
    with pytest.raises(ValueError, match="made by another version"):
        compose(io.StringIO(), run_report(1), [json.dumps(piece).encode()])
