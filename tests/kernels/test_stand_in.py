"""The `gpu` tests of the kernels through PyCUDA, on a stand-in for the driver that runs their CPU build.

It proves that binaries are chosen and loaded, and arguments laid out and copied, as a GPU would need it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stenosis_trt.kernels.table import KERNELS

from .conftest import KERNELS_CU
from .cuda_on_cpu import compile_kernels

_FAKE_DRIVER = Path(__file__).parents[1] / "engine" / "fake_driver"


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is None, reason="PyCUDA is not installed")
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_gpu_tests_pass_on_a_driver_that_runs_the_cpu_build(tmp_path: Path) -> None:
    subprocess.run([_FAKE_DRIVER / "build.sh", tmp_path], check=True)
    kernels = compile_kernels(KERNELS_CU, list(KERNELS), tmp_path / "kernels")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(tmp_path),
        "FAKE_CUDA_KERNELS": str(kernels),
        "FAKE_CUDA_CAPABILITY": "90",
    }
    report = tmp_path / "report.xml"
    tests = [str(Path(__file__).with_name("test_kernels.py")), "-m", "gpu", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    suite = ElementTree.parse(report).getroot()[0]
    assert int(suite.attrib["tests"]) >= len(KERNELS)
    assert suite.attrib["skipped"] == "0", done.stdout
