"""Which slices network inputs are cut from, and where: whole batches as arrays.

The arena is one array of 16-bit pixels in which all source slices lie, each somewhere of its own.
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
    """Where a slice lies in the arena, and what turns its stored values into real ones.

    Attributes:
        offset: of its first pixel, in pixels.
        shape: (rows, columns).
        pitch: pixels from one row to the next.
        signed: whether the stored 16 bits are int16.
        slope, intercept: rescale.
    """

    offset: int
    shape: tuple[int, int]
    pitch: int
    signed: bool
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def sign(self) -> int:
        """What turns a stored value into one whose unsigned order is the order of values."""
        return _SIGN if self.signed else 0


def regions_per_input(channels: int, single_slice: bool) -> int:
    """Regions and planes that each network input has: one for all channels, or one a channel.

    Args:
        channels: of an input.
        single_slice: whether all channels of an input show one slice.
    """
    return 1 if single_slice and channels <= MAX_COPIES else channels


@dataclass(frozen=True)
class RegionBatch:
    """N network inputs of C channels and one size, to be cut from slices of one arena.

    Attributes:
        slices: the slices there are.
        slice_indices: index of the slice of each channel, int64 (N, C).
        affines: output pixel (x, y) → source pixel (column, row) for all channels of an input, float64
            (N, 2, 3).
        size: of every input, (height, width).
        single_slice: whether all channels of an input show one slice. It is a promise of the model, not of
            these
            inputs: grids depend on it.

    Raises:
        ValueError: the promise is broken.
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
        """See `regions_per_input`."""
        return regions_per_input(self.slice_indices.shape[1], self.single_slice)

    @cached_property
    def source_slices(self) -> np.ndarray:
        """The slice of each part as a row of a table, (N, parts)."""
        rows = [
            (item.offset, *item.shape, item.pitch, item.sign, item.slope, item.intercept)
            for item in self.slices
        ]
        return np.asarray(np.array(rows, dtype=_SLICE)[self.slice_indices[:, : self.regions_per_input]])

    @cached_property
    def aligned(self) -> BoolArray:
        """Whether each affine only scales, flips and swaps axes, (N,)."""
        return are_aligned(self.affines)

    @cached_property
    def has_uniform_rescale(self) -> BoolArray:
        """Whether the slices of each input have one rescale and one signedness, (N,)."""
        result = np.ones(len(self.slice_indices), dtype=np.bool_)
        for name in ("slope", "intercept", "sign"):
            values = self.source_slices[name]
            result &= (values == values[:, :1]).all(axis=1)
        return result


def stored_window(source: SliceLayout, window: Window) -> tuple[float, float]:
    """A window in real values as the kernels have it: in stored values, signed ones moved up by 2¹⁵."""
    low, high = ((value - source.intercept) / source.slope + source.sign for value in window)
    return low, high
