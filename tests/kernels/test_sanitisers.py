"""Every kernel under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer: no report.

That these checks can fail is shown by the planted bugs of `test_cuda_on_cpu`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from cuda_on_cpu import Build, CpuKernels, Launch, project_kernels, run_sanitised

from stenosis_trt.kernels.launches import LaunchConfig
from stenosis_trt.kernels.layouts import FRAME
from stenosis_trt.kernels.table import KERNELS

from .cases import (
    KINDS,
    lay_out,
    random_batch,
    random_directions,
    run_contrast,
    run_cord,
    run_decode,
    run_preprocess,
    run_statistics,
)
from .runners import Argument, CpuRunner, typed


class _Recorder:
    """Runs kernels, and keeps each launch with its arguments as they were before it."""

    def __init__(self, kernels: CpuKernels, seed: int) -> None:
        self._runner, self._seed = CpuRunner(kernels, seed), seed
        self.launches: list[Launch] = []

    def run(self, kernel: str, grids: LaunchConfig, arguments: Sequence[Argument]) -> None:
        before = [item.copy() for item in typed(kernel, arguments)]
        self.launches.append(Launch(kernel, grids.grid, grids.block, before, seed=self._seed))
        self._runner.run(kernel, grids, arguments)


def _every_kernel(recorder: _Recorder) -> None:
    rng = np.random.default_rng(11)
    for kind in KINDS:
        for dtype in (np.float32, np.float16):
            batch = random_batch(rng, count=2, shapes=(5, 40), kind=kind)
            arena = lay_out(rng, batch)
            run_preprocess(recorder, arena, run_statistics(recorder, arena, batch.percentiles), dtype)
    for dtype in (np.float32, np.float16):
        heatmaps = rng.uniform(0, 1, (2, 4, 13, 17)).astype(dtype)
        frames = np.zeros(2, FRAME)
        run_decode(recorder, heatmaps, frames)
        run_cord(recorder, heatmaps, frames, random_directions(rng, 2))
    for dtype in (np.float32, np.float16):
        run_contrast(recorder, rng.uniform(-2, 2, (2, 3, 9, 133)).astype(dtype), np.array([0.2, 0.3, 0.4]))


@pytest.mark.parametrize("build", [Build.ASAN, Build.TSAN])
def test_no_kernel_has_a_finding(build: Build, compiled: CpuKernels) -> None:
    recorder = _Recorder(compiled, seed=1)
    _every_kernel(recorder)
    assert {launch.kernel for launch in recorder.launches} == set(KERNELS)
    report = run_sanitised(project_kernels(build), recorder.launches)
    assert report.ok, report.text
