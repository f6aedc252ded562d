"""The commands of `stenosis-trt`: the module of each is imported when the command is used.

`stenosis-trt --help` prints the table below, and needs none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

_PACKAGE = "stenosis_trt.engine.cli"


class CommandEntry(NamedTuple):
    """Where a command is defined: its module, and the name of its function or of its `typer.Typer`.

    `short_help` stands in the list of commands, which has 80 columns: a longer one would be cut.
    """

    module: str
    attribute: str
    short_help: str


COMMANDS = {
    "grade": CommandEntry("grade", "grade", "Grade every study below PATHS."),
    "report": CommandEntry(
        "report", "report", "Write reports of graded studies: DICOM, pictures, a page, text."
    ),
    "inspect": CommandEntry(
        "inspect", "inspect", "Show which series would be graded, and why not the others."
    ),
    "phantom": CommandEntry("phantom", "phantom", "Write synthetic studies with exact truth."),
    "demo": CommandEntry("demo", "demo", "Grade three synthetic studies and compare with the truth."),
    "evaluate": CommandEntry("evaluate", "evaluate", "Compare results with a truth and with readers."),
    "export": CommandEntry("export", "export", "Convert trained checkpoints to a model pack."),
    "quantise": CommandEntry("quantise", "quantise", "Convert a pack's models to FP16 and INT8."),
    "build": CommandEntry("build", "build", "Build TensorRT plans of a pack's models."),
    "sign": CommandEntry("sign", "sign", "Sign a pack and the plans in it."),
    "verify": CommandEntry("verify", "verify", "Check that a pack is intact and runs."),
    "doctor": CommandEntry("doctor", "doctor", "Show what this machine has, and what to install for more."),
    "schema": CommandEntry("schema", "schema", "Print the JSON Schema of a file that this program writes."),
    "bench": CommandEntry("bench", "bench_app", "Measure speed on this machine."),
}
"""The commands in the order in which they are listed."""


class _LoadedCommands(MutableMapping[str, Any]):
    """Mapping of names to commands, each built when it is first asked for."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = _build(name, COMMANDS[name])
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*COMMANDS, *self._built)))

    def __len__(self) -> int:
        return len({*COMMANDS, *self._built})

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS or name in self._built


def _build(name: str, entry: CommandEntry) -> Any:
    """Import a command and return it as Typer builds it."""
    defined = getattr(importlib.import_module(f"{_PACKAGE}.{entry.module}"), entry.attribute)
    program = typer.Typer(rich_markup_mode=None, add_completion=False)
    # With a callback, Typer builds a group even of a single command.
    program.callback()(lambda: None)
    if isinstance(defined, typer.Typer):
        program.add_typer(defined, name=name)
    else:
        program.command(name, short_help=entry.short_help)(defined)
    group: Any = typer.main.get_command(program)
    return group.commands[name]


class LazyGroup(TyperGroup):
    """A group of the commands in COMMANDS."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _LoadedCommands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.short_help) for name, entry in COMMANDS.items()])
