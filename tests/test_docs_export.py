"""docs/export.md held against the code: options, messages, limits, entries of the spec, names of networks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from stenosis_trt.engine.cli.app import app
from stenosis_trt.export.checkpoints.efficientnet_names import ANCHORS, FIXED_PADDING_IMAGE, NETWORKS
from stenosis_trt.export.onnx.from_onnx import OPSETS
from stenosis_trt.export.onnx.from_torch import TOLERANCE
from stenosis_trt.export.precision.gate import GateLimits
from stenosis_trt.export.spec_file import reference_spec
from stenosis_trt.export.training.train import command_line

_ROOT = Path(__file__).resolve().parents[1]
_TEXT = (_ROOT / "docs" / "export.md").read_text(encoding="utf-8")
_GAP = "…"


def _section(title: str) -> str:
    """A part of the document from its heading to the next of that or a higher rank."""
    level = len(title) - len(title.lstrip("#"))
    start = _TEXT.index(f"{title}\n")
    following = re.search(rf"^#{{1,{level}}} ", _TEXT[start + len(title) :], re.MULTILINE)
    return _TEXT[start:] if following is None else _TEXT[start : start + len(title) + following.start()]


def _rows(text: str) -> list[list[str]]:
    """Cells of the tables in a part, without heads."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    marks = [index for index, line in enumerate(rows) if set(line) <= set("|- ")]
    heads = {index - 1 for index in marks} | set(marks)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for index, line in enumerate(rows)
        if index not in heads
    ]


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _options() -> dict[str, set[str]]:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {
        name: {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for name, command in commands.items()
    }


def test_every_command_line_has_only_options_that_its_command_has() -> None:
    lines = re.findall(r"stenosis-trt ([a-z]+)([^\n`|]*)", _TEXT)
    assert {"export", "quantise", "sign", "verify", "build", "doctor", "grade"} <= {name for name, _ in lines}
    options = _options()
    for name, rest in lines:
        given = set(re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", rest))
        assert given <= options[name], name


def test_every_option_that_is_named_is_one_of_some_command_or_of_the_recipe() -> None:
    known = set().union(*_options().values(), command_line()._option_string_actions)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", _TEXT))
    assert {"--calibrator", "--elsewhere", "--rewrite", "--sign", "--dla-core"} <= named
    assert named <= known


def _texts(folder: str) -> Iterator[str]:
    """Every text in the code of a folder; of one with values in it, each part."""
    for path in sorted((_ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_message_that_is_explained_is_one_of_the_code() -> None:
    texts = [text for folder in ("engine", "export") for text in _texts(folder)]
    messages = [text for row in _rows(_section("## What each error means")) for text in _quoted(row[0])]
    assert len(messages) > 70
    for message in messages:
        parts = [part.strip() for part in message.split(_GAP)]
        told = [part for part in parts if len(part) > 2]
        assert told, message
        for part in told:
            assert any(part in text for text in texts), (message, part)


def test_every_row_of_messages_says_what_it_means_and_what_to_do() -> None:
    for row in _rows(_section("## What each error means")):
        assert len(row) == 3
        assert all(row)


def test_the_limits_are_those_of_the_gate() -> None:
    section = _section("## FP16 and INT8, behind the gate")
    rows = [row for row in _rows(section) if row[1].startswith(("at least", "at most"))]
    numbers = [float(re.findall(r"[\d.]*\d", row[1])[0]) for row in rows]
    assert sorted(numbers) == sorted(map(float, asdict(GateLimits()).values()))
    source = (_ROOT / "export" / "precision" / "gate.py").read_text(encoding="utf-8")
    for row in rows:
        assert f'"{_quoted(row[0])[0]}"' in source


def test_the_entries_of_the_spec_are_those_of_the_example() -> None:
    example = reference_spec().read_text(encoding="utf-8")
    rows = _rows(_section("## The spec"))
    entries = [entry for row in rows for entry in _quoted(row[0])]
    assert {"size", "mean", "names", "activation"} <= set(entries)
    for entry in entries:
        assert re.search(rf"\b{entry} = ", example), entry
    written = set(re.findall(r"^(?:# )?(\w+) = ", example, re.MULTILINE))
    pack = {"name", "version", "licence", "intended_use", "weights", "training_data", "limits", "not_for"}
    assert written - pack - {"network", "image_size"} <= set(entries)


def test_networks_and_what_they_are_known_by_are_those_of_the_code() -> None:
    section = _section("## Checkpoints that are taken")
    told = {_quoted(row[0])[0]: _quoted(row[1])[0] for row in _rows(section) if "/" in row[0]}
    assert told == {name: ANCHORS[library] for name, (library, _) in NETWORKS.items()}
    assert f"opset {OPSETS[0]} to {OPSETS[1]}" in section
    assert "{} × {}".format(*FIXED_PADDING_IMAGE) in section
    assert f"differs by more than {TOLERANCE:g}" in _TEXT


def test_the_files_that_are_named_are_there() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)", _TEXT):
        assert (_ROOT / "docs" / name).is_file(), name
    for name in re.findall(r"`(export/[\w/.]+)`", _TEXT):
        assert (_ROOT / name).is_file(), name
    for extra in set(re.findall(r"'\.\[(\w+)\]'", _TEXT)):
        assert re.search(rf"^{extra} = \[", (_ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE), (
            extra
        )
