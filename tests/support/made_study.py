"""Loaded studies made of numbers, with no file behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import FrameHeader, LoadedSlice, LoadedStudy, SeriesHeader, StudyHeader

Fill = Callable[[np.random.Generator, tuple[int, int]], npt.NDArray[np.uint16]]


def noise(contrast: int = 1000) -> Fill:
    """Every value from 0 to `contrast`, anywhere."""
    return lambda rng, shape: rng.integers(0, contrast + 1, shape, dtype=np.uint16)


def hills(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Waves of some 20 to 100 pixels, so that there is a highest place, and small errors do not move it."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    total = np.zeros(shape)
    for _ in range(6):
        angle, length, phase = rng.uniform(0, 2 * np.pi), rng.uniform(20, 100), rng.uniform(0, 2 * np.pi)
        total += np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return np.asarray(2000 + 300 * total, dtype=np.uint16)


def noise_above_grey(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Noise of middle brightness in the upper half; below, grey that is too bright for a signal void."""
    image = noise()(rng, shape)
    bright = rng.random((shape[0] - shape[0] // 2, shape[1])) < 0.01
    image[shape[0] // 2 :] = np.where(bright, 1000, 260)
    return image


def sparse(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """A dark image with a bright pixel here and there."""
    return np.asarray(1000 * (rng.random(shape) < 0.02), dtype=np.uint16)


def made_study(axial: bool = True, same_frame: bool = True, fill: Fill | None = None) -> LoadedStudy:
    """Nine sagittal slices of 250² and, if `axial`, thirty axial ones of 320²; always the same."""
    rng, fill = np.random.default_rng(0), fill or noise()

    def make(pose: SlicePose, name: str) -> LoadedSlice:
        return LoadedSlice(FrameHeader(Path(name), 0, name, pose), pose, fill(rng, (pose.rows, pose.columns)))

    sagittal = tuple(
        make(SlicePose((x, -100.0, 100.0), (0, 1, 0), (0, 0, -1), 0.8, 0.8, 250, 250, 3.0), f"s{k}")
        for k, x in enumerate(np.arange(-12.0, 13.0, 3.0))
    )
    slices = tuple(
        make(SlicePose((-60.0, -80.0, z), (1, 0, 0), (0, 1, 0), 0.5, 0.5, 320, 320, 3.0), f"a{k}")
        for k, z in enumerate(np.arange(-60.0, 60.0, 4.0))
    )
    series = SeriesHeader("1", "1.1", "MR", tuple(item.frame for item in sagittal), patient_id="ID")
    return LoadedStudy(
        header=StudyHeader("1", "/study", (series,)),
        sagittal_series=series,
        sagittal=sagittal,
        axial_series=replace(series, series_uid="1.2") if axial else None,
        axial=slices if axial else (),
        same_frame_of_reference=same_frame,
        warnings=(),
    )
