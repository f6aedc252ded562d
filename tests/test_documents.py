"""Documents held against the program: commands, options, files, columns, warnings, limits, rooms."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from documented import (
    DOCUMENTS,
    ROOT,
    blocks,
    calls_in,
    code_in,
    commands_in,
    options_of,
    quoted,
    read,
    rows,
    trouble_with,
)
from test_architecture import LAYERS

import stenosis_trt.engine
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.records import CordMeasurement, LevelResult, Stage, StudyResult
from stenosis_trt.engine.reports.warning_meanings import WARNING_MEANINGS
from stenosis_trt.engine.runs.tables import ERROR_COLUMNS, RESULT_COLUMNS, STUDY_COLUMNS

NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
PAGES = [name for name in NAMES if name != "CHANGELOG.md"]
DECISIONS = [name for name in NAMES if name.startswith("docs/decisions/") and "index" not in name]
SHORT = {"README.md": 150, "docs/architecture.md": 150}
"""Lines that a page has at most."""
_FOLDERS = ("", "engine", "export", "bench", "kernels", "tests", "docs")
_PATH = re.compile(r"[\w./-]*\w\.(?:py|cu|cuh|md|toml|sh|json|txt|yml|yaml|safetensors)|[\w./-]+/")


@pytest.mark.parametrize("name", PAGES)
def test_every_call_of_the_program_is_one_that_it_takes(name: str) -> None:
    calls = list(calls_in(code_in(read(name))))
    assert {" ".join(call): trouble_with(call) for call in calls if trouble_with(call)} == {}


@pytest.mark.parametrize("name", PAGES)
def test_every_module_that_is_called_is_there_and_has_the_options(name: str) -> None:
    for module, rest in re.findall(r"python -m (stenosis_trt\.[\w.]+)([^`\n&|]*)", read(name)):
        source = _source_with_imports(module)
        for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", rest):
            assert f'"{option}"' in source, (module, option)


def _source_with_imports(module: str) -> str:
    """Source of a module, or of a package's `__main__`, and of the modules of the project that it imports."""
    found = importlib.util.find_spec(module)
    assert found is not None, module
    if found.submodule_search_locations is not None:
        found = importlib.util.find_spec(f"{module}.__main__")
    assert found is not None, module
    assert found.origin is not None, module
    source = Path(found.origin).read_text(encoding="utf-8")
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    imported = {node.module for node in nodes if node.module and node.module.startswith("stenosis_trt.")}
    specs = [importlib.util.find_spec(name) for name in sorted(imported)]
    paths = [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]
    return "\n".join([source, *(path.read_text(encoding="utf-8") for path in paths)])


@pytest.mark.parametrize("name", PAGES)
def test_every_test_that_is_called_is_there(name: str) -> None:
    for command in commands_in(read(name)):
        if command.startswith("pytest"):
            for path in re.findall(r"(?<=\s)tests/\S+", command):
                assert (ROOT / path).exists(), command


@pytest.mark.parametrize("name", PAGES)
def test_every_file_of_the_checkout_that_is_named_is_there(name: str) -> None:
    """As `engine/dicom/find.py`, and within a room as `dicom/find.py`."""
    spans = {item for item in re.findall(r"`([^`\n]+)`", read(name)) if _PATH.fullmatch(item)}
    ours = {item for item in spans if item.split("/")[0] in _first_parts() and "NAME" not in item}
    missing = {item for item in ours if not any((ROOT / folder / item).exists() for folder in _FOLDERS)}
    assert missing == set()


@pytest.mark.parametrize("name", [*DECISIONS, "docs/architecture.md", "docs/python.md", "CONTRIBUTING.md"])
def test_every_name_of_the_code_is_there(name: str) -> None:
    """Whatever is written as code and looks like a name of Python, C++ or a file's entry."""
    named = {
        word
        for span in re.findall(r"`([\w.]*[A-Za-z]_?[\w.]*)`", read(name))
        for word in span.split(".")
        if re.search(r"_|[a-z][A-Z]|^[A-Z][a-z]", word)
    }
    assert named - _words() == set()


@cache
def _words() -> set[str]:
    """Every word of the sources, and of their names."""
    return {
        word
        for folder in ("engine", "export", "bench", "kernels", "tests", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".cu", ".cuh", ".cpp", ".toml", ".sh") and "venv" not in path.parts
        for word in (path.stem, *re.findall(r"\w+", path.read_text(encoding="utf-8")))
    }


def _first_parts() -> set[str]:
    """What a path of the checkout begins with: its folders, and those within the four packages."""
    inner = {path.name for folder in _FOLDERS for path in (ROOT / folder).iterdir() if path.is_dir()}
    return inner - {".git", "site", "build", "dist"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_leads_to_a_file(name: str) -> None:
    """The pages of the site have theirs checked when it is built."""
    for target in re.findall(r"\]\(([^)#]+)", read(name)):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize(("name", "most"), SHORT.items())
def test_a_page_that_has_to_be_short_is(name: str, most: int) -> None:
    assert len(read(name).splitlines()) <= most


def test_each_column_of_each_table_is_explained_in_its_order() -> None:
    text = read("docs/results.md")
    for title, columns in (
        ("## results.csv", RESULT_COLUMNS),
        ("## studies.csv", STUDY_COLUMNS),
        ("## errors.csv", ERROR_COLUMNS),
    ):
        explained = [name for row in rows(text, title) for name in quoted(row[0])]
        assert explained == list(columns), title
    (stages,) = [row[1] for row in rows(text, "## errors.csv") if row[0] == "`stage`"]
    assert quoted(stages) == [stage.value for stage in Stage]


def test_each_field_of_a_line_of_results_jsonl_is_explained() -> None:
    table = {
        name: row[1] for row in rows(read("docs/results.md"), "## results.jsonl") for name in quoted(row[0])
    }
    known = {"study_number", "study_path", *(item.name for item in fields(StudyResult))}
    assert set(table) == known
    for name, kind in (("levels", LevelResult), ("cord_slices", CordMeasurement)):
        assert set(quoted(table[name])) == {item.name for item in fields(kind)}, name


def test_each_warning_is_explained_once() -> None:
    explained = [name for row in rows(read("docs/results.md"), "## Warnings") for name in quoted(row[0])]
    assert sorted(explained) == sorted(WARNING_MEANINGS)


def test_each_warning_that_a_stage_gives_is_explained() -> None:
    """Warnings are the words in snake case that the stages put into a tuple."""
    written: set[str] = set()
    for room in ("selection", "grading"):
        for path in (ROOT / "engine" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Tuple):
                    written |= {
                        item.value
                        for item in node.elts
                        if isinstance(item, ast.Constant)
                        and isinstance(item.value, str)
                        and re.fullmatch(r"[a-z]+(_[a-z]+)+", item.value)
                    }
    assert {"no_axial_series", "level_not_found", "slices_unreadable"} <= written
    assert written <= set(WARNING_MEANINGS), sorted(written - set(WARNING_MEANINGS))


def test_each_limit_of_reading_has_its_default_in_the_table() -> None:
    table = {quoted(row[0])[0]: row[1] for row in rows(read("docs/usage.md"), "### Limits of reading")}
    units = {"GiB": 1 << 30, "MiB": 1 << 20, "Mi": 1 << 20}
    for item in fields(ReadLimits):
        number, *unit = table.pop(item.name).replace(",", "").split()
        assert float(number) * units.get("".join(unit), 1) == item.default, item.name
    assert table == {}


def test_each_option_of_grade_is_in_the_table() -> None:
    named = {
        name for row in rows(read("docs/usage.md"), "### All options of `grade`") for name in quoted(row[0])
    }
    assert named == {name for name in options_of("grade") if not name.startswith("--no-cuda")}
    on_a_gpu = {
        option.split()[0]
        for row in rows(read("docs/gpu.md"), "# Grade on a GPU")
        for option in quoted(row[0])
    }
    assert on_a_gpu <= options_of("grade")


def test_each_extra_is_in_the_table() -> None:
    if sys.version_info < (3, 11):  # pragma: no cover - development needs 3.11
        pytest.skip("needs tomllib of Python 3.11")
    import tomllib

    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    named = [name for row in rows(read("docs/usage.md"), "## Install") for name in quoted(row[0])]
    assert sorted(named) == sorted(extras)


def test_each_room_is_on_the_map_and_says_what_belongs_there() -> None:
    table = [name for row in rows(read("docs/architecture.md"), "## The rooms") for name in quoted(row[0])]
    on_map = {name.strip("/").removesuffix(".py").replace("/", ".") for name in table}
    # Folders whose rooms stand in a row each, and modules that are rooms of their own below `export`.
    grouping = {"engine", "bench", "export", "export.errors", "export.spec_file"}
    assert set(LAYERS) - grouping == on_map
    for layer in LAYERS:
        package = ROOT.joinpath(*layer.split("."), "__init__.py")
        if package.exists():
            told = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
            assert len(told.split()) >= 5, f"{layer}: its docstring has to say what belongs there"


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_has_context_decision_consequences_and_evidence(name: str) -> None:
    text = read(name)
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Evidence"]
    assert list(commands_in(text.split("## Evidence")[1]))


def test_every_page_is_in_the_navigation_and_every_decision_in_the_list() -> None:
    navigation = read("mkdocs.yml")
    listed = read("docs/decisions/index.md")
    for name in NAMES:
        if name.startswith("docs/"):
            assert name.removeprefix("docs/") in navigation, name
    for name in DECISIONS:
        assert f"]({Path(name).name})" in listed, name


def test_each_public_name_is_in_the_api_reference() -> None:
    documented = re.findall(r"^::: stenosis_trt\.engine\.[\w.]*?(\w+)$", read("docs/api.md"), re.MULTILINE)
    assert sorted(documented) == sorted(stenosis_trt.engine.__all__)


def test_python_examples_are_python() -> None:
    found = [block for name in PAGES for block in blocks(read(name), "python")]
    assert len(found) >= 5
    for block in found:
        ast.parse(block)


def test_pre_commit_and_nox_name_what_ci_runs() -> None:
    script = read(".ci/run")
    hooks = re.findall(r"^ +entry: (.*)$", read(".pre-commit-config.yaml"), re.MULTILINE)
    checks = [entry for entry in hooks if not entry.startswith("pytest")]
    assert len(checks) >= 4
    for entry in checks:
        assert f".ci/venv/bin/{entry}" in script, entry
    assert "https://" not in read(".pre-commit-config.yaml")
    sessions = re.findall(r"^def (\w+)\(session", read("noxfile.py"), re.MULTILINE)
    named = [row[0].strip("`").split()[-1] for row in rows(read("CONTRIBUTING.md"), "## Set-up")]
    assert named == sessions
