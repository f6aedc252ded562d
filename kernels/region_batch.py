"""A batch of regions: the source slices and affines from which network inputs are resampled.

All source slices lie in one array of 16-bit pixels, the arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stenosis_trt.kernels.layouts import MAX_COPIES
from stenosis_trt.kernels.reference import Window
from stenosis_trt.kernels.regions import BoolArray, FloatArray, IntArray, are_aligned

_SIGN = 0x8000
_SLICE = np.dtype(
    [
        ("offset", np.int64),
        ("rows", np.int64),
        ("columns", np.int64),
        ("pitch", np.int64),
        ("sign", np.int64),
        ("slope", np.float64),
        ("intercept", np.float64),
    ]
)


@dataclass(frozen=True)
class SliceLayout:
    """Location of a slice in the arena and its modality rescale.

    Attributes:
        offset: index of the first pixel.
        shape: (rows, columns).
        pitch: pixels from one row to the next.
        signed: True if the stored 16-bit values are int16.
        slope, intercept: modality rescale.
    """

    offset: int
    shape: tuple[int, int]
    pitch: int
    signed: bool
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def sign(self) -> int:
        """Mask that is XORed with a stored value so that unsigned comparison orders values."""
        return _SIGN if self.signed else 0


def regions_per_input(channels: int, single_slice: bool) -> int:
    """Number of regions and planes per network input: one for all channels, or one per channel.

    Args:
        channels: channels of an input.
        single_slice: True if all channels of an input show the same slice.
    """
    return 1 if single_slice and channels <= MAX_COPIES else channels


@dataclass(frozen=True)
class RegionBatch:
    """N network inputs of C channels and equal size, resampled from slices of one arena.

    Attributes:
        slices: the source slices.
        slice_indices: index in `slices` of each channel, int64 (N, C).
        affines: output pixel (x, y) → source pixel (column, row) for all channels of an input, float64
            (N, 2, 3).
        size: (height, width) of every input.
        single_slice: True if the model guarantees that all channels of an input show the same slice; launch
            configurations depend on it.

    Raises:
        ValueError: `single_slice` is True and an input shows several slices.
    """

    slices: Sequence[SliceLayout]
    slice_indices: IntArray
    affines: FloatArray
    size: tuple[int, int]
    single_slice: bool

    def __post_init__(self) -> None:
        if self.single_slice and (self.slice_indices != self.slice_indices[:, :1]).any():
            raise ValueError(
                "Channels of one input show several slices. Describe it with single_slice=False."
            )

    @property
    def regions_per_input(self) -> int:
        """See the function `regions_per_input`."""
        return regions_per_input(self.slice_indices.shape[1], self.single_slice)

    @cached_property
    def source_slices(self) -> np.ndarray:
        """Structured array of the source slice of each region, (N, regions_per_input)."""
        rows = [
            (item.offset, *item.shape, item.pitch, item.sign, item.slope, item.intercept)
            for item in self.slices
        ]
        return np.asarray(np.array(rows, dtype=_SLICE)[self.slice_indices[:, : self.regions_per_input]])

    @cached_property
    def aligned(self) -> BoolArray:
        """True for each affine that only scales, flips and swaps axes, bool (N,)."""
        return are_aligned(self.affines)

    @cached_property
    def has_uniform_rescale(self) -> BoolArray:
        """True for each input whose slices share rescale and signedness, bool (N,)."""
        result = np.ones(len(self.slice_indices), dtype=np.bool_)
        for name in ("slope", "intercept", "sign"):
            values = self.source_slices[name]
            result &= (values == values[:, :1]).all(axis=1)
        return result


def stored_window(source: SliceLayout, window: Window) -> tuple[float, float]:
    """Convert a window from real values to the biased stored values of the kernels (+2¹⁵ if signed)."""
    low, high = ((value - source.intercept) / source.slope + source.sign for value in window)
    return low, high
