"""CPU path of preprocessing: what `reference` computes, for a batch of regions at a time and faster.

The arithmetic is that of the reference, in float64 and in the same order. Results are equal bit for bit where
NumPy does not fuse multiplication and addition, as on x86-64, and to the last place of float32 elsewhere.
What is saved:

- bounding boxes and filters of all regions are computed together;
- pixels are clipped to the window as stored 16-bit values, and converted after that;
- an image that several channels share is resampled once;
- an axis is resampled by one gather of rows and one contraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.kernels.reference import (
    Float32Array,
    RegionSource,
    order_statistics,
    preprocess_region,
    region_window,
    window_percentiles,
)
from stenosis_trt.kernels.regions import (
    Bounds,
    FloatArray,
    IntArray,
    are_aligned,
    box_counts,
    box_taps,
    covered_pixels,
    reached_pixels,
)

_AxisFilter = tuple[IntArray, FloatArray]
"""Source pixels of each output along an axis, int64 (outputs, P), and their weights, float64 (outputs, P)."""


def preprocess_regions(
    sources: Sequence[Sequence[RegionSource]],
    affines: FloatArray,
    size: tuple[int, int],
    percentiles: tuple[float, float],
    normalisation: tuple[Sequence[float], Sequence[float]],
) -> Float32Array:
    """Compute network inputs: `region_window` and `preprocess_region` for each region.

    Args:
        sources: the C sources of each of N regions.
        affines: output pixel (x, y) → source pixel (column, row) of each region, (N, 2, 3).
        size: output (height, width).
        percentiles: percentiles of the source pixels that map to 0 and 1.
        normalisation: mean and standard deviation of each channel.

    Returns:
        float32 (N, C, height, width).
    """
    batch = np.empty((len(sources), len(normalisation[0]), *size), dtype=np.float32)
    if not len(sources):
        return batch
    regular = are_aligned(affines) & np.array([_are_alike(channels) for channels in sources])
    for index in np.flatnonzero(~regular).tolist():
        window = region_window(sources[index], affines[index], size, percentiles)
        batch[index] = preprocess_region(sources[index], affines[index], size, window, normalisation)
    chosen = np.flatnonzero(regular).tolist()
    if chosen:
        prepared = _prepare([sources[index][0].stored.shape for index in chosen], affines[chosen], size)
        for index, region in zip(chosen, prepared, strict=True):
            _preprocess(sources[index], region, percentiles, normalisation, batch[index])
    return batch


@dataclass(frozen=True)
class _Region:
    """Source pixels and filters of one region.

    Attributes:
        covered: rows and columns that the window is taken of, or None if the region misses the image.
        reached: rows and columns that are resampled, or None.
        swapped: True if an output row runs along a source column.
        down, across: filters along y and x of the output.
    """

    covered: Bounds | None
    reached: Bounds | None
    swapped: bool
    down: _AxisFilter
    across: _AxisFilter


def _are_alike(channels: Sequence[RegionSource]) -> bool:
    """Return True if the images of the channels have the same rescale, size and dtype."""
    first = channels[0]
    return all(
        item is first
        or (
            (item.slope, item.intercept) == (first.slope, first.intercept)
            and item.stored.shape == first.stored.shape
            and item.stored.dtype == first.stored.dtype
        )
        for item in channels
    )


def _prepare(shapes: Sequence[tuple[int, ...]], affines: FloatArray, size: tuple[int, int]) -> list[_Region]:
    """Compute bounds and filters of aligned regions in images of the given (rows, columns)."""
    extents = np.array(shapes)[:, None, ::-1]
    covered, reached = covered_pixels(affines, size, extents), reached_pixels(affines, size, extents)
    first, last = reached[0][:, 0], reached[1][:, 0]
    # Axis of the source, 0 for columns and 1 for rows, along output x and along output y.
    swapped = np.abs(affines[:, 0, 1]) > np.abs(affines[:, 0, 0])
    n = np.arange(len(affines))
    along_x, along_y = swapped.astype(np.int64), (~swapped).astype(np.int64)
    filters = [
        _axis_filters(
            affines[n, along, axis],
            affines[n, along, 2] - first[n, along],
            outputs,
            np.maximum(last - first + 1, 1)[n, along],
        )
        for along, axis, outputs in ((along_x, 0, size[1]), (along_y, 1, size[0]))
    ]
    return [
        _Region(*each)
        for each in zip(
            _bounds(*covered), _bounds(*reached), swapped.tolist(), filters[1], filters[0], strict=True
        )
    ]


def _bounds(first: IntArray, last: IntArray) -> list[Bounds | None]:
    """Rows and columns from first to last (column, row) pixels, (N, 1, 2) each; None where there are none."""
    return [
        None if bottom < top or right < left else (slice(top, bottom + 1), slice(left, right + 1))
        for (left, top), (right, bottom) in zip(first[:, 0].tolist(), last[:, 0].tolist(), strict=True)
    ]


def _axis_filters(
    scales: FloatArray, offsets: FloatArray, outputs: int, inputs: IntArray
) -> list[_AxisFilter]:
    """Compute the filters of N regions along one axis; see `reference._axis_filter`."""
    counts = box_counts(np.abs(scales))
    filters: dict[int, _AxisFilter] = {}
    for count in set(counts.tolist()):
        chosen = np.flatnonzero(counts == count)
        scale, offset, limit = (values[chosen, None] for values in (scales, offsets, inputs))
        positions = [(np.arange(outputs) + tap) * scale + offset for tap in box_taps(count).tolist()]
        first = np.floor(np.minimum(positions[0], positions[-1])).astype(np.int64)
        pixels = first[:, :, None] + np.arange(count + 1)
        weights = np.zeros(pixels.shape)
        for position in positions:
            distance = position[:, :, None] - pixels
            weights += np.maximum(0.0, 1.0 - np.abs(distance, out=distance))
        weights /= count
        weights[(pixels < 0) | (pixels >= limit[:, :, None])] = 0.0
        pixels = np.clip(pixels, 0, limit[:, :, None] - 1)
        filters |= zip(chosen.tolist(), zip(pixels, weights, strict=True), strict=True)
    return [filters[index] for index in range(len(scales))]


def _preprocess(
    channels: Sequence[RegionSource],
    region: _Region,
    percentiles: tuple[float, float],
    normalisation: tuple[Sequence[float], Sequence[float]],
    result: Float32Array,
) -> None:
    """Compute one network input into `result`, float32 (C, height, width)."""
    window = _stored_window(channels, region, percentiles)
    done: dict[tuple[int, float, float], int] = {}
    turned: dict[int, FloatArray] = {}
    for number, (source, mean, std) in enumerate(zip(channels, *normalisation, strict=True)):
        image = id(source.stored)
        same = done.setdefault((image, mean, std), number)
        if same != number:
            result[number] = result[same]
        elif window is None:
            result[number] = (0.0 - mean) / std
        else:
            if image not in turned:
                turned[image] = _resampled(source, region, window)
            normal = turned[image] - mean
            normal /= std
            # Turning float32 moves half of the bytes.
            result[number] = normal.astype(np.float32).T


def _stored_window(
    channels: Sequence[RegionSource], region: _Region, percentiles: tuple[float, float]
) -> tuple[int, int] | None:
    """Return the stored values that map to 0 and 1, or None if all values are 0."""
    if region.covered is None or region.reached is None:
        return None
    covered, first = region.covered, channels[0]
    wanted = window_percentiles(percentiles, first.slope)
    low, high = order_statistics([item.stored[covered] for item in channels], wanted)
    return None if _real(first, low) == _real(first, high) else (low, high)


def _real(source: RegionSource, value: int) -> float:
    return value * source.slope + source.intercept


def _resampled(source: RegionSource, region: _Region, window: tuple[int, int]) -> FloatArray:
    """Resample an image in a window of stored values, float64 (width, height): turned."""
    if region.reached is None:
        raise ValueError("The region reads no pixel of the image.")
    stored = source.stored[region.reached]
    clipped = np.clip(stored.T if region.swapped else stored, min(window), max(window))
    unit = clipped.astype(np.float64, order="C")
    if (source.slope, source.intercept) != (1.0, 0.0):
        unit *= source.slope
        unit += source.intercept
    low, high = (_real(source, value) for value in window)
    unit -= low
    unit /= high - low
    along_y = _along_rows(unit, region.down)
    return _along_rows(np.ascontiguousarray(along_y.T), region.across)


def _along_rows(image: FloatArray, axis_filter: _AxisFilter) -> FloatArray:
    """Weighted sums of rows: (rows, columns) → (outputs, columns)."""
    pixels, weights = axis_filter
    # All indices lie inside: "clip" only skips the check.
    rows = image.take(pixels, axis=0, mode="clip")
    return np.asarray(np.einsum("op,opc->oc", weights, rows), dtype=np.float64)
