"""NumPy reference of the kernels that decode heatmaps, in float64. It is also the CPU path of the product."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from stenosis_trt.kernels.reference import HEATMAP_TOLERANCE, Float32Array
from stenosis_trt.kernels.regions import FloatArray
from stenosis_trt.kernels.table import LOWEST_PEAK, PEAKS


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
