"""The rules of docs/architecture.md about who may import whom, held against the code."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINE = "stenosis_trt.engine."


def _imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _imported(folder: str) -> dict[str, set[str]]:
    """Imports of each file below a folder that are not the standard library's, by path in the project."""
    return {
        str(path.relative_to(ROOT)): {
            name for name in _imports(path) if name.split(".")[0] not in sys.stdlib_module_names
        }
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def _outside(names: set[str], *allowed: str) -> set[str]:
    """Names of this project that begin with none of `allowed`."""
    return {name for name in names if name.startswith("stenosis_trt.") and not name.startswith(allowed)}


def test_the_engine_imports_the_engine_and_the_kernels() -> None:
    commands = {
        "engine/cli/demo.py": "stenosis_trt.bench.phantom",
        "engine/cli/app.py": "stenosis_trt.bench.",
        "engine/cli/export.py": "stenosis_trt.export.",
        "engine/cli/quantise.py": "stenosis_trt.export.",
        "engine/cli/verify.py": "stenosis_trt.export.",
        "engine/cli/roofline.py": ("stenosis_trt.bench.", "stenosis_trt.export."),
        "engine/cli/bench.py": ("stenosis_trt.bench.", "stenosis_trt.export."),
    }
    for path, names in _imported("engine").items():
        asked = commands.get(path, ())
        allowed = (asked,) if isinstance(asked, str) else asked
        assert not _outside(names, ENGINE, "stenosis_trt.kernels.", *allowed), path


def test_the_engine_imports_export_when_it_is_called_and_not_before() -> None:
    tree = ast.parse((ROOT / "engine" / "cli_export.py").read_text(encoding="utf-8"))
    at_once = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not [name for name in at_once if name and name.startswith("stenosis_trt.export")]


def test_reading_knows_of_the_engine_only_its_vocabulary() -> None:
    for path, names in _imported("engine/dicom").items():
        assert not _outside(names, f"{ENGINE}dicom.", f"{ENGINE}records", f"{ENGINE}geometry"), path


VOCABULARY = tuple(f"{ENGINE}{name}" for name in ("backends.", "pack", "records", "geometry", "roi"))


def test_what_runs_on_a_cpu_knows_of_the_engine_only_packs_and_its_vocabulary() -> None:
    gpu = {"engine/backends/tensorrt.py", "engine/backends/selection.py"}
    for path, names in _imported("engine/backends").items():
        if path not in gpu:
            assert not _outside(names, *VOCABULARY, "stenosis_trt.kernels."), path


def test_what_runs_on_a_gpu_knows_no_stage_of_the_pipe_and_no_files_of_studies() -> None:
    of_a_gpu = ("gpu.", "cuda", "tensorrt_", "plans", "sidecar", "build", "hardware", "messages", "progress")
    allowed = (*VOCABULARY, *(f"{ENGINE}{name}" for name in of_a_gpu), "stenosis_trt.kernels.")
    for path, names in _imported("engine/gpu").items():
        assert not _outside(names, *allowed), path
    assert not _outside(_imported("engine/backends")["engine/backends/tensorrt.py"], *allowed)


def test_what_is_launched_on_a_gpu_is_described_without_one() -> None:
    names = _imported("engine/gpu")["engine/backends/gpu/inputs.py"]
    assert not _outside(names, *VOCABULARY, "stenosis_trt.kernels.")


def test_the_engine_writes_to_a_terminal_by_one_module() -> None:
    """A print to a stream that is closed, or whose reader has gone, would end a run."""
    for path in sorted((ROOT / "engine").rglob("*.py")):
        if path.name == "messages.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        streams = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"print", "Console"}, path
        # The command line asks what standard output is, and has it written at the end.
        assert not streams & {"sys.stderr", *(() if path.name == "cli.py" else ("sys.stdout",))}, path


def test_the_reference_kernels_need_numpy_alone() -> None:
    for path, names in _imported("kernels").items():
        assert {name.split(".")[0] for name in names} <= {"numpy", "stenosis_trt"}, path
        assert not _outside(names, "stenosis_trt.kernels."), path


def test_benchmarks_do_not_need_what_trains() -> None:
    for path, names in _imported("bench").items():
        assert not _outside(names, "stenosis_trt.bench", ENGINE, "stenosis_trt.kernels"), path


@pytest.mark.parametrize(
    "name", ["tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda", "cryptography", "polygraphy"]
)
def test_a_vendor_library_has_at_most_one_importer(name: str) -> None:
    importers = [
        path
        for folder in ("engine", "kernels", "export", "bench")
        for path, names in _imported(folder).items()
        if name in {imported.split(".")[0] for imported in names}
    ]
    assert len(importers) <= 1


def test_every_module_of_the_engine_has_its_place_in_the_document() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+)/?`", document))
    modules = {path.stem for path in (ROOT / "engine").glob("*.py") if path.stem != "__init__"}
    folders = {path.parent.name for path in (ROOT / "engine").glob("*/__init__.py")}
    assert modules - named == set()
    assert {"dicom", "backends", "gpu"} <= folders & named
