"""NumPy reference of each kernel, computed in float64. It is also the CPU path of the product.

A region of a slice becomes a network input in five steps: modality rescale → window to [0, 1] → affine
resampling → normalisation by mean and standard deviation → NCHW. Outside the image the value is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from stenosis_trt.kernels.regions import FloatArray, box_taps, is_aligned, reached_bounds, region_bounds
from stenosis_trt.kernels.table import LOWEST_PEAK, PEAKS

Float32Array = npt.NDArray[np.float32]
StoredPixels = npt.NDArray[np.uint16] | npt.NDArray[np.int16]
Window = tuple[float, float]
"""Real values that map to 0 and 1."""

HEATMAP_TOLERANCE = 1e-3
"""Accepted deviation from [0, 1] of a heatmap value or probability, from arithmetic in half precision."""


@dataclass(frozen=True)
class RegionSource:
    """Source of one channel: stored values (rows, columns) and modality rescale."""

    stored: StoredPixels
    slope: float = 1.0
    intercept: float = 0.0


def order_statistics(images: Sequence[StoredPixels], percentiles: Sequence[float]) -> list[int]:
    """Exact percentiles of the stored values of all images together, by counting.

    Percentile p of n values is the order statistic of rank round(p / 100 × (n − 1)), without interpolation.

    Args:
        images: uint16 or int16 arrays of any shape and one dtype; not all empty.
        percentiles: each in [0, 100].

    Returns:
        One stored value per percentile.
    """
    signed = images[0].dtype == np.int16
    lowest = min(int(image.min(initial=0)) for image in images) if signed else 0
    counts = np.zeros(1, dtype=np.int64)
    for image in images:
        # Unsigned 16-bit arithmetic wraps, so the difference from the lowest value is right for int16 too.
        values = image if lowest == 0 else image.view(np.uint16) - np.uint16(lowest % (1 << 16))
        counted = np.bincount(values.ravel(), minlength=len(counts))
        counted[: len(counts)] += counts
        counts = counted
    cumulative = np.cumsum(counts)
    ranks = np.rint(np.asarray(percentiles) / 100.0 * (cumulative[-1] - 1)).astype(np.int64)
    return [int(value) + lowest for value in np.searchsorted(cumulative, ranks, side="right")]


def window_percentiles(percentiles: tuple[float, float], slope: float) -> tuple[float, float]:
    """Percentiles of stored values for percentiles of real ones: mirrored if the slope is negative."""
    low, high = percentiles
    return (low, high) if slope > 0 else (100.0 - low, 100.0 - high)


def region_window(
    sources: Sequence[RegionSource],
    affine: FloatArray,
    size: tuple[int, int],
    percentiles: tuple[float, float],
) -> Window:
    """Window of a region: percentiles of the source pixels in its bounding box, over all channels.

    If the rescale of the channels differs, percentiles are taken of real values.

    Returns:
        (low, high) in real values; (0, 0) if the region misses the image.
    """
    bounds = region_bounds(affine, size, sources[0].stored.shape)
    if bounds is None:
        return 0.0, 0.0
    first = sources[0]
    if all((item.slope, item.intercept) == (first.slope, first.intercept) for item in sources):
        wanted = window_percentiles(percentiles, first.slope)
        low, high = order_statistics([item.stored[bounds] for item in sources], wanted)
        return low * first.slope + first.intercept, high * first.slope + first.intercept
    real = np.concatenate(
        [(item.stored[bounds] * item.slope + item.intercept).ravel() for item in sources], dtype=np.float64
    )
    low_high = np.percentile(real, percentiles, method="nearest")
    return float(low_high[0]), float(low_high[1])


def _axis_filter(
    scale: float, offset: float, outputs: int, inputs: int
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """One axis of the separable filter: the mean of bilinear samples at the taps of the box prefilter.

    The taps lie at most one source pixel apart, so n of them read n + 1 pixels.

    Returns:
        Source pixels of each output, int64 (outputs, taps + 1), and their weights, same shape; pixels outside
        the image have weight 0 and an index inside.
    """
    taps = box_taps(abs(scale))
    position = (np.arange(outputs)[:, None] + taps[None, :]) * scale + offset
    pixels = np.floor(position.min(axis=1)).astype(np.int64)[:, None] + np.arange(len(taps) + 1)
    bilinear = (np.maximum(0.0, 1.0 - np.abs(tap[:, None] - pixels)) for tap in position.T)
    weights = np.asarray(sum(bilinear)) / len(taps)
    inside = (pixels >= 0) & (pixels < inputs)
    return np.clip(pixels, 0, inputs - 1), np.where(inside, weights, 0.0)


def _resample_separable(unit: FloatArray, affine: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resample with an affine that only scales, flips and swaps axes: along y, then along x."""
    height, width = size
    if abs(affine[0, 1]) > abs(affine[0, 0]):
        # Output x runs along source rows.
        unit, affine = unit.T, affine[::-1]
    rows, columns = unit.shape
    down, down_weights = _axis_filter(affine[1, 1], affine[1, 2], height, rows)
    across, across_weights = _axis_filter(affine[0, 0], affine[0, 2], width, columns)
    along_y = sum(unit[down[:, k]] * down_weights[:, k, None] for k in range(down.shape[1]))
    turned = np.ascontiguousarray(np.asarray(along_y, dtype=np.float64).T)
    along_x = sum(turned[across[:, k]] * across_weights[:, k, None] for k in range(across.shape[1]))
    result: FloatArray = np.asarray(along_x, dtype=np.float64).T
    return result


def _resample_gather(unit: FloatArray, affine: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resample with any affine: the mean of bilinear samples at the taps of the box prefilter."""
    height, width = size
    padded = np.pad(unit, 1)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    taps_x, taps_y = box_taps(float(np.hypot(*affine[:, 0]))), box_taps(float(np.hypot(*affine[:, 1])))
    total = np.zeros(size)
    for tap_y in taps_y:
        for tap_x in taps_x:
            column = affine[0, 0] * (x + tap_x) + affine[0, 1] * (y + tap_y) + affine[0, 2]
            row = affine[1, 0] * (x + tap_x) + affine[1, 1] * (y + tap_y) + affine[1, 2]
            column = np.clip(column, -1.0, unit.shape[1]) + 1.0
            row = np.clip(row, -1.0, unit.shape[0]) + 1.0
            left = np.minimum(column.astype(np.int64), unit.shape[1])
            top = np.minimum(row.astype(np.int64), unit.shape[0])
            share_x, share_y = column - left, row - top
            upper = padded[top, left] * (1 - share_x) + padded[top, left + 1] * share_x
            lower = padded[top + 1, left] * (1 - share_x) + padded[top + 1, left + 1] * share_x
            total += upper * (1 - share_y) + lower * share_y
    return total / (len(taps_x) * len(taps_y))


def resample(unit: FloatArray, affine: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Bilinear resampling of `unit` to `size`, with a box prefilter where the image shrinks.

    Each output pixel is the mean of nₓ × nᵧ bilinear samples spread evenly over its area, n being the number
    of source pixels that it spans along an axis, rounded up. Outside the image the value is 0.

    Args:
        unit: float64 (rows, columns).
        affine: output pixel (x, y) → source pixel (column, row), (2, 3).
        size: output (height, width).

    Returns:
        float64 (height, width).
    """
    if is_aligned(affine):
        return _resample_separable(unit, affine, size)
    return _resample_gather(unit, affine, size)


def preprocess_region(
    sources: Sequence[RegionSource],
    affine: FloatArray,
    size: tuple[int, int],
    window: Window,
    normalisation: tuple[Sequence[float], Sequence[float]],
) -> Float32Array:
    """Compute one network input from one region.

    Args:
        sources: one per channel.
        affine: output pixel (x, y) → source pixel (column, row), (2, 3); the same for all channels.
        size: output (height, width).
        window: real values that map to 0 and 1; if they are equal, all values are 0.
        normalisation: mean and standard deviation of each channel.

    Returns:
        float32 (C, height, width).
    """
    resampled: dict[int, FloatArray] = {}
    channels = []
    for source, mean, deviation in zip(sources, *normalisation, strict=True):
        if id(source.stored) not in resampled:
            resampled[id(source.stored)] = _windowed_region(source, affine, size, window)
        channels.append((resampled[id(source.stored)] - mean) / deviation)
    return np.stack(channels).astype(np.float32)


def _windowed_region(
    source: RegionSource, affine: FloatArray, size: tuple[int, int], window: Window
) -> FloatArray:
    """Resample a region in its window, float64 (height, width). Only pixels that it reads are rescaled."""
    low, high = window
    reached = reached_bounds(affine, size, source.stored.shape)
    if high == low or reached is None:
        return np.zeros(size)
    rows, columns = reached
    real = source.stored[rows, columns].astype(np.float64) * source.slope + source.intercept
    moved = affine.copy()
    moved[:, 2] -= columns.start, rows.start
    return resample(np.clip((real - low) / (high - low), 0.0, 1.0), moved, size)


def input_contrast(batch: Float32Array, std: Sequence[float]) -> FloatArray:
    """Contrast: standard deviation of each network input in units of its window (0 to 1).

    Args:
        batch: normalised inputs (N, C, H, W).
        std: standard deviation that each channel was divided by.

    Returns:
        float64 (N,).
    """
    scaled = batch.astype(np.float64) * np.asarray(std)[None, :, None, None]
    return np.asarray(scaled.std(axis=(1, 2, 3)))


def _numbers(heatmaps: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Heatmaps in their own precision, with NaN replaced by 0."""
    maps = np.asarray(heatmaps)
    missing = np.isnan(maps)
    return np.where(missing, maps.dtype.type(0), maps) if missing.any() else maps


def _without_invalid(heatmaps: npt.ArrayLike) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """Heatmaps with invalid ones (a value is not finite or below 0) set to 0, and their mask, bool (N, K)."""
    maps = np.asarray(heatmaps)
    valid = (maps.min(axis=(2, 3)) >= -HEATMAP_TOLERANCE) & np.isfinite(maps.max(axis=(2, 3)))
    return (maps if valid.all() else np.where(valid[:, :, None, None], maps, maps.dtype.type(0))), ~valid


def keypoint_support(heatmaps: npt.ArrayLike) -> Float32Array:
    """Height of every heatmap at the peaks of all heatmaps of an input.

    Args:
        heatmaps: (N, K, h, w), values in [0, 1]; NaN counts as 0, and the peak of an invalid map (see
            `decode_keypoints`) is its first pixel.

    Returns:
        float32 (N, K, K): [n, k, j] is the highest value of map k in the 3 × 3 pixels around map j's peak.
    """
    maps = _numbers(heatmaps)
    count, points, height, width = maps.shape
    peak = _without_invalid(heatmaps)[0].reshape(count, points, -1).argmax(axis=-1)
    row, column = peak // width, peak % width
    n, k, _ = np.ogrid[:count, :points, :points]
    support = np.zeros((count, points, points))
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            at = np.clip(row + down, 0, height - 1), np.clip(column + across, 0, width - 1)
            support = np.maximum(support, maps[n, k, at[0][:, None, :], at[1][:, None, :]])
    return support.astype(np.float32)


def decode_keypoints(heatmaps: npt.ArrayLike) -> Float32Array:
    """Subpixel position of the highest peak of each heatmap.

    Along each axis the position is the vertex of the parabola through the peak and its two neighbours, at
    most half a pixel from the peak; on the border the shift is 0. On real heatmaps neither the parabola
    through the logarithms, exact for a Gaussian, nor the centre of mass is more accurate: see
    `stenosis_trt.bench.accuracy.subpixel`.

    Args:
        heatmaps: (N, K, h, w), values in [0, 1].

    Returns:
        float32 (N, K, 3): x, y in heatmap pixels, and the value of the peak. An invalid map, one with a value
        that is not finite or below 0, gives (0, 0, NaN), which no valid map does.
    """
    maps, invalid = _without_invalid(heatmaps)
    highest = maps.reshape(*maps.shape[:2], -1).argmax(axis=-1)
    decoded = _refine(maps, highest[..., None])[:, :, 0]
    decoded[invalid, 2] = np.nan
    return decoded


def decode_peaks(heatmaps: npt.ArrayLike) -> Float32Array:
    """Subpixel positions of the `PEAKS` highest peaks of each heatmap.

    The first is that of `decode_keypoints`. The others are pixels above `LOWEST_PEAK` that are higher than
    their eight neighbours; of equal neighbours, the first in the map counts as the higher one. Which pixels
    are peaks therefore does not depend on which of them is the highest.

    Args:
        heatmaps: (N, K, h, w), values in [0, 1].

    Returns:
        float32 (N, K, PEAKS, 3): x, y in heatmap pixels, and the value, from the highest peak to the lowest.
        Peaks that a map does not have are (0, 0, 0), as are all after the first of an invalid map.
    """
    maps, invalid = _without_invalid(heatmaps)
    count, points, height, width = maps.shape
    places = np.zeros((count * points, PEAKS), dtype=np.intp)
    found = np.zeros(places.shape, dtype=bool)
    number, place = _local_maxima(maps.reshape(-1, height, width))
    order = np.arange(len(number)) - np.searchsorted(number, number)
    kept = order < PEAKS
    places[number[kept], order[kept]], found[number[kept], order[kept]] = place[kept], True
    places[:, 0], found[:, 0] = maps.reshape(count * points, -1).argmax(axis=-1), True
    decoded = _refine(maps, places.reshape(count, points, PEAKS))
    decoded[~found.reshape(count, points, PEAKS)] = 0.0
    decoded[invalid, 0, 2] = np.nan
    return decoded


def _local_maxima(maps: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Find the local maxima above `LOWEST_PEAK` of maps (M, h, w), as `decode_peaks` defines them.

    Returns:
        Map and pixel of each, ascending by map, and within a map from the highest to the lowest.
    """
    height, width = maps.shape[1:]
    values = maps.ravel()
    at = np.flatnonzero(values > LOWEST_PEAK)
    for down, across in product((-1, 0, 1), repeat=2):
        number, place = at // (height * width), at % (height * width)
        # Beyond the border the nearest pixel of the map is compared: a neighbour, or the pixel itself.
        row = np.clip(place // width + down, 0, height - 1)
        column = np.clip(place % width + across, 0, width - 1)
        beside = (number * height + row) * width + column
        value, other = values[at], values[beside]
        at = at[(value > other) | ((value == other) & (at <= beside))]
    number, place = at // (height * width), at % (height * width)
    order = np.lexsort((place, -values[at], number))
    return number[order], place[order]


def _refine(maps: npt.NDArray[np.floating], places: npt.NDArray[np.intp]) -> Float32Array:
    """Refine peaks to subpixels.

    Args:
        maps: valid heatmaps (N, K, h, w).
        places: index of each peak in its map, (N, K, P).

    Returns:
        float32 (N, K, P, 3): x, y, value.
    """
    height, width = maps.shape[2:]
    row, column = places // width, places % width
    n, k, _ = np.ogrid[: places.shape[0], : places.shape[1], :1]
    value = maps[n, k, row, column].astype(np.float64)

    def shift(
        before: FloatArray, middle: FloatArray, after: FloatArray, inside: npt.NDArray[np.bool_]
    ) -> FloatArray:
        curvature = 2.0 * middle - before - after
        usable = inside & (curvature > 0.0)
        step = 0.5 * (after - before) / np.where(usable, curvature, 1.0)
        return np.where(usable, np.clip(step, -0.5, 0.5), 0.0)

    left, right, up, down = (
        maps[n, k, at_row, at_column].astype(np.float64)
        for at_row, at_column in (
            (row, np.maximum(column - 1, 0)),
            (row, np.minimum(column + 1, width - 1)),
            (np.maximum(row - 1, 0), column),
            (np.minimum(row + 1, height - 1), column),
        )
    )
    x = column + shift(left, value, right, (column > 0) & (column < width - 1))
    y = row + shift(up, value, down, (row > 0) & (row < height - 1))
    return np.stack([x, y, value], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class CordGeometry:
    """Diameters and shape checks of N cords.

    Attributes:
        ap_mm, transverse_mm: float64 (N,).
        compression_ratio: AP ÷ transverse, float64 (N,); NaN if the transverse diameter is 0.
        crossing: True if the diameters cross, bool (N,).
        angle_degrees: angle between the diameters, 0–90, float64 (N,); 0 if one has no length.
    """

    ap_mm: FloatArray
    transverse_mm: FloatArray
    compression_ratio: FloatArray
    crossing: npt.NDArray[np.bool_]
    angle_degrees: FloatArray


def cord_geometry(points: npt.ArrayLike) -> CordGeometry:
    """Measure cords from their four points.

    The compression ratio is the anteroposterior over the transverse diameter, as in the Spinal Cord Toolbox's
    `sct_detect_compression`.

    Args:
        points: anterior, posterior, left and right point, patient coordinates in mm, (N, 4, 3).
    """
    corners = np.asarray(points, dtype=np.float64)
    ap, transverse = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 2]
    ap_mm, transverse_mm = np.linalg.norm(ap, axis=-1), np.linalg.norm(transverse, axis=-1)
    product = ap_mm * transverse_mm
    cosine = np.abs(np.sum(ap * transverse, axis=-1)) / np.where(product > 0, product, 1.0)
    angle = np.where(product > 0, np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0))), 0.0)

    # Least-squares solution of anterior + a·ap = left + b·transverse: they cross if a and b lie in [0, 1].
    start = corners[:, 2] - corners[:, 0]
    aa, tt = np.sum(ap * ap, axis=-1), np.sum(transverse * transverse, axis=-1)
    at = np.sum(ap * transverse, axis=-1)
    determinant = aa * tt - at * at
    safe = np.where(determinant > 0, determinant, 1.0)
    sa, st = np.sum(start * ap, axis=-1), np.sum(start * transverse, axis=-1)
    along_ap, along_transverse = (sa * tt - st * at) / safe, (sa * at - st * aa) / safe
    within = (along_ap >= 0) & (along_ap <= 1) & (along_transverse >= 0) & (along_transverse <= 1)
    ratio = np.divide(ap_mm, transverse_mm, out=np.full_like(ap_mm, np.nan), where=transverse_mm > 0)
    return CordGeometry(ap_mm, transverse_mm, ratio, (determinant > 0) & within, angle)
