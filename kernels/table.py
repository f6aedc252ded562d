"""Table of the device kernels: name, parameters and threads per block. Their code is in `cuda/`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.kernels.layouts import (
    CORD,
    DIRECTION,
    FRAME,
    KEYPOINT,
    PLANE,
    RANK_REQUEST,
    REGION,
    SELECTION,
    WINDOW,
)


@dataclass(frozen=True)
class Parameter:
    """One kernel parameter: the address of an array of `dtype`, or a scalar if `array` is False."""

    name: str
    dtype: np.dtype[np.generic]
    array: bool = True


@dataclass(frozen=True)
class Kernel:
    """A kernel's entry point, its parameters in order, and the maximum number of threads per block."""

    name: str
    parameters: tuple[Parameter, ...]
    threads: int


def _array(name: str, dtype: npt.DTypeLike) -> Parameter:
    return Parameter(name, np.dtype(dtype))


def _int(name: str) -> Parameter:
    return Parameter(name, np.dtype(np.int32), array=False)


_ARENA = _array("arena", np.uint16)
_SIZE = (_int("height"), _int("width"))
_STATISTICS = (
    _ARENA,
    _array("regions", REGION),
    _array("requests", RANK_REQUEST),
    _array("selections", SELECTION),
    _array("windows", WINDOW),
)
WARP = 32
STATISTICS_THREADS = 256
PREPROCESS_THREADS = 128
COLUMNS_PER_THREAD = 2
"""Output columns per thread of `preprocess`."""
STRIP_ROWS = 32
"""Output rows per block of `preprocess`."""
MAX_TAPS = 4
"""Largest number of box-filter samples per axis for `preprocess`; `preprocess_affine` takes any number."""
MAX_MAPS = 12
"""Largest number of heatmaps per image for `decode_peaks`: a levels model has up to ten, and with blocks
of up to 12 warps NVRTC keeps to the register budget, which it does not with 10."""
PEAKS = 4
"""Peaks per heatmap that `decode_peaks` finds: one cervical disc looks like the next."""
LOWEST_PEAK = 1 / 64
"""Local maxima up to this height are no peaks; FP16 holds the number exactly."""
CORD_POINTS = 4
CONTRAST_THREADS = 1024

_PRECISIONS = (("f32", np.float32), ("f16", np.float16))


def _all() -> list[Kernel]:
    kernels = [
        Kernel("order_statistics_upper", _STATISTICS, STATISTICS_THREADS),
        Kernel("order_statistics_lower", _STATISTICS, STATISTICS_THREADS),
    ]
    for suffix, dtype in _PRECISIONS:
        planes = (_ARENA, _array("planes", PLANE), _array("windows", WINDOW), _array("out", dtype), *_SIZE)
        maps = (_array("heatmaps", dtype), _array("frames", FRAME))
        points = _array("points", KEYPOINT)
        numbers = (_array("stds", np.float32), _array("contrasts", np.float32))
        contrast = (_array("inputs", dtype), *numbers, _int("channels"), _int("pixels"))
        decode = (*maps, points, _array("support", np.float32), *_SIZE)
        cord = (*maps, _array("directions", DIRECTION), points, _array("cords", CORD), *_SIZE)
        kernels += [
            Kernel(f"preprocess_{suffix}", planes, PREPROCESS_THREADS),
            Kernel(f"preprocess_affine_{suffix}", planes, PREPROCESS_THREADS),
            Kernel(f"decode_peaks_{suffix}", decode, WARP * MAX_MAPS),
            Kernel(f"cord_geometry_{suffix}", cord, WARP * CORD_POINTS),
            Kernel(f"input_contrast_{suffix}", contrast, CONTRAST_THREADS),
        ]
    return kernels


KERNELS = {kernel.name: kernel for kernel in _all()}
"""Every entry point of `cuda/kernels.cu`, by name."""
