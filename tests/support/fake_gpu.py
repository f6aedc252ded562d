"""Tests in processes of their own, on stand-ins for the driver (`fake_driver`) and for TensorRT.

    @on_the_fake_gpu(FAKE_CUDA_CAPABILITY="87")
    def test_something() -> None:
        with Device() as device: ...

runs where nothing else has been loaded; what it raises is the test's failure.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cuda_on_cpu import project_kernels
from shared_products import shared_product
from time_limits import time_limit

_HERE = Path(__file__).resolve().parent
_TENSORRT = _HERE / "stand_in_tensorrt"
FAKE_DRIVER = _HERE / "fake_driver"

Test = Callable[[], None]


def _build_driver(folder: Path) -> None:
    subprocess.run([FAKE_DRIVER / "build.sh", folder], check=True)


@functools.cache
def driver() -> Path:
    """Folder with the stand-in for libcuda.so.1, built once. Skips the test where it cannot be used."""
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("PyCUDA is not installed: .ci/pycuda.sh VENV installs it without a GPU")
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    return shared_product("fake_driver", _build_driver)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment, with the driver and both flavours of TensorRT, and `settings` of theirs."""
    path = (str(_TENSORRT), str(_TENSORRT / "rtx"), *os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(driver()),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        **settings,
    }


@functools.cache
def kernels() -> Path:
    """The project's kernels, compiled for the CPU, for FAKE_CUDA_KERNELS. Skips the test without g++."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return project_kernels()


def run_gpu_tests(file: Path, report: Path, there: Mapping[str, str] | None = None) -> int:
    """Run the `gpu` tests of a file in a process of its own; all must pass, and none may be skipped.

    Args:
        file: with the tests.
        report: a file to be written.
        there: the environment; None for one with the project's kernels.

    Returns:
        How many there are.
    """
    options = ["-p", "no:cacheprovider", "-m", "gpu", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        cwd=_HERE.parents[1],
        env=there or environment(FAKE_CUDA_KERNELS=str(kernels()), FAKE_CUDA_CAPABILITY="90"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    suite = ElementTree.parse(report).getroot()[0]
    assert suite.attrib["skipped"] == "0", done.stdout
    return int(suite.attrib["tests"])


def in_a_process(file: Path, statement: str, environment: Mapping[str, str]) -> None:
    """Run a statement about the test module `file`, imported by its own name."""
    path = [str(_HERE), str(file.parent)]
    program = f"import sys; sys.path[:0] = {path}; import {file.stem}; {file.stem}.{statement}"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=time_limit(120),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def on_the_fake_gpu(with_kernels: bool = False, **settings: str) -> Callable[[Test], Test]:
    """Runs a test in a process of its own, on the stand-ins with these settings of theirs, and where wanted
    with the project's kernels."""

    def decorate(test: Test) -> Test:
        def run() -> None:
            file = Path(inspect.getfile(test))
            more = {"FAKE_CUDA_KERNELS": str(kernels())} if with_kernels else {}
            in_a_process(file, f"{test.__name__}.there()", environment(**settings, **more))

        functools.update_wrapper(run, test)
        run.there = test
        return run

    return decorate


def count(what: str) -> int:
    """How many of something the driver has now; see COUNTED in fake_cuda.h."""
    counted = ctypes.CDLL("libcuda.so.1").fake_cuda_count
    counted.restype = ctypes.c_long
    return int(counted(what.encode()))


def assert_nothing_is_left() -> None:
    """Everything was given back to the driver."""
    kinds = [
        *("device_memory", "host_memory", "streams", "events", "modules"),
        *("graphs", "graph_execs", "contexts", "current"),
    ]
    assert {kind: count(kind) for kind in kinds} == dict.fromkeys(kinds, 0)
