"""Progress as a log and as a person at a terminal see it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from terminal import Terminal

from stenosis_trt.engine.support import progress

_RUN = """
import time
from stenosis_trt.engine.support.progress import show_progress
with show_progress("Grading", "studies") as shown:
    for done in range(9):
        time.sleep(0.15)
        shown.advance(done, 8)
"""


def _in_a_terminal(script: str) -> str:
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    with Terminal() as terminal:
        process = subprocess.Popen([sys.executable, "-c", script], stderr=terminal.device, env=environment)
        seen = terminal.read_all()
        assert process.wait(30) == 0
    return seen.decode()


def test_a_terminal_shows_a_bar_with_rate_and_time_left() -> None:
    seen = _in_a_terminal(_RUN)
    assert "Grading" in seen
    assert "0/8" in seen
    assert re.search(r"[3-7]/8", seen)
    assert re.search(r"\d\.\d\d studies/s", seen)
    assert re.search(r"0:00:0\d", seen)


def test_elsewhere_there_are_plain_lines() -> None:
    answer = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True, check=True)
    first, last = answer.stderr.splitlines()
    assert first == "Grading: 0 of 8 studies"
    assert re.fullmatch(r"Grading: 8 of 8 studies, \d\.\d\d a second", last)


def test_lines_come_every_few_seconds_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.show_progress("Grading", "studies") as shown:
        for done in range(1, 10):
            clock[0] += 2.0
            shown.advance(done, 3600)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Grading: 3 of 3600 studies, 0.50 a second, 1:59:54 left",
        "Grading: 6 of 3600 studies, 0.50 a second, 1:59:48 left",
        "Grading: 9 of 3600 studies, 0.50 a second, 1:59:42 left",
    ]


def test_a_total_that_is_not_known_yet_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.show_progress("Reading headers", "files") as shown:
        clock[0] += 10.0
        shown.advance(6400, 0)
    assert capsys.readouterr().err == "Reading headers: 6400 files, 640 a second\n"
