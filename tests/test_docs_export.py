"""Pages about models held against the code: options, messages, limits, entries of the spec, networks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import asdict

import typer
from documented import ROOT, program, quoted, read, rows

from stenosis_trt.engine.cli.app import app
from stenosis_trt.export.checkpoints.efficientnet_names import ANCHORS, FIXED_PADDING_IMAGE, NETWORKS
from stenosis_trt.export.onnx.from_onnx import OPSETS
from stenosis_trt.export.onnx.from_torch import TOLERANCE
from stenosis_trt.export.precision.gate_result import GateLimits
from stenosis_trt.export.spec_file import reference_spec
from stenosis_trt.export.training.train import command_line

_MODELS, _PRECISION = read("docs/models.md"), read("docs/precision.md")
_MESSAGES = read("docs/troubleshooting.md")
_TEXT = "\n".join(
    [_MODELS, _PRECISION, read("docs/plans.md"), read("docs/signing.md"), read("docs/gpu.md"), _MESSAGES]
)
"""From checkpoints to plans, in the order of the site."""
_GAP = "…"


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
    of_all = {option for parameter in program().params for option in parameter.opts}
    known = of_all.union(*_options().values(), command_line()._option_string_actions)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", _TEXT))
    assert {
        "--calibration-method",
        "--high-precision-dtype",
        "--squeeze-excite-rewrite",
        "--signing-key",
        "--dla-core",
    } <= named
    assert named <= known


def _texts(folder: str) -> Iterator[str]:
    """Every text in the code of a folder; of one with values in it, each part."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_message_that_is_explained_is_one_of_the_code() -> None:
    texts = [text for folder in ("engine", "export") for text in _texts(folder)]
    messages = [text for row in _explained() for text in quoted(row[0])]
    assert len(messages) > 70
    for message in messages:
        parts = [part.strip() for part in message.split(_GAP)]
        told = [part for part in parts if len(part) > 2]
        assert told, message
        for part in told:
            assert any(part in text for text in texts), (message, part)


def _explained() -> list[list[str]]:
    return [*rows(_MESSAGES, "## Grading"), *rows(_MESSAGES, "## Making packs and plans")]


def test_every_row_of_messages_says_what_it_means_and_what_to_do() -> None:
    for row in _explained():
        assert len(row) == 3
        assert all(row)


def test_the_limits_are_those_of_the_gate() -> None:
    limits = [row for row in rows(_PRECISION, "## The gate") if row[1].startswith(("at least", "at most"))]
    numbers = [float(re.findall(r"[\d.]*\d", row[1])[0]) for row in limits]
    assert sorted(numbers) == sorted(map(float, asdict(GateLimits()).values()))
    source = (ROOT / "export" / "precision" / "gate_result.py").read_text(encoding="utf-8")
    for row in limits:
        assert f'"{quoted(row[0])[0]}"' in source


def test_the_entries_of_the_spec_are_those_of_the_example() -> None:
    example = reference_spec().read_text(encoding="utf-8")
    entries = [entry for row in rows(_MODELS, "## The spec") for entry in quoted(row[0])]
    assert {"size", "mean", "names", "activation"} <= set(entries)
    for entry in entries:
        assert re.search(rf"\b{entry} = ", example), entry
    written = set(re.findall(r"^(?:# )?(\w+) = ", example, re.MULTILINE))
    pack = {"name", "version", "licence", "intended_use", "clinical_use", "weights"}
    pack |= {"training_data", "limits", "not_for"}
    assert written - pack - {"network", "image_size"} <= set(entries)


def test_networks_and_what_they_are_known_by_are_those_of_the_code() -> None:
    networks = [row for row in rows(_MODELS, "## Checkpoints that are taken") if "/" in row[0]]
    told = {quoted(row[0])[0]: quoted(row[1])[0] for row in networks}
    assert told == {name: ANCHORS[library] for name, (library, _) in NETWORKS.items()}
    # Lines may end anywhere.
    text = " ".join(_MODELS.split())
    assert f"opset {OPSETS[0]} to {OPSETS[1]}" in text
    assert "{} × {}".format(*FIXED_PADDING_IMAGE) in text
    assert f"differs by more than {TOLERANCE:g}" in text


def test_the_files_that_are_named_are_there() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)", _TEXT):
        assert (ROOT / "docs" / name).is_file(), name
    for name in re.findall(r"`(export/[\w/.]+)`", _TEXT):
        assert (ROOT / name).is_file(), name
    for extra in set(re.findall(r"'\.\[(\w+)\]'", _TEXT)):
        assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE), extra
