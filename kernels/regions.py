"""Geometry of regions, shared by the reference and the kernels: covered pixels and sampling density.

A region is an affine, output pixel (x, y) → source pixel (column, row), float64 (2, 3), and a size in
output pixels, (height, width).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Bounds = tuple[slice, slice]
"""Slices of rows and columns."""

_ALIGNED = 1e-12


def outlines(affines: FloatArray, size: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest (column, row) of regions, (N, 2) each, from affines (N, 2, 3)."""
    height, width = size
    linear, offset = affines[:, :, :2], affines[:, :, 2]
    one, other = linear * -0.5, linear * np.array([width - 0.5, height - 0.5])
    # Rounding is monotonic: the lowest corner is the sum of the lowest term along each axis.
    low, high = np.minimum(one, other), np.maximum(one, other)
    return low[:, :, 0] + low[:, :, 1] + offset, high[:, :, 0] + high[:, :, 1] + offset


def covered_pixels(
    affines: FloatArray, size: tuple[int, int], extents: IntArray
) -> tuple[IntArray, IntArray]:
    """First and last (column, row) of the source pixels in the bounding boxes of regions.

    Args:
        affines: (N, 2, 3).
        size: size of every region.
        extents: columns and rows of the P images of each region, (N, P, 2).

    Returns:
        (N, P, 2) each; if a region misses its image along an axis, the last lies before the first.
    """
    low, high = outlines(affines, size)
    return _within(np.ceil(low)[:, None], np.floor(high)[:, None], extents)


def region_bounds(affine: FloatArray, size: tuple[int, int], shape: tuple[int, int]) -> Bounds | None:
    """Source rows and columns in the bounding box of a region, or None if it misses the image.

    Args:
        affine: (2, 3).
        size: output (height, width).
        shape: source (rows, columns).
    """
    return _bounds(*covered_pixels(affine[None], size, _extent(shape)))


def reached_pixels(
    affines: FloatArray, size: tuple[int, int], extents: IntArray
) -> tuple[IntArray, IntArray]:
    """First and last (column, row) of the source pixels that bilinear samples of regions read.

    Arguments and result as in `covered_pixels`.
    """
    low, high = outlines(affines, size)
    return _within(np.floor(low)[:, None], np.floor(high)[:, None] + 1, extents)


def reached_bounds(affine: FloatArray, size: tuple[int, int], shape: tuple[int, int]) -> Bounds | None:
    """Source rows and columns that bilinear samples of a region read, or None if there are none."""
    return _bounds(*reached_pixels(affine[None], size, _extent(shape)))


def box_counts(scales: FloatArray) -> IntArray:
    """Samples of the box prefilter along axes where an output pixel spans `scales` source pixels."""
    return np.maximum(np.ceil(scales - 1e-9), 1).astype(np.int64)


def box_taps(scale: float) -> FloatArray:
    """Offsets of the samples of the box prefilter, in output pixels."""
    count = int(box_counts(np.asarray(scale)))
    return np.asarray((np.arange(count) + 0.5) / count - 0.5)


def are_aligned(affines: FloatArray) -> BoolArray:
    """True for each affine (N, 2, 3) that only scales, flips and swaps axes, bool (N,)."""
    sizes = np.abs(affines[:, :, :2])
    diagonal = np.maximum(sizes[:, 0, 0], sizes[:, 1, 1])
    crossed = np.maximum(sizes[:, 0, 1], sizes[:, 1, 0])
    return np.asarray(np.minimum(diagonal, crossed) < _ALIGNED)


def is_aligned(affine: FloatArray) -> bool:
    """True if an affine (2, 3) only scales, flips and swaps axes."""
    return bool(are_aligned(affine[None])[0])


def _extent(shape: tuple[int, int]) -> IntArray:
    return np.array([[[shape[1], shape[0]]]])


def _within(low: FloatArray, high: FloatArray, extents: IntArray) -> tuple[IntArray, IntArray]:
    """First and last pixel from `low` to `high`, clipped to the images; last axis (column, row)."""
    # Clip before the cast, which is undefined for values beyond int64.
    first = np.minimum(np.maximum(low, 0), extents).astype(np.int64)
    last = np.maximum(np.minimum(high, extents - 1), -1).astype(np.int64)
    return first, last


def _bounds(first: IntArray, last: IntArray) -> Bounds | None:
    if (last < first).any():
        return None
    (left, top), (right, bottom) = first[0, 0].tolist(), last[0, 0].tolist()
    return slice(top, bottom + 1), slice(left, right + 1)
