"""Tests of the page of a benchmark record in headless Chromium: light and dark, wide and narrow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_records import full_record
from viewer_tools import CHROMIUM_FLAGS

from stenosis_trt.bench.record.page import write_page

pytestmark = pytest.mark.viewers

SCRIPT = Path(__file__).with_name("bench_page.mjs")
WIDE, NARROW = 1440, 390
_SECONDS = 120

Open = Callable[..., Any]


@pytest.fixture
def open_page(chromium: str, playwright_core: Path, axe_core: Path, pictures: Path, tmp_path: Path) -> Open:
    """A function that runs a scenario of bench_page.mjs and returns what it saw.

    It asserts that the console has no error and that no request left the page.
    """
    path = tmp_path / "record.html"
    write_page(path, full_record())

    def run(scenario: str, width: int = WIDE, dark: bool = False) -> Any:
        task = {
            "playwright": str(playwright_core),
            "axe": str(axe_core),
            "chromium": chromium,
            "flags": CHROMIUM_FLAGS,
            "page": str(path),
            "scenario": scenario,
            "folder": str(pictures),
            "width": width,
            "dark": dark,
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


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, 1024, 768, NARROW])
def test_nothing_is_wider_than_the_window_and_no_text_leaves_its_chart(
    open_page: Open, dark: bool, width: int
) -> None:
    seen = open_page("look", width, dark)
    assert seen["content"] <= seen["window"]
    assert seen["outside"] == []
    assert seen["background"] == ("rgb(13, 18, 22)" if dark else "rgb(244, 246, 248)")
    # One picture of each chart is for this width, and its text can be read.
    assert seen["charts"] == [1] * sum(len(section.charts) for section in full_record().sections)
    assert seen["smallest"] >= 9


def test_arrow_keys_go_through_the_points_of_a_chart(open_page: Open) -> None:
    seen = open_page("keyboard")
    assert seen["before"] == seen["escaped"] == ""
    assert seen["first"] == "stenosis-trt, levels: 44 (43–46)"
    assert seen["second"] == "stenosis-trt, grader: 34 (33–36)"
    assert seen["last"] == seen["stays"] == "PyTorch, eager, grader: 118 (111–126)"
    assert seen["visible"]


def test_the_pointer_shows_the_value_below_it(open_page: Open) -> None:
    assert open_page("pointer") == {"over": "stenosis-trt, levels: 44 (43–46)", "away": ""}


def test_every_chart_has_its_data_as_a_table(open_page: Open) -> None:
    assert open_page("data") == {"heads": ["series", "0 %", "50 %", "90 %", "99 %", "100 %"], "rows": 3}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_axe_finds_no_violation(open_page: Open, dark: bool, width: int) -> None:
    assert open_page("axe", width, dark) == []
