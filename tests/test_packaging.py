"""What is shipped: the packages declared are those there are, and the run-time stays light."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import stenosis_trt.engine

if sys.version_info < (3, 11):  # pragma: no cover - development needs 3.11, the run-time 3.10
    pytest.skip("needs tomllib of Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("engine", "kernels", "export", "bench")
RUN_TIME = ("engine", "kernels", "bench")

WHERE_INSTALLED = {
    *("pycuda", "torch", "cupy", "cupyx"),
    *("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"),
    "cryptography",
    *("nibabel", "scipy", "sklearn", "statsmodels", "matplotlib"),
    *("pandas", "mlperf_loadgen"),
}
"""Imported when used, and done without where they are not there: the GPU, peers in benchmarks, signatures,
real volumes to make stenoses in, tables of results, load scenarios, `evaluate`."""
BACKPORTS = {"tomli"}
"""Imported where Python is older than 3.11, and not installed beside a newer one."""
DECODERS = {"python-gdcm", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle"}
"""Base dependencies that nothing imports: pydicom takes them as plugins."""
START_UP = {"typer", "click", "shellingham", "annotated_doc", "typing_extensions", "stenosis_trt"}
"""What `--help` may import beyond the standard library: the command line itself."""
_LIGHT_SUPPORT = ("hardware", "interrupts", "messages", "published_schema")
_LARGEST_REPEATED_BYTES = 1024
START_UP_MODULES = 200
"""150 are imported today; NumPy alone would bring 150 more, and 0.1 s."""


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return project


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(item).name) for item in requirements}


def _modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    """Top-level names of everything a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def _third_party(*folders: str) -> set[str]:
    found = {name for path in _modules(*folders) for name in _imports(path)}
    return found - set(sys.stdlib_module_names) - {"stenosis_trt"}


def _python(script: str) -> Any:
    """What a script prints as JSON on its last line, run by a Python of its own."""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def test_every_folder_with_modules_is_a_declared_package() -> None:
    def packages(pattern: str) -> set[str]:
        folders = {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob(pattern)}
        return {"stenosis_trt." + ".".join(folder.relative_to(ROOT).parts) for folder in folders}

    declared = set(_project()["tool"]["setuptools"]["packages"])
    assert packages("__init__.py") == packages("*.py") == declared


def test_the_installed_package_holds_the_files_of_the_checkout_and_no_others() -> None:
    """Stale modules of an earlier build and data files that were forgotten both show here."""
    installed = Path(stenosis_trt.engine.__path__[0]).resolve().parent
    if installed == ROOT:
        pytest.skip("the checkout itself is installed (pip install -e)")

    def files(base: Path) -> set[str]:
        found = (path for folder in FOLDERS for path in (base / folder).rglob("*") if path.is_file())
        names = {str(path.relative_to(base)) for path in found if "__pycache__" not in path.parts}
        # Records of measurements are the checkout's own.
        return {name for name in names if not name.startswith("bench/results/")}

    assert files(installed) == files(ROOT)


def test_the_run_time_imports_no_torch_and_nothing_of_a_gpu() -> None:
    heavy = _python(
        "import importlib, json, pkgutil, sys\n"
        f"for name in {RUN_TIME}:\n"
        "    root = importlib.import_module('stenosis_trt.' + name)\n"
        "    for module in pkgutil.walk_packages(root.__path__, root.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "heavy = {'torch', 'onnx', 'tensorrt', 'tensorrt_rtx_bindings', 'pycuda', 'modelopt', 'matplotlib'}\n"
        "heavy |= {'cryptography'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    assert heavy == []


def test_every_module_of_the_run_time_was_among_those_imported() -> None:
    """The test above walks packages; a module in a folder without __init__.py would escape it."""
    walked = _python(
        "import importlib, json, pkgutil\n"
        "found = []\n"
        f"for name in {RUN_TIME}:\n"
        "    root = importlib.import_module('stenosis_trt.' + name)\n"
        "    found += [m.name for m in pkgutil.walk_packages(root.__path__, root.__name__ + '.')]\n"
        "print(json.dumps(found))"
    )
    modules = {
        "stenosis_trt." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in _modules(*RUN_TIME)
        if path.name != "__init__.py"
    }
    assert modules <= set(walked)


def test_help_imports_the_command_line_and_nothing_else() -> None:
    """Imports make a start slow: their number is the budget, not a time that a busy machine misses."""
    loaded = _python(
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "from stenosis_trt.engine.cli.app import main\n"
        "sys.argv = ['stenosis-trt', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    packages = {name.split(".")[0] for name in loaded if not name.startswith("_")}
    assert packages - set(sys.stdlib_module_names) <= START_UP
    ours = {
        name.removeprefix("stenosis_trt.engine.")
        for name in loaded
        if name.startswith("stenosis_trt.engine.")
    }
    elsewhere = {name for name in ours if name.split(".")[0] != "cli"}
    assert elsewhere <= {"support", *(f"support.{name}" for name in _LIGHT_SUPPORT)}
    # The list of commands needs no command.
    assert {name for name in ours if name.startswith("cli.")} == {"cli.app", "cli.commands", "cli.errors"}
    assert len(loaded) <= START_UP_MODULES


def test_the_base_installation_is_what_the_run_time_imports_and_the_decoders() -> None:
    distributions = metadata.packages_distributions()
    imported = {
        canonicalize_name(name)
        for module in _third_party(*RUN_TIME) - WHERE_INSTALLED
        for name in distributions[module]
    }
    project = _project()["project"]
    # Jinja2 brings MarkupSafe.
    reports = _names(project["optional-dependencies"]["report"]) | {"markupsafe"}
    # `bench` measures what extras bring.
    optional = {
        name
        for extra in ("evaluate", "bench", "cpu-fast")
        for name in _names(project["optional-dependencies"][extra])
    }
    assert (imported - reports - optional) | DECODERS == _names(project["dependencies"])


def test_what_export_imports_is_in_the_base_installation_or_its_extra() -> None:
    project = _project()["project"]
    known = _names(project["dependencies"]) | _names(project["optional-dependencies"]["export"])
    distributions = metadata.packages_distributions()
    for module in _third_party("export") - BACKPORTS:
        assert {canonicalize_name(name) for name in distributions[module]} & known, module


def test_the_base_installation_needs_no_torch_and_nothing_of_a_gpu() -> None:
    names = _names(_project()["project"]["dependencies"])
    assert not names & {"torch", "tensorrt", "pycuda", "onnx", "polygraphy"}


def test_the_extras_are_those_of_the_design_and_hold_what_was_asked_for() -> None:
    extras = {name: _names(items) for name, items in _project()["project"]["optional-dependencies"].items()}
    assert set(extras) == {
        *(
            "gpu",
            "trt",
            "rtx",
            "rtx-build",
            "export",
            "sign",
            "report",
            "evaluate",
            "bench",
            "cpu-fast",
            "docs",
            "test",
        )
    }
    assert "pycuda" in extras["gpu"] & extras["trt"] & extras["rtx"]
    assert "tensorrt" in extras["trt"]
    assert {"torch", "onnx", "polygraphy"} <= extras["export"]
    assert extras["sign"] == {"cryptography"}


def _requirements(name: str, extra: str) -> list[str]:
    """What a distribution needs for one extra ("" for none): ours as declared here, others as installed."""
    if name != "stenosis-trt":
        try:
            return metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            return []
    project = _project()["project"]
    return [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]


def _required(name: str, extra: str, seen: set[tuple[str, str]]) -> None:
    """Put everything that a distribution with an extra needs into `seen`, as (name, extra)."""
    seen.add((name, extra))
    for requirement in map(Requirement, _requirements(name, extra)):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for key in ((canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)):
                if key not in seen:
                    _required(*key, seen)


@pytest.mark.parametrize("extra", ["test", "docs"])
def test_constraints_pin_everything_that_the_tests_and_the_site_bring(extra: str) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[^=*]+", str(pin.specifier)) for pin in pins)
    needed: set[tuple[str, str]] = set()
    _required("stenosis-trt", extra, needed)
    unpinned = {name for name, _ in needed} - {canonicalize_name(pin.name) for pin in pins}
    # PyTorch's build for CUDA brings packages that its build for the CPU does not have.
    assert {name for name in unpinned if not re.match(r"nvidia-|cuda-|triton", name)} == {"stenosis-trt"}


def test_the_code_is_written_in_the_syntax_of_python_3_10() -> None:
    """JetPack 6 has Python 3.10. That its standard library is enough is mypy's to say (python_version)."""
    assert _project()["project"]["requires-python"] == ">=3.10"
    assert _project()["tool"]["mypy"]["python_version"] == "3.10"
    for path in _modules(*FOLDERS):
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def test_the_readmes_first_commands_are_those_that_ci_calls() -> None:
    """All but the one that fetches the checkout."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    called = [line.strip() for line in script.splitlines()]
    first, second, *_ = (block.strip().splitlines() for block in readme.split("```")[1::2])
    fetch, *rest = first
    assert fetch.startswith("git clone ")
    assert rest == ["python3 -m venv .venv && . .venv/bin/activate", "pip install . && stenosis-trt demo"]
    assert second == ["pip install -c constraints.txt '.[test]' && pytest -n auto --dist loadfile"]
    for command in (*rest, *second):
        assert command in called


def test_the_installed_package_holds_a_reference_pack_that_verifies() -> None:
    from stenosis_trt.engine.packs.pack import Pack, reference_pack

    pack = Pack.load(reference_pack())
    assert pack.name == "reference"
    assert "Not for patients" in pack.intended_use


def test_the_wheel_is_at_most_100_megabytes() -> None:
    """Wheels are zips: they are not larger than their files, of which weights are deflated by a tenth."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
    elsewhere = ("bench/results/", "engine/packs/reference/plans/", "engine/packs/reference/cpu/")
    files = [
        path
        for path in found
        if "__pycache__" not in path.parts and not path.relative_to(ROOT).as_posix().startswith(elsewhere)
    ]
    assert sum(path.stat().st_size for path in files) <= 100e6


def test_no_tensor_of_the_reference_pack_is_stored_twice() -> None:
    from stenosis_trt.engine.packs.pack import Pack, reference_pack

    pack = Pack.load(reference_pack())
    stored: list[bytes] = []
    for model in pack.models.values():
        files = [model.file, *(variant.file for variant in model.variants.values())]
        extents = set()
        for file in files:
            for tensor in onnx.load(pack.path / file, load_external_data=False).graph.initializer:
                if tensor.external_data:
                    named = {entry.key: entry.value for entry in tensor.external_data}
                    extents.add((int(named["offset"]), int(named["length"])))
                elif len(tensor.raw_data) > _LARGEST_REPEATED_BYTES:
                    stored.append(hashlib.sha256(tensor.raw_data).digest())
        if model.weights is not None:
            weights = (pack.path / model.weights.file).read_bytes()
            stored += [hashlib.sha256(weights[start : start + size]).digest() for start, size in extents]
            # What no model refers to is padding.
            assert sum(size for _, size in extents) >= 0.99 * len(weights)
    assert len(stored) == len(set(stored))


def test_plans_are_built_ahead_of_time_without_pycuda() -> None:
    """PyCUDA has no wheels and wants CUDA's headers; TensorRT-RTX's builder needs no GPU."""
    extras = _project()["project"]["optional-dependencies"]
    assert _names(extras["rtx-build"]) == {"tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings"}
    assert _names(extras["rtx"]) == {"pycuda", "stenosis-trt"}
    assert any(Requirement(item).extras == {"rtx-build"} for item in extras["rtx"])
