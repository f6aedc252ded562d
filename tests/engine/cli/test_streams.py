"""Streams that are closed, broken, full, or of a poor encoding: the results are what they are without."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dicom_factory import series
from dying import start_grading
from stand_in import write_studies
from terminal import Terminal
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.support import messages
from stenosis_trt.engine.support.progress import show_progress

_FILES = ("results.csv", "results.jsonl", "errors.csv")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("Ünï 頸椎")
    write_studies(root / "in", 2)
    (root / "in" / "notes.txt").write_text("hello")
    return root / "in"


@pytest.fixture(scope="module")
def expected(folder: Path, pack: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("expected") / "out"
    with start_grading(folder, out, pack, stderr=subprocess.PIPE) as process:
        assert process.communicate(timeout=time_limit(120))[1].count("Grading: ") >= 1
    assert process.returncode == 0
    return {name: (out / name).read_bytes() for name in _FILES}


def _check(out: Path, expected: dict[str, bytes]) -> None:
    assert {name: (out / name).read_bytes() for name in _FILES} == expected
    with (out / "results.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 2 * len(LEVELS)
    for path in out.rglob("*"):
        assert path.is_dir() or "Grading: " not in path.read_text()


@pytest.mark.parametrize(
    "redirections",
    [
        "2>&-",
        ">&-",
        "<&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
        "2>/dev/full",
        ">/dev/full 2>/dev/full",
        "</dev/full >/dev/full 2>&-",
    ],
)
def test_results_are_the_same_whatever_streams_are_closed_or_full(
    redirections: str, folder: Path, pack: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """With descriptors 0 to 2 closed, files and sockets get these numbers, and messages go to them."""
    with start_grading(folder, tmp_path / "out", pack, redirections=redirections) as process:
        assert process.wait(120) == 0
    _check(tmp_path / "out", expected)


def test_a_reader_of_messages_that_is_gone_ends_nothing(
    folder: Path, pack: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with start_grading(folder, tmp_path / "out", pack, stdout=writer, stderr=writer) as process:
            assert process.wait(120) == 0
    finally:
        os.close(writer)
    _check(tmp_path / "out", expected)


def test_a_terminal_that_is_gone_ends_nothing(
    folder: Path, pack: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    with Terminal() as terminal:
        process = start_grading(folder, tmp_path / "out", pack, seconds=0.5, stderr=terminal.device)
        os.close(terminal.device)
        os.read(terminal._reader, 10)
    assert process.wait(120) == 0
    _check(tmp_path / "out", expected)


def test_an_encoding_that_lacks_characters_is_given_their_codes(pack: Path, tmp_path: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    write_studies(tmp_path / "頸椎", 1)
    out = tmp_path / "頸椎" / "out"
    options = {"stderr": subprocess.PIPE, "environment": environment}
    with start_grading(tmp_path / "頸椎", out, pack, **options) as process:
        _, said = process.communicate(timeout=time_limit(120))
    assert process.returncode == 0
    assert "1 of 1 studies graded" in said
    assert "Traceback" not in said
    assert said.isascii()
    assert (out / "results.csv").exists()


@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [(">/dev/full", 2, "Standard output cannot be written (No space left on device)."), (">&-", 0, "")],
)
def test_what_is_printed_for_its_own_sake_is_missed_where_somebody_wanted_it(
    redirection: str, code: int, words: str, tmp_path: Path
) -> None:
    series(tmp_path / "in", 7)
    script = "from stenosis_trt.engine.cli.app import main; main()"
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", script]
    answer = subprocess.run(
        [*command, "inspect", str(tmp_path / "in")],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=time_limit(120),
    )
    assert answer.returncode == code
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


class _Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [None, _Broken(), open(os.devnull)])  # noqa: SIM115 - read-only
def test_a_program_that_uses_the_engine_may_have_no_streams(
    stream: io.TextIOBase | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    messages.print_message("text")
    messages.print_output("text")
    with show_progress("Grading", "studies") as progress:
        progress.advance(0, 2)
        progress.advance(2, 2)
