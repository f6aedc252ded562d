"""The runners that every test of a kernel runs on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_on_cpu import CpuKernels, project_kernels

from stenosis_trt.engine.cuda.device import Device
from stenosis_trt.engine.cuda.driver import CudaError

from .runners import CpuRunner, GpuRunner, Runner


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without g++ what compiles for the CPU is skipped. `.ci/run` sees to it that it is there."""
    if shutil.which("g++") is not None:
        return
    needing = {
        "test_bench_work",
        "test_cuda_on_cpu",
        "test_fixed_grids",
        "test_kernels",
        "test_layouts",
        "test_sanitisers",
    }
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem in needing:
            item.add_marker(pytest.mark.skip(reason="g++ is not installed"))


@pytest.fixture(scope="session")
def compiled() -> CpuKernels:
    """The project's kernels, compiled for the CPU."""
    return CpuKernels(project_kernels())


@pytest.fixture(scope="session")
def gpu_runner() -> Iterator[GpuRunner]:
    """A GPU, or why there is none."""
    try:
        device = Device()
    except CudaError as error:
        pytest.skip(str(error))
    with device:
        yield GpuRunner(device)


@pytest.fixture(scope="session", params=["cpu-0", "cpu-1", pytest.param("gpu", marks=pytest.mark.gpu)])
def runner(request: pytest.FixtureRequest) -> Runner:
    """The CPU build in two orders of its threads, and a GPU."""
    if request.param == "gpu":
        gpu: GpuRunner = request.getfixturevalue("gpu_runner")
        return gpu
    return CpuRunner(request.getfixturevalue("compiled"), seed=int(request.param[-1]))
