"""NumPy reference of each kernel, computed in float64.

The CPU path of the product computes the same: decoding and measurement with these functions, preprocessing
with `host`, which is faster.

A region of a slice becomes a network input in five steps: modality rescale → window to [0, 1] → affine
resampling → normalisation by mean and standard deviation → NCHW. Outside the image the value is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.kernels.regions import FloatArray, box_taps, is_aligned, reached_bounds, region_bounds

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


@dataclass(frozen=True)
class CordGeometry:
    """Diameters and shape checks of N cords, in the planes across their directions.

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


def cord_geometry(points: npt.ArrayLike, directions: npt.ArrayLike) -> CordGeometry:
    """Measure cords from their four points, projected on the plane across the cord.

    The compression ratio is the anteroposterior over the transverse diameter, as in the Spinal Cord Toolbox's
    `sct_detect_compression`, and the projection its angle correction (`sct_process_segmentation`): a slice
    that is oblique to the cord shows it too deep.

    Args:
        points: anterior, posterior, left and right point, patient coordinates in mm, (N, 4, 3).
        directions: unit vectors along the cord, (N, 3); zero measures in the plane of the points.
    """
    corners = np.asarray(points, dtype=np.float64)
    along = np.asarray(directions, dtype=np.float64)[:, None, :]
    corners = corners - np.sum(corners * along, axis=-1, keepdims=True) * along
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
