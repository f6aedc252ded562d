"""What documents and unit files say of the program, held against the program: commands, options, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[2]

_CALL = re.compile(r"(?:(?<![\w./:@-])(?<!-t )|/bin/)stenosis-trt(?::[a-z]+\d)?[ \t]+([^`\n|]*)")
"""A call of the program in a line of code: by its name, by its path, or as the image of a container."""


@cache
def program() -> Any:
    """The command line."""
    from stenosis_trt.engine.cli.app import app

    return typer.main.get_command(app)


def code_in(document: str) -> str:
    """The code of a Markdown text: blocks and spans, a line each, continued lines joined."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```[a-z]*\n.*?^```", "", document, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", prose)
    return join_lines("\n".join([*blocks, *spans]))


def join_lines(code: str) -> str:
    """Code whose lines end where the next begins, and not with a backslash."""
    return re.sub(r"\\\n\s*", " ", code)


def calls_in(code: str) -> Iterator[list[str]]:
    """The arguments of each call of the program."""
    for found in _CALL.finditer(code):
        text = re.split(r"\s(?:&&|;|#)\s|\s{3,}", found[1])[0]
        arguments = shlex.split(text.replace("...", "").replace("…", ""))
        if arguments:
            yield arguments


def trouble_with(arguments: list[str]) -> str:
    """What of a call the program does not have, or ""."""
    command, rest = program(), list(arguments)
    known = _options(command)
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


def _options(command: Any) -> set[str]:
    named = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
    return {*named, "--help"}
