"""The import rules of docs/architecture.md, held against the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("kernels", "engine", "bench", "export")

LAYERS = (
    "kernels",
    # The vocabulary: modules that lie in engine/ itself.
    "engine.geometry",
    "engine.records",
    "engine.errors",
    "engine.support",
    "engine.dicom",
    "engine.selection",
    "engine.packs",
    "engine.cuda",
    "engine.trt",
    "engine.plans",
    "engine.backends",
    "engine.grading",
    "engine.reports",
    "engine.runs",
    "engine.api",
    "engine",
    "bench.phantom",
    "bench.semisynthetic",
    "bench.statistics",
    "bench.accuracy",
    "bench.robustness",
    "bench.evaluation",
    "bench.speed",
    "bench.record",
    "bench.systems",
    "bench.energy",
    "bench.load",
    "bench.peers",
    "bench.roofline",
    "bench.scaling",
    "bench",
    "export.errors",
    "export.spec_file",
    "export.models",
    "export.checkpoints",
    "export.onnx",
    "export.packs",
    "export.precision",
    "export.training",
    "export",
    "engine.cli",
)
"""Every room, from the lowest to the highest. A room imports only itself and rooms before it."""

BARRIERS: dict[str, tuple[str, ...]] = {
    "bench.phantom": ("kernels", "engine.geometry", "engine.records", "engine.errors", "engine.support"),
    "bench.statistics": (),
    "bench.record": ("engine.errors", "engine.support", "bench.statistics"),
    "engine.dicom": ("engine.geometry", "engine.records", "engine.errors", "engine.support"),
    "engine.selection": ("engine.geometry", "engine.records", "engine.errors", "engine.support"),
    "engine.cuda": ("engine.errors", "engine.support"),
    "engine.trt": ("engine.errors", "engine.support", "engine.cuda"),
}
"""Rooms that may use fewer than all rooms before them, so that they can be used on their own."""


def _sources() -> Iterator[tuple[str, Path]]:
    """The dotted name within the project and the path of each module."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(_sources())


def _imports(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name.removeprefix("stenosis_trt.") in MODULES else node.module


def _project_imports(path: Path) -> set[str]:
    return {name.removeprefix("stenosis_trt.") for name in _imports(path) if name.startswith("stenosis_trt.")}


def _room(module: str) -> str:
    """The longest entry of LAYERS that the module is or lies in."""
    fitting = [layer for layer in LAYERS if module == layer or module.startswith(f"{layer}.")]
    assert fitting, f"{module} lies in no room: name its folder in LAYERS"
    return max(fitting, key=len)


def test_every_arrow_points_to_the_same_room_or_a_lower_one() -> None:
    order = {layer: number for number, layer in enumerate(LAYERS)}
    upward = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in _project_imports(path)
        if order[_room(imported)] > order[_room(module)]
    ]
    assert upward == []


def test_only_the_command_line_imports_bench_and_export() -> None:
    """Besides the two folders themselves; `export` may use `bench`."""
    for module, path in MODULES.items():
        imported = {name.split(".")[0] for name in _project_imports(path)}
        if module.startswith(("kernels", "engine")) and _room(module) != "engine.cli":
            assert not imported & {"bench", "export"}, module
        if module.startswith("bench"):
            assert "export" not in imported, module


def test_low_rooms_need_little_of_the_project() -> None:
    for room, allowed in BARRIERS.items():
        for module, path in MODULES.items():
            if _room(module) == room:
                assert {_room(name) for name in _project_imports(path)} <= {room, *allowed}, module


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: _project_imports(path) & MODULES.keys() for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for imported in graph[module] - {module}:
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_command_line_starts_without_bench_and_export() -> None:
    """`--help`, `grade` and `doctor` work without the packages that these need."""
    program = (
        "import sys, stenosis_trt.engine.cli\n"
        "heavy = ('stenosis_trt.bench', 'stenosis_trt.export')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_the_engine_writes_to_a_terminal_through_one_module() -> None:
    """A print to a closed stream, or one whose reader has gone, would end a run."""
    for module, path in MODULES.items():
        if not module.startswith("engine") or module == "engine.support.messages":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        streams = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"print", "Console"}, module
        # The command line asks what standard output is, and flushes it at its end.
        commands = module in ("engine.cli.app", "engine.cli.inspect")
        assert not streams & {"sys.stderr", *(() if commands else ("sys.stdout",))}, module


def test_the_kernels_need_numpy_alone() -> None:
    for module, path in MODULES.items():
        if module.startswith("kernels"):
            foreign = {name.split(".")[0] for name in _imports(path)} - set(sys.stdlib_module_names)
            assert foreign <= {"numpy", "stenosis_trt"}, module


def test_the_run_time_never_imports_torch() -> None:
    for module, path in MODULES.items():
        if module.startswith(("kernels", "engine")):
            assert "torch" not in {name.split(".")[0] for name in _imports(path)}, module


@pytest.mark.parametrize(
    ("name", "room"),
    [
        ("tensorrt", "engine.trt"),
        ("tensorrt_rtx", "engine.trt"),
        ("tensorrt_rtx_bindings", "engine.trt"),
        ("pycuda", "engine.cuda"),
        ("cryptography", "engine.packs"),
        ("polygraphy", "export.onnx"),
        ("mlperf_loadgen", "bench.load"),
    ],
)
def test_a_vendor_library_has_one_importer(name: str, room: str) -> None:
    importers = [
        module
        for module, path in MODULES.items()
        if name in {imported.split(".")[0] for imported in _imports(path)}
    ]
    assert len(importers) <= 1
    assert {_room(module) for module in importers} <= {room}
