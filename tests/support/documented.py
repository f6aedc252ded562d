"""What documents and unit files say of the program, held against the program: commands, tables, code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
"""Every document of the checkout."""

_CALL = re.compile(r"(?:(?<![\w./:@-])(?<!-t )|/bin/)stenosis-trt(?::[a-z]+\d)?[ \t]+([^`\n|]*)")
"""A call of the program in a line of code: by its name, by its path, or as the image of a container."""
_COMMAND = re.compile(
    r"(?:env \S+ |[A-Z]+=\S+ )?(?:[\w./-]*/)?(?:stenosis-trt|python3?|openssl|pytest|pip|mkdocs) "
    r"|docker |sudo "
)
"""The beginning of a line that a person types, and not of what is printed."""


@cache
def program() -> Any:
    """The command line."""
    from stenosis_trt.engine.cli import app

    return typer.main.get_command(app)


def read(name: str) -> str:
    """The text of a document, by its path in the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(document: str, language: str = "") -> list[str]:
    """The code blocks of a Markdown text in one language; "" for those that name none."""
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


def code_in(document: str) -> str:
    """The code of a Markdown text: blocks and spans, a line each, continued lines joined."""
    prose = re.sub(r"^```[a-z]*\n.*?^```", "", document, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", prose)
    return join_lines("\n".join([*blocks(document, "[a-z]*"), *spans]))


def commands_in(document: str) -> Iterator[str]:
    """The commands in the code blocks of a Markdown text, one each where `&&` joins several."""
    for block in blocks(document):
        for line in join_lines(block).splitlines():
            yield from (part.strip() for part in line.split(" && ") if _COMMAND.match(f"{part.strip()} "))


def join_lines(code: str) -> str:
    """Code whose lines end where the next begins, and not with a backslash."""
    return re.sub(r"\\\n\s*", " ", code)


def rows(document: str, title: str) -> list[list[str]]:
    """The cells of the tables below a heading, without their heads; with its level: `## Warnings`."""
    level = len(title) - len(title.lstrip("#"))
    start = f"\n{document}".index(f"\n{title}\n") + len(title)
    following = re.search(rf"^#{{1,{level}}} ", document[start:], re.MULTILINE)
    section = document[start : start + following.start()] if following else document[start:]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    marks = [index for index, line in enumerate(lines) if set(line) <= set("|- ")]
    heads = {index - 1 for index in marks} | set(marks)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for index, line in enumerate(lines)
        if index not in heads
    ]


def quoted(cell: str) -> list[str]:
    """The code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def calls_in(code: str) -> Iterator[list[str]]:
    """The arguments of each call of the program."""
    for found in _CALL.finditer(code):
        text = re.split(r"(?:^|\s)(?:&&|;|#)\s|\s{3,}", found[1])[0]
        arguments = shlex.split(text.replace("...", "").replace("…", ""))
        if arguments:
            yield arguments


def trouble_with(arguments: list[str]) -> str:
    """What of a call the program does not have, or ""."""
    command, rest = program(), list(arguments)
    known = _options(command)
    # Options of the program itself come before the command.
    while rest and rest[0] in known and hasattr(command, "commands"):
        rest.pop(0)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"there is no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
        known = _options(command)
    for item in rest:
        option = item.split("=", 1)[0]
        if option.startswith("--") and option not in known:
            return f"{command.name} has no {option}"
    return ""


def options_of(command: str) -> set[str]:
    """The long options of a command, `--help` left out."""
    found = program()
    for name in command.split():
        found = found.commands[name]
    return {name for name in _options(found) if name.startswith("--")} - {"--help"}


def _options(command: Any) -> set[str]:
    named = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
    return {*named, "--help"}
