"""What is shipped: the packages declared are those there are, and the run-time stays light."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("engine", "kernels", "export", "bench")

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - development needs 3.11, the run-time 3.10
    pytest.skip("needs tomllib of Python 3.11", allow_module_level=True)


def _project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_with_modules_is_a_declared_package() -> None:
    found = {
        "stenosis_trt." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    holding = {
        "stenosis_trt." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    declared = set(_project()["tool"]["setuptools"]["packages"])  # type: ignore[index]
    assert found == holding == declared


def test_the_run_time_imports_no_torch_and_nothing_of_a_gpu() -> None:
    script = (
        "import importlib, pkgutil, sys\n"
        "import stenosis_trt.engine, stenosis_trt.kernels, stenosis_trt.bench\n"
        "for root in (stenosis_trt.engine, stenosis_trt.kernels, stenosis_trt.bench):\n"
        "    for module in pkgutil.walk_packages(root.__path__, root.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "heavy = {'torch', 'onnx', 'tensorrt', 'tensorrt_rtx_bindings', 'pycuda', 'modelopt', 'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in answer.stdout


def test_the_base_installation_needs_no_torch_and_nothing_of_a_gpu() -> None:
    names = {re.split(r"[<>=!~\[ ]", item)[0] for item in _project()["project"]["dependencies"]}  # type: ignore[index]
    assert not names & {"torch", "tensorrt", "pycuda", "onnx", "polygraphy"}


def test_the_packages_that_are_asked_for_are_all_declared() -> None:
    project = _project()["project"]
    extras = project["optional-dependencies"]  # type: ignore[index]
    assert set(extras) == {"gpu", "trt", "rtx", "export", "serve", "cluster", "bench", "test"}
    everything = " ".join([*project["dependencies"], *(item for extra in extras.values() for item in extra)])  # type: ignore[index]
    for name in ("tensorrt", "pycuda", "onnx", "torch", "pydicom", "numpy", "typer", "polygraphy"):
        assert name in everything


def test_the_readmes_commands_are_those_that_ci_calls() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in (
        "pip install . && stenosis-trt demo",
        "pip install -c constraints.txt '.[test]' && pytest",
    ):
        assert command in "\n".join(readme.splitlines()[:40])
        assert command in script


def test_the_installed_package_holds_a_reference_pack_that_verifies() -> None:
    from stenosis_trt.engine.pack import Pack, reference_pack

    pack = Pack.load(reference_pack())
    assert pack.name == "reference"
    assert "Not for patients" in pack.intended_use
    size = sum(path.stat().st_size for path in pack.path.iterdir())
    assert size <= 70e6
