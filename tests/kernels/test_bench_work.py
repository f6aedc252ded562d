"""What `bench kernels` times is the work it says: its launches on the CPU build, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import CpuKernels

from stenosis_trt.bench.speed.kernel_workloads import (
    KernelWorkload,
    contrast_workload,
    decode_workloads,
    large_batch,
    preprocess_workload,
    study_input_batches,
    study_pixels,
)
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.kernels.decoding import decode_keypoints, decode_peaks
from stenosis_trt.kernels.reference import RegionSource, input_contrast, preprocess_region, region_window

from .runners import CpuRunner


def _run(kernels: CpuKernels, work: KernelWorkload) -> None:
    runner = CpuRunner(kernels, seed=0)
    for launch in work.launches:
        arguments = [work.arrays[item] if isinstance(item, str) else item for item in launch.arguments]
        runner.run(launch.kernel, launch.grids, arguments)


@pytest.mark.parametrize("number", range(3))
def test_the_preprocessing_of_a_study_is_the_reference(compiled: CpuKernels, number: int) -> None:
    pixels = study_pixels(np.random.default_rng(2))
    cut = study_input_batches(Pack.load(reference_pack()))[number]
    work = preprocess_workload(cut, pixels, np.float32)
    _run(compiled, work)
    spec = cut.spec
    for index in (0, len(cut.slices) - 1):
        sources = [
            RegionSource(
                pixels[item.offset : item.offset + item.shape[0] * item.shape[1]].reshape(item.shape)
            )
            for item in cut.slices[index]
        ]
        window = region_window(sources, cut.affines[index], spec.size, spec.window_percentiles)
        expected = preprocess_region(sources, cut.affines[index], spec.size, window, (spec.mean, spec.std))
        assert np.abs(work.arrays["out"][index] - expected).max() <= 1e-4


def test_the_large_batch_moves_the_bytes_that_it_says(compiled: CpuKernels) -> None:
    work = large_batch(np.random.default_rng(0), np.float16, count=2)
    _run(compiled, work)
    assert work.moved_bytes == 2 * 512 * 512 * 2 + 2 * 3 * 456 * 456 * 2
    assert np.isfinite(work.arrays["out"]).all()
    assert work.arrays["out"].astype(np.float32).std() > 0.1


def test_decoding_of_a_study_is_the_reference(compiled: CpuKernels) -> None:
    for work in decode_workloads(np.random.default_rng(4), np.float32):
        _run(compiled, work)
        decode = decode_peaks if work.name == "levels" else decode_keypoints
        expected = decode(work.arrays["heatmaps"])
        assert np.abs(work.arrays["points"]["x"] - expected[..., 0]).max() <= 1e-3


def test_the_contrast_of_a_study_is_the_reference(compiled: CpuKernels) -> None:
    spec = Pack.load(reference_pack()).models["grader"].input
    work = contrast_workload(np.random.default_rng(5), spec, np.float16)
    _run(compiled, work)
    expected = input_contrast(work.arrays["inputs"].astype(np.float32), spec.std)
    np.testing.assert_allclose(work.arrays["contrasts"], expected, rtol=5e-6)
