"""What a person sees on a terminal of 80 columns: nothing is cut, and no word is broken."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from header_factory import axial, sagittal, study
from rich.console import Console
from typer.testing import CliRunner

from stenosis_trt.engine.cli import demo
from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.cli.doctor import Finding, report_lines
from stenosis_trt.engine.cli.inspection import inspection_tables
from stenosis_trt.engine.reports.warning_meanings import WARNING_MEANINGS
from stenosis_trt.engine.selection.select import select_series

COLUMNS = 80
COMMANDS = [
    [],
    *([name] for name in ("grade", "inspect", "phantom", "demo", "export", "quantise", "build", "sign")),
    *([name] for name in ("verify", "doctor", "bench", "report", "evaluate", "schema")),
    *(["bench", name] for name in ("all", "compare", "choose", "roofline", "gpu-suite", "kernels")),
]


def _names(commands: list[list[str]]) -> list[str]:
    return [" ".join(command) or "none" for command in commands]


@pytest.mark.parametrize("command", COMMANDS, ids=_names(COMMANDS))
def test_help_fits_and_is_not_cut_and_has_a_short_option(command: list[str]) -> None:
    environment = {"COLUMNS": str(COLUMNS), "TERM": "xterm"}
    long = CliRunner().invoke(app, [*command, "--help"], env=environment).stdout
    short = CliRunner().invoke(app, [*command, "-h"], env=environment).stdout
    assert long == short
    assert "Usage: " in long
    assert all(len(line) <= COLUMNS for line in long.splitlines())
    # Three dots mark arguments that may be repeated, and text that was cut.
    assert "..." not in re.sub(r"[]}]\.\.\.|\w+\.\.\.(?= +<list)", "", long)
    assert "…" not in long


def test_every_command_is_looked_at() -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout.split("Commands:")[1].splitlines()
    assert {line.split()[0] for line in listed if line.strip()} == {
        command[0] for command in COMMANDS if command
    }


def _program(environment: dict[str, str]) -> str:
    """What the program prints that is started by a bash: the shell that it looks for among its ancestors."""
    script = "import sys; sys.argv[0] = 'stenosis-trt'; from stenosis_trt.engine.cli.app import app; "
    call = "app(prog_name='stenosis-trt')"
    arguments = environment.pop("ARGUMENTS", "").split()
    answer = subprocess.run(
        ["bash", "-c", '"$@"; exit', "bash", sys.executable, "-c", script + call, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout


def test_a_shell_completes_commands_and_options() -> None:
    asked = {"_STENOSIS_TRT_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert _program({**asked, "COMP_WORDS": "stenosis-trt gr"}).split() == ["grade"]
    asked["COMP_CWORD"] = "2"
    assert _program({**asked, "COMP_WORDS": "stenosis-trt grade --no-pa"}).split() == ["--no-paths"]


def test_completion_is_installed_where_the_shell_looks_for_it(tmp_path: Path) -> None:
    said = _program({"HOME": str(tmp_path), "ARGUMENTS": "--install-completion bash"})
    assert "installed" in said
    assert "complete_bash" in next((tmp_path / ".bash_completions").iterdir()).read_text()
    assert ".bash_completions" in (tmp_path / ".bashrc").read_text()


def _shown(width: int, *tables: object) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_inspect_shows_every_heading_and_role_whole() -> None:
    name = "t2_tse_sagittal_cervical_spine_without_a_single_space_in_it_at_all"
    choice = select_series(study(sagittal("1", description=name), axial("2"), sagittal("3", count=2)))
    shown = _shown(COLUMNS, *inspection_tables([choice]))
    assert all(len(line) <= COLUMNS for line in shown.splitlines())
    for word in ("series", "plane", "slices", "description", "role", "reason", "sagittal T2", "axial T2"):
        assert f" {word} " in shown


def test_the_demonstration_shows_the_longest_flags_whole(tmp_path: Path) -> None:
    longest = sorted(WARNING_MEANINGS, key=len)[-2:]
    names = ("study_uid", "level", "kang_grade", "p2", "compression_ratio", "ap_mm", "warnings")
    row = dict(zip(names, ("1.2", "C7/T1", "2", "0.9876", "0.4321", "12.34", ";".join(longest)), strict=True))
    for name in ("results.csv", "truth.csv"):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, names)
            table.writeheader()
            table.writerow(row)
    shown = _shown(COLUMNS, demo._table(tmp_path / "results.csv", tmp_path / "truth.csv"))
    assert "…" not in shown
    for word in (*longest, "C7/T1", "0.432", "12.34", "Kang", "ratio", "AP mm", "warnings"):
        assert word in shown.split("(ratio")[1]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_doctor_breaks_lines_between_words_on_a_terminal_and_not_for_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [f"word-{number}/of-a-sentence" for number in range(12)]
    finding = Finding("TensorRT", " ".join(words), f"Install {' '.join(words)}")
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setattr(sys, "stdout", _Terminal())
    lines = list(report_lines([finding]))
    assert len(lines) > 2
    assert all(len(line) <= COLUMNS for line in lines)
    assert set(words) <= set(" ".join(lines).split())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert len(list(report_lines([finding]))) == 2
