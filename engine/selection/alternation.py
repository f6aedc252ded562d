"""Whether loaded slices alternate, as slices of two series do that were mixed and that no tag tells apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.records import LoadedSlice

_SAMPLES = 48
"""Values of a slice's thumbnail, across and down: what is compared is where tissue is bright."""
_NEIGHBOURS = 3
_PARALLEL_COSINE = 0.999
_LEAST_LIKENESS = 0.3
"""Correlation of a slice with the next but one, below which images have nothing in common to compare."""
_LIKER_NEXT_BUT_ONE = 0.05
"""By how much slices correlate better with the next but one than with the next, as a median over the stack.

On 9 real volumes cut into slices of 3.3 mm both ways, and a real sagittal series, it is −0.225 to −0.023, and
at most 0.003 where every second slice is moved by 3 mm, as a patient may move between two passes; on phantoms
−0.067 to 0.006. Loss of signal in every second slice (20 %, or 30 % with noise) changes it by 0.019 at most.
With every second slice inverted it is above 1.1.
"""
_BRIGHTER = 0.5
"""Natural logarithm of how much brighter every second slice is, as a median over the stack.

Slices that are excited by turns lose signal to their neighbours, and that alternates: 0.36 where every second
slice loses 30 %. The volumes above have at most 0.03. With every second slice as in proton density weighting
the cervical ones have 0.85 and more, where correlation hardly tells the two apart.
"""
_SAME_SIGN = 0.9


def alternating_slices_reason(slices: Sequence[LoadedSlice]) -> str:
    """Why slices in order of position are not one stack, by their pixels; "" where they are.

    Neighbouring slices of a stack are more alike than those that lie twice as far apart. Where every second
    slice is of another contrast, or was taken after the patient moved, the next but one is more alike, or
    every second one is far brighter. Slices are compared with neighbours of the same size and tilt alone.
    """
    likeness, next_but_one, brightness = _compared(slices)
    if len(likeness) < _NEIGHBOURS:
        return ""
    if np.median(next_but_one) > _LEAST_LIKENESS and np.median(likeness) > _LIKER_NEXT_BUT_ONE:
        return "each is less like its neighbours than they are like one another"
    same = max(float((brightness > 0).mean()), float((brightness < 0).mean()))
    if same >= _SAME_SIGN and abs(float(np.median(brightness))) > _BRIGHTER:
        return f"every second one is {np.exp(abs(np.median(brightness))):.1f} times as bright as the others"
    return ""


def _compared(slices: Sequence[LoadedSlice]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Three values for each slice between two others: how much better its neighbours correlate with one
    another than with it; how well they do; and how much brighter it is, a logarithm whose sign is turned for
    every second slice."""
    pictures = [_thumbnail(item) for item in slices]
    # Brightness is above 0, or above the least value where values are negative.
    darkest = min([0.0, *(float(picture.min()) for picture in pictures)])
    likeness, across, brightness = [], [], []
    for number in range(1, len(slices) - 1):
        three = slices[number - 1 : number + 2]
        if not all(_comparable(three[1], other) for other in three[::2]):
            continue
        before, here, after = pictures[number - 1 : number + 2]
        outer = _correlation(before, after)
        across.append(outer)
        likeness.append(outer - (_correlation(before, here) + _correlation(here, after)) / 2)
        means = [float(picture.mean()) - darkest for picture in (before, here, after)]
        if min(means) > 0:
            factor = np.log(means[1]) - (np.log(means[0]) + np.log(means[2])) / 2
            brightness.append(-factor if number % 2 else factor)
    return np.array(likeness), np.array(across), np.array(brightness or [0.0])


def _comparable(one: LoadedSlice, other: LoadedSlice) -> bool:
    parallel = abs(float(one.pose.normal @ other.pose.normal)) >= _PARALLEL_COSINE
    return parallel and one.stored.shape == other.stored.shape


def _thumbnail(item: LoadedSlice) -> FloatArray:
    """Real-world values, about `(48, 48)`, each the mean of four pixels."""
    rows, columns = (max(1, size // (2 * _SAMPLES)) for size in item.stored.shape)
    thin = item.stored[::rows, ::columns]
    even = thin[: thin.shape[0] // 2 * 2, : thin.shape[1] // 2 * 2].astype(np.float64)
    mean = even.reshape(even.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
    return np.asarray(item.frame.intercept + item.frame.slope * mean)


def _correlation(one: FloatArray, other: FloatArray) -> float:
    first, second = one - one.mean(), other - other.mean()
    length = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / length if length else 0.0
