"""Detection of interleaved stacks by their pixels, for two mixed series that no header element separates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.records import LoadedSlice

_THUMBNAIL_SIZE = 48
"""Rows and columns of the thumbnails that are compared."""
_MIN_COMPARISONS = 3
_PARALLEL_COSINE = 0.999
_MIN_CORRELATION = 0.3
"""Least correlation of a slice with the next but one; below it the slices are not comparable."""
_MAX_CORRELATION_GAIN = 0.05
"""Threshold of the median difference between a slice's correlation with the next but one and with the next.

Measured: −0.225 to −0.023 on 9 real volumes resliced at 3.3 mm in both planes and on a real sagittal series;
up to 0.003 if every second slice is shifted by 3 mm, as by motion between two passes; −0.067 to 0.006 on
phantoms. Signal loss in every second slice (20 %, or 30 % with noise) changes it by at most 0.019. With every
second slice inverted it exceeds 1.1.
"""
_MAX_LOG_BRIGHTNESS_RATIO = 0.5
"""Threshold of the median natural logarithm of the brightness ratio between alternate slices.

Cross-talk of interleaved excitation alternates too: 0.36 if every second slice loses 30 % of its signal. The
volumes above have at most 0.03. If every second slice is proton density weighted, cervical volumes have 0.85
or more, while correlation hardly separates the two.
"""
_MIN_SAME_SIGN_SHARE = 0.9


def alternating_slices_reason(slices: Sequence[LoadedSlice]) -> str:
    """Return why slices, in order of position, are not one stack by their pixels; "" if they are.

    In one stack a slice correlates better with the next than with the next but one. If every second slice has
    another contrast, or was acquired after the patient moved, it is the other way round, or every second
    slice is far brighter. Slices are compared only with neighbours of the same size and tilt.
    """
    gains, next_but_one, brightness = _compare_neighbours(slices)
    if len(gains) < _MIN_COMPARISONS:
        return ""
    if np.median(next_but_one) > _MIN_CORRELATION and np.median(gains) > _MAX_CORRELATION_GAIN:
        return "each correlates less with its neighbours than these do with one another"
    same = max(float((brightness > 0).mean()), float((brightness < 0).mean()))
    if same >= _MIN_SAME_SIGN_SHARE and abs(float(np.median(brightness))) > _MAX_LOG_BRIGHTNESS_RATIO:
        return f"every second one is {np.exp(abs(np.median(brightness))):.1f} times as bright as the others"
    return ""


def _compare_neighbours(slices: Sequence[LoadedSlice]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compare each inner slice with its two neighbours.

    Returns:
        Three arrays `(slices,)`: how much better the neighbours correlate with each other than with the
        slice; the correlation of the neighbours; the log brightness ratio, with its sign flipped for every
        second slice.
    """
    pictures = [_thumbnail(item) for item in slices]
    shapes = [_deviation(picture) for picture in pictures]
    # Brightness is relative to 0, or to the lowest value if there are negative ones.
    darkest = min([0.0, *(float(picture.min()) for picture in pictures)])
    levels = [float(picture.mean()) for picture in pictures]
    gains, across, brightness = [], [], []
    for number in range(1, len(slices) - 1):
        three = slices[number - 1 : number + 2]
        if not all(_comparable(three[1], other) for other in three[::2]):
            continue
        before, here, after = shapes[number - 1 : number + 2]
        outer = float(np.vdot(before, after))
        across.append(outer)
        gains.append(outer - float(np.vdot(before, here) + np.vdot(here, after)) / 2)
        means = [level - darkest for level in levels[number - 1 : number + 2]]
        if min(means) > 0:
            factor = np.log(means[1]) - (np.log(means[0]) + np.log(means[2])) / 2
            brightness.append(-factor if number % 2 else factor)
    return np.array(gains), np.array(across), np.array(brightness or [0.0])


def _comparable(one: LoadedSlice, other: LoadedSlice) -> bool:
    parallel = abs(float(one.pose.normal @ other.pose.normal)) >= _PARALLEL_COSINE
    return parallel and one.stored.shape == other.stored.shape


def _thumbnail(item: LoadedSlice) -> FloatArray:
    """Return rescaled values, about `(48, 48)`, each the mean of four pixels."""
    rows, columns = (max(1, size // (2 * _THUMBNAIL_SIZE)) for size in item.stored.shape)
    thin = item.stored[::rows, ::columns]
    even = thin[: thin.shape[0] // 2 * 2, : thin.shape[1] // 2 * 2].astype(np.int32)
    rows_added = even[::2] + even[1::2]
    mean = (rows_added[:, ::2] + rows_added[:, 1::2]) / 4.0
    return np.asarray(item.frame.intercept + item.frame.slope * mean)


def _deviation(picture: FloatArray) -> FloatArray:
    """Return deviations from the mean, of length 1: their scalar product is the correlation of two pictures.
    Those of a constant picture are 0."""
    deviation = picture - picture.mean()
    length = float(np.sqrt(np.vdot(deviation, deviation)))
    return np.asarray(deviation / length if length else deviation)
