"""Tests of the HTML report in headless Chromium: what a reader sees and does."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from html_runs import KEY, varied_pieces, write_page
from viewer_tools import CHROMIUM_FLAGS

from stenosis_trt.bench.evaluation.raters import read_readers

pytestmark = pytest.mark.viewers

STUDIES, FEW_STUDIES = 100, 24
SCRIPT = Path(__file__).with_name("html_report.mjs")
_SECONDS = 240

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def pieces() -> list[dict[str, Any]]:
    return varied_pieces(STUDIES)


@pytest.fixture(scope="module")
def pages(pieces: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The page of all studies, and that of the first ones, which opens sooner."""
    folder = tmp_path_factory.mktemp("html")
    return {
        True: write_page(folder / "all.html", pieces),
        False: write_page(folder / "few.html", pieces[:FEW_STUDIES]),
    }


@pytest.fixture
def open_page(
    pages: dict[bool, Path], chromium: str, playwright_core: Path, axe_core: Path, tmp_path: Path
) -> Open:
    """A function that runs a scenario of html_report.mjs and returns what it saw.

    It asserts that the console has no error and that no request left the page.
    """

    def run(scenario: str, *, few: bool = False, **options: Any) -> Any:
        task = {
            "playwright": str(playwright_core),
            "axe": str(axe_core),
            "chromium": chromium,
            "flags": CHROMIUM_FLAGS,
            "page": str(pages[not few]),
            "scenario": scenario,
            "folder": str(tmp_path),
            **options,
        }
        done = subprocess.run(
            ["node", str(SCRIPT)], input=json.dumps(task), capture_output=True, text=True, timeout=_SECONDS
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert seen["messages"] == []
        assert seen["requests"] == []
        return seen["result"]

    return run


def _numbers(pieces: list[dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> list[int]:
    return [piece["number"] for piece in pieces if any(map(wanted, piece["levels"]))]


def test_filters_leave_the_studies_with_a_level_that_matches(
    open_page: Open, pieces: list[dict[str, Any]]
) -> None:
    seen = open_page("filter")
    severe = [level for piece in pieces for level in piece["levels"] if level["grade"] == 3]
    assert seen["all"] == list(range(1, STUDIES + 1))
    assert seen["severe"] == _numbers(pieces, lambda level: level["grade"] == 3)
    assert seen["pressed"] == "true"
    assert "3" not in seen["pale"]
    assert seen["plotted"] == len(severe)
    assert seen["flagged"] == _numbers(pieces, lambda level: "axial_slice_gap" in level["warnings"])
    assert seen["confident"] == _numbers(
        pieces, lambda level: level["grade"] is not None and level["confidence"] >= 0.9
    )
    assert seen["ranged"] == _numbers(
        pieces, lambda level: level["grade"] is not None and 0.9 <= level["confidence"] <= 0.95
    )
    assert seen["text"] == [4]
    assert seen["count"] == f"1 of {STUDIES}, with 6 matching levels"


def test_every_column_sorts_both_ways_by_keyboard(open_page: Open, pieces: list[dict[str, Any]]) -> None:
    seen = open_page("sort")
    assert seen.pop("sortedHeads") == 1

    def graded(piece: dict[str, Any]) -> list[dict[str, Any]]:
        return [level for level in piece["levels"] if level["grade"] is not None]

    keys: dict[str, Callable[[dict[str, Any]], float | None]] = {
        "number": lambda piece: piece["number"],
        "burden": lambda piece: sum(level["grade"] for level in graded(piece)) if graded(piece) else None,
        "worst": lambda piece: max((level["grade"] for level in graded(piece)), default=None),
        "ratio": lambda piece: min((level["ratio"] for level in graded(piece)), default=None),
        "confidence": lambda piece: min((level["confidence"] for level in graded(piece)), default=None),
        "flags": lambda piece: len({flag for level in piece["levels"] for flag in level["warnings"]}),
    }
    by_number = {piece["number"]: piece for piece in pieces}
    for column, turns in seen.items():
        assert {turn["order"] for turn in turns} == {"ascending", "descending"}, column
        for turn in turns:
            assert sorted(turn["rows"]) == list(range(1, STUDIES + 1)), column
            if column in keys:
                values = [keys[column](by_number[number]) for number in turn["rows"]]
                known = [value for value in values if value is not None]
                assert known == sorted(known, reverse=turn["order"] == "descending"), column
                assert values == known + [None] * (len(values) - len(known)), column


def test_a_review_by_keyboard_is_kept_exported_and_imported(
    open_page: Open, pieces: list[dict[str, Any]]
) -> None:
    levels = pieces[0]["levels"]
    other = next(grade for grade in range(4) if grade != levels[0]["grade"])
    seen = open_page("review", grade=str(other), uid=pieces[0]["study_uid"])
    accepted = f"✓ {levels[3]['grade']}"
    after_four = [str(other), "rejected", "artefact", accepted, "", ""]
    assert seen["afterFour"] == {"progress": "4 of 600 levels", "decided": after_four, "level": "C6/7"}
    # The note is on C6/7; the last acceptance was undone and given again.
    noted = [str(other), "rejected", "artefact", accepted, "✎", ""]
    assert seen["afterNote"] == {"progress": "4 of 600 levels", "decided": noted, "hash": "#1/C6-7"}
    assert seen["reloaded"] == {"progress": "4 of 600 levels", "decided": noted}
    assert seen["discarded"] == "0 of 600 levels"
    assert seen["imported"] == {"progress": "4 of 600 levels", "decided": noted, "said": "5 rows imported."}
    assert seen["other"]["decided"][0].endswith("2")
    assert seen["other"]["said"].startswith("1 row imported. 2 rows left out")
    assert seen["wrong"] == "This is no review.csv: it has no column study_uid, level, kang_grade."

    assert seen["export"]["name"] == "review.csv"
    exported = Path(seen["export"]["path"])
    with exported.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["level"], row["kang_grade"], row["decision"]) for row in rows] == [
        ("C2/3", str(other), "regrade"),
        ("C3/4", "", "reject"),
        ("C4/5", "", "artefact"),
        ("C5/6", str(levels[3]["grade"]), "accept"),
        ("C6/7", "", ""),
    ]
    # A leading apostrophe keeps spreadsheets from running it.
    assert rows[4]["note"] == '\'=1+1, "hard to see" j 2'
    assert {row["study_uid"] for row in rows} == {pieces[0]["study_uid"]}


def test_evaluate_takes_the_exported_review_as_a_reader(
    open_page: Open, pieces: list[dict[str, Any]]
) -> None:
    other = next(grade for grade in range(4) if grade != pieces[0]["levels"][0]["grade"])
    seen = open_page("review", grade=str(other), uid=pieces[0]["study_uid"])
    (reader,) = read_readers([Path(seen["export"]["path"])])
    uid = pieces[0]["study_uid"]
    assert reader.levels[uid, "C2/3"].grade == other
    assert reader.levels[uid, "C3/4"].grade is None
    assert reader.levels[uid, "C4/5"].grade is None
    assert reader.levels[uid, "C5/6"].grade == pieces[0]["levels"][3]["grade"]


def test_the_browser_keeps_no_uid_and_no_path(open_page: Open, pieces: list[dict[str, Any]]) -> None:
    seen = open_page("review", grade="1", uid=pieces[0]["study_uid"])
    assert KEY in seen["stored"]
    assert pieces[0]["folder"] in seen["stored"]
    assert pieces[0]["study_uid"] not in seen["stored"]
    assert "study_0001" not in seen["stored"]


def test_a_blind_reading_hides_what_was_computed_until_a_decision(
    open_page: Open, pieces: list[dict[str, Any]]
) -> None:
    seen = open_page("blind", few=True)
    third = pieces[0]["levels"][2]
    assert set(seen["before"]["chips"]) == set(seen["before"]["marks"]) == {"?"}
    for level in pieces[0]["levels"]:
        assert level["sentence"] not in seen["before"]["study"]
    assert pieces[0]["impression"][0] not in seen["before"]["study"]
    shown = "–" if third["grade"] is None else str(third["grade"])
    assert seen["after"]["chips"] == ["?", "?", shown, "?", "?", "?"]
    assert third["sentence"] in seen["after"]["study"]
    assert pieces[0]["impression"][0] not in seen["after"]["study"]
    assert seen["strip"] == ["?", "?", "1", "?", "?", "?"]
    assert seen["worst"] == "?"
    # Words of the report and confidences are not searched either; one level is decided.
    assert seen["found"] == []
    assert seen["confident"] == ([] if third["grade"] is None else [1])


def test_a_study_shows_pictures_overlay_text_and_what_is_missing(
    open_page: Open, pieces: list[dict[str, Any]]
) -> None:
    seen = open_page("study", few=True)
    placed = [level["level"] for level in pieces[0]["levels"] if level["sagittal"]]
    assert seen["heading"] == "Study 1"
    assert seen["images"] == ["data:image/jpeg;base64,"] * (2 if pieces[0]["levels"][0]["axial"] else 1)
    assert seen["marks"] == placed
    assert [letter[0] for letter in seen["letters"][:4]] == ["A", "P", "H", "F"]
    assert seen["lines"] == (2 if pieces[0]["levels"][0]["axial"] else 0)
    assert seen["hiddenOverlay"]
    assert seen["shownOverlay"]
    assert seen["level"] == "C4/5"
    assert "clipboard" in seen["said"] or seen["selected"]
    assert seen["focus"] == "#1/C2-3"
    assert seen["without"]["images"] == 0
    assert "Made from results alone" in seen["without"]["text"]
    assert seen["help"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_no_violation(open_page: Open, dark: bool, width: int) -> None:
    seen = open_page("axe", few=True, dark=dark, width=width)
    assert seen == {"overview": [], "help": [], "study": [], "withoutPictures": []}


@pytest.mark.parametrize("width", [1440, 1024, 768, 390])
def test_nothing_is_wider_than_the_window(open_page: Open, width: int) -> None:
    for content, window in open_page("fits", few=True, width=width).values():
        assert content <= window


def test_a_page_of_a_hundred_studies_is_ready_within_a_second(open_page: Open) -> None:
    """Processor time of the page's thread: that on the clock depends on what else the machine computes."""
    turns = open_page("speed")
    assert {turn["shown"] for turn in turns} == {STUDIES}
    assert all(turn["rows"] == 33 + 1 for turn in turns)
    assert min(turn["processor"] for turn in turns) < 1.0
