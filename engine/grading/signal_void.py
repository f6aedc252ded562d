"""Signal voids beside the canal, as metal causes them, found without a network.

Plates, screws and cages take away the signal around them. A grader can be certain of a grade there, since
the canal itself may be shown well, and what a network learnt of drawn metal says little about another
implant. So the darkest area of 12 by 8 mm in the intervertebral disc and the vertebral bodies is compared
with the marrow. A dark intervertebral disc fills two thirds of such an area at most, unless it is higher than
8 mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.grading.cord import CanalLine, posterior_directions
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.records import LoadedSlice

MAXIMUM_VOID_SIGNAL = 0.29
"""Signal of the darkest area, relative to the marrow, up to which it is a void. The values on either side are
in docs/decisions/signal-voids.md."""

_STEP_MM = 2.0
"""Distance of the samples."""
_ALONG_MM = np.arange(-10.0, 10.1, _STEP_MM)
_DEPTH_MM = np.arange(0.0, 18.1, _STEP_MM)
"""Grid of samples, along the canal and anterior to the point of the level: the intervertebral disc and the
vertebral bodies beside it."""
_HALF_AREA_MM = (6.0, 4.0)
"""Half the size of an area, along the canal and from front to back."""
_CENTRES_ALONG_MM = np.arange(-4.0, 4.1, _STEP_MM)
_CENTRES_DEPTH_MM = np.arange(6.0, 12.1, _STEP_MM)
_MARROW_PERCENTILE = 75.0
_FALL_OF_SIGNAL = 0.75
"""Largest fall of the marrow's signal from one level to the next that is taken for shading of the coil."""
_HIDDEN_MARROW = 0.5
"""Where the marrow has less than this share of the signal that is expected from the other levels, it is taken
to be hidden by a void, and the marrow of the level that the expectation is from is the reference."""
_HALF_SLAB_MM = 5.5
"""Slices up to this distance from a level are looked at."""
_AIR_PIXELS = 8
_AIR_PERCENTILE, _TISSUE_PERCENTILE = 1.0, 90.0
"""Darkest and brightest groups of so many pixels, in every eighth row."""
_BRIGHTEST_AIR = 0.15
"""Largest share of the tissue's signal that is taken for that of air: not every image shows air."""


def levels_in_voids(slices: Sequence[LoadedSlice], levels: Sequence[LevelPoint], line: CanalLine) -> set[str]:
    """Return the names of the levels with a signal void; see `void_signals`."""
    found = [item for item in levels if item.point is not None]
    signals = void_signals(slices, found, line)
    return {item.level for item, signal in zip(found, signals, strict=True) if signal <= MAXIMUM_VOID_SIGNAL}


def void_signals(slices: Sequence[LoadedSlice], levels: Sequence[LevelPoint], line: CanalLine) -> FloatArray:
    """Return the mean signal of the darkest area beside the canal at each level.

    Args:
        slices: the sagittal series.
        levels: N levels with points on the anterior wall of the canal, head to foot.
        line: the line of the canal through them.

    Returns:
        float64 (N,): 0 for the signal of air, 1 for that of the marrow at this level, or at the nearest ones
        where a void hides it; the median of the slices within 5.5 mm. 1 where the images show no such area
        whole, or no level has marrow with a signal.
    """
    if not levels:
        return np.empty(0)
    points = np.array([item.point for item in levels])
    samples, sampled_levels = _samples(slices, points, _grids(points, levels, line))
    by_slice = _bright_signals(samples), _darkest_signals(samples)
    marrow, darkest = (
        np.array([np.median(signals[sampled_levels == k]) for k in range(len(levels))])
        for signals in by_slice
    )
    reference = _reference(marrow)
    compared = (reference > 0.0) & np.isfinite(darkest)
    return np.where(compared, darkest / np.where(compared, reference, 1.0), 1.0)


def _reference(marrow: FloatArray) -> FloatArray:
    """Signal of marrow that each level is compared with, float64 (N,).

    Args:
        marrow: signal at each level, head to foot.
    """
    number = np.arange(len(marrow))
    expected = marrow * _FALL_OF_SIGNAL ** np.abs(number[:, None] - number)
    source = expected.argmax(axis=1)
    hidden = marrow < _HIDDEN_MARROW * expected[number, source]
    return np.where(hidden, marrow[source], marrow)


def _grids(points: FloatArray, levels: Sequence[LevelPoint], line: CanalLine) -> FloatArray:
    """Patient points of the samples at each of N levels, LPS, mm, float64 (N, samples, 3)."""
    directions = line.directions_at([line.level_arc_length_mm[item.level] for item in levels])
    front = -posterior_directions(directions)
    along = _SAMPLES[:, :1] * directions[:, None]
    return np.asarray(points[:, None] + along + _SAMPLES[:, 1:] * front[:, None])


def _samples(
    slices: Sequence[LoadedSlice], points: FloatArray, grids: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Sample each level in the slices near it.

    Args:
        slices: the sagittal series.
        points, grids: of N levels, float64 (N, 3) and (N, samples, 3).

    Returns:
        Signal above that of air, float64 (P, samples), NaN outside of the images; and the level of each of
        the P rows, (P,).
    """
    planes = np.array([item.pose.patient_to_pixel[2] for item in slices])
    distances = np.abs(planes[:, :3] @ points.T + planes[:, 3:])
    near = distances <= np.maximum(_HALF_SLAB_MM, distances.min(axis=0))
    used = np.flatnonzero(near.any(axis=1)).tolist()
    shown = [np.flatnonzero(near[k]) for k in used]
    parts = [_sample(slices[k], grids[those]) for k, those in zip(used, shown, strict=True)]
    return np.concatenate(parts), np.concatenate(shown)


def _sample(item: LoadedSlice, points: FloatArray) -> FloatArray:
    """Interpolate a slice bilinearly at the projections of patient points (..., 3)."""
    x, y, _ = np.moveaxis(item.pose.to_pixels(points), -1, 0)
    rows, columns = item.stored.shape
    inside = (x >= 0) & (x <= columns - 1) & (y >= 0) & (y <= rows - 1)
    x, y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
    left, top = np.minimum(x.astype(int), columns - 2), np.minimum(y.astype(int), rows - 2)
    x, y = x - left, y - top
    upper = item.stored[top, left] * (1 - x) + item.stored[top, left + 1] * x
    lower = item.stored[top + 1, left] * (1 - x) + item.stored[top + 1, left + 1] * x
    stored = upper * (1 - y) + lower * y
    return np.where(inside, item.frame.intercept + item.frame.slope * stored - _air(item), np.nan)


def _air(item: LoadedSlice) -> float:
    """Signal of air, as a real-world value. Means of neighbouring pixels are affected little by noise."""
    rows = item.frame.intercept + item.frame.slope * item.stored[::_AIR_PIXELS].astype(np.float64)
    columns = max(rows.shape[1] // _AIR_PIXELS, 1)
    means = rows[:, : columns * _AIR_PIXELS].reshape(len(rows), columns, -1).mean(axis=2)
    air, tissue = np.percentile(means, (_AIR_PERCENTILE, _TISSUE_PERCENTILE))
    return float(min(air, _BRIGHTEST_AIR * max(tissue, 0.0)))


def _bright_signals(samples: FloatArray) -> FloatArray:
    """Signal of the bright part of samples (P, samples), float64 (P,); 0 where there are none."""
    ordered = np.sort(samples, axis=1)
    count = (~np.isnan(ordered)).sum(axis=1)
    place = np.maximum(np.ceil(_MARROW_PERCENTILE / 100 * count).astype(int) - 1, 0)
    return np.where(count > 0, ordered[np.arange(len(ordered)), place], 0.0)


def _darkest_signals(samples: FloatArray) -> FloatArray:
    """Mean signal of the darkest area in samples (P, samples), float64 (P,); infinity without an area."""
    missing = np.isnan(samples)
    means = np.where(missing, 0.0, samples) @ _AREAS.T
    means[missing.astype(np.float64) @ _AREAS.T > 0.0] = np.inf
    return np.asarray(means.min(axis=1))


def _points(along: FloatArray, depth: FloatArray) -> FloatArray:
    return np.stack(np.meshgrid(along, depth, indexing="ij"), axis=-1).reshape(-1, 2)


def _areas(samples: FloatArray, centres: FloatArray) -> FloatArray:
    """Weights of the samples in the mean of each area, float64 (areas, samples)."""
    inside = (np.abs(samples - centres[:, None]) <= _HALF_AREA_MM).all(axis=2)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))


_SAMPLES = _points(_ALONG_MM, _DEPTH_MM)
"""Place of each sample, along the canal and anterior to the level, mm."""
_AREAS = _areas(_SAMPLES, _points(_CENTRES_ALONG_MM, _CENTRES_DEPTH_MM))
