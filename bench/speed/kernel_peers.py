"""Time the large batch of `bench.kernels` in PyTorch and CuPy, if installed.

64 slices of 512² become three normalised channels of 456² in FP16. The libraries resample without a prefilter
and are given the window, which is less work than the kernels do.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

_COUNT, _SIDE, _OUTPUT = 64, 512, 456
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LOW, _HIGH = 40.0, 4000.0
_MODULES = {"torch": "torch", "cupy": "cupy-cuda13x"}


def versions() -> dict[str, str]:
    """Versions of the installed libraries."""
    found = {}
    for module, package in _MODULES.items():
        if importlib.util.find_spec(module) is not None:
            try:
                found[module] = metadata.version(package)
            except metadata.PackageNotFoundError:
                found[module] = "of unknown version"
    return found


def measure(warm_up: int, runs: int) -> Iterator[tuple[str, list[float]]]:
    """Yield name and milliseconds of each run, for each installed library that finds a GPU."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            pipeline, pixels = _torch(torch)
            yield "PyTorch, eager", _timed(torch, pipeline, pixels, warm_up, runs)
            yield "PyTorch, compiled", _timed(torch, torch.compile(pipeline), pixels, warm_up, runs)
    if importlib.util.find_spec("cupy") is not None:
        yield "CuPy", _cupy(warm_up, runs)


def _torch(torch: Any) -> tuple[Callable[[Any], Any], Any]:
    functional = torch.nn.functional
    pixels = torch.randint(0, 4096, (_COUNT, 1, _SIDE, _SIDE), dtype=torch.int16, device="cuda")
    mean, std = (torch.tensor(value, device="cuda").view(1, 3, 1, 1) for value in (_MEAN, _STD))
    theta = torch.eye(2, 3, device="cuda").expand(_COUNT, 2, 3)
    grid = functional.affine_grid(theta, [_COUNT, 1, _OUTPUT, _OUTPUT], align_corners=False)

    def pipeline(stored: Any) -> Any:
        unit = ((stored.float() - _LOW) / (_HIGH - _LOW)).clamp(0, 1)
        resampled = functional.grid_sample(unit, grid, padding_mode="zeros", align_corners=False)
        return ((resampled - mean) / std).half()

    return pipeline, pixels


def _timed(torch: Any, pipeline: Callable[[Any], Any], pixels: Any, warm_up: int, runs: int) -> list[float]:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    with torch.inference_mode():
        for run in range(warm_up + runs):
            begin.record()
            pipeline(pixels)
            end.record()
            end.synchronize()
            if run >= warm_up:
                times.append(float(begin.elapsed_time(end)))
    return times


def _cupy(warm_up: int, runs: int) -> list[float]:
    import cupy
    from cupyx.scipy import ndimage

    pixels = cupy.random.randint(0, 4096, (_COUNT, _SIDE, _SIDE)).astype(cupy.uint16)
    scale = _SIDE / _OUTPUT
    offset = (scale - 1) / 2
    matrix, shift = cupy.array([1.0, scale, scale]), cupy.array([0.0, offset, offset])
    mean, std = (cupy.array(value, dtype=cupy.float32).reshape(1, 3, 1, 1) for value in (_MEAN, _STD))
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    times = []
    for run in range(warm_up + runs):
        begin.record()
        unit = ((pixels.astype(cupy.float32) - _LOW) / (_HIGH - _LOW)).clip(0, 1)
        resampled = ndimage.affine_transform(
            unit, matrix, shift, (_COUNT, _OUTPUT, _OUTPUT), order=1, mode="constant"
        )
        ((resampled[:, None] - mean) / std).astype(cupy.float16)
        end.record()
        end.synchronize()
        if run >= warm_up:
            times.append(float(cupy.cuda.get_elapsed_time(begin, end)))
    return times
