"""The `gpu` tests of the kernels through PyCUDA, on a stand-in for the driver that runs their CPU build.

It proves that binaries are chosen and loaded, and arguments laid out and copied, as a GPU would need it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_gpu import run_gpu_tests

from stenosis_trt.kernels.table import KERNELS


@pytest.mark.parametrize(("file", "fewest"), [("test_kernels.py", len(KERNELS)), ("test_fixed_grids.py", 3)])
def test_the_gpu_tests_pass_on_a_driver_that_runs_the_cpu_build(
    file: str, fewest: int, tmp_path: Path
) -> None:
    assert run_gpu_tests(Path(__file__).with_name(file), tmp_path / "report.xml") >= fewest
