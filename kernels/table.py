"""The device kernels by name: what each takes, and its threads. The code is in `cuda/`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.kernels.layouts import (
    CORD,
    CORD_LIMITS,
    FRAME,
    KEYPOINT,
    LEVEL_CHOICE,
    PLANE,
    RANK_REQUEST,
    REGION,
    SELECTION,
    WINDOW,
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: the address of an array of `dtype`, or a plain number."""

    name: str
    dtype: np.dtype[np.generic]
    array: bool = True


@dataclass(frozen=True)
class Kernel:
    """A kernel's entry point, its parameters in order, and the threads of a block."""

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
COLUMNS = 2
"""Output columns that one thread of `preprocess` makes."""
STRIP_ROWS = 32
"""Output rows that one block of `preprocess` makes."""
MOST_TAPS = 4
"""Samples along one axis up to which `preprocess` is used; beyond them, `preprocess_affine`."""
MOST_MAPS = 8
"""Heatmaps of one image that `decode_keypoints` takes."""
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
        points, support = _array("points", KEYPOINT), _array("support", np.float32)
        numbers = (_array("deviations", np.float32), _array("contrasts", np.float32))
        contrast = (_array("inputs", dtype), *numbers, _int("channels"), _int("pixels"))
        cord = (*maps, _array("limits", CORD_LIMITS), points, _array("cords", CORD), *_SIZE)
        kernels += [
            Kernel(f"preprocess_{suffix}", planes, PREPROCESS_THREADS),
            Kernel(f"preprocess_affine_{suffix}", planes, PREPROCESS_THREADS),
            Kernel(f"decode_keypoints_{suffix}", (*maps, points, support, *_SIZE), WARP * MOST_MAPS),
            Kernel(f"cord_geometry_{suffix}", cord, WARP * CORD_POINTS),
            Kernel(f"input_contrast_{suffix}", contrast, CONTRAST_THREADS),
        ]
    compression = (
        _array("cords", CORD),
        _array("arcs", np.float32),
        _int("slices"),
        _array("level_arcs", np.float32),
        _array("reaches", np.float32),
        _array("choices", LEVEL_CHOICE),
    )
    return [*kernels, Kernel("maximal_compression", compression, WARP)]


KERNELS = {kernel.name: kernel for kernel in _all()}
"""Every entry point of `cuda/kernels.cu`, by name."""
