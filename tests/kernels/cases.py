"""Random problems for the kernels, and how they are run: the same for the CPU build and for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.kernels import launches
from stenosis_trt.kernels.descriptors import describe_planes, preprocess_kernel, statistics_work
from stenosis_trt.kernels.layouts import CORD, DIRECTION, KEYPOINT, SELECTION, WINDOW
from stenosis_trt.kernels.reference import RegionSource, StoredPixels
from stenosis_trt.kernels.region_batch import RegionBatch, SliceLayout
from stenosis_trt.kernels.regions import region_bounds
from stenosis_trt.kernels.table import PEAKS

from .runners import Runner

FloatArray = npt.NDArray[np.float64]

MEANS, DEVIATIONS = (0.5, 0.25, 0.4), (0.25, 0.5, 1.5)
"""Of the three channels."""

KINDS = ("straight", "swapped", "turned")
"""Of affines: along the image's axes, with these exchanged, or turned by any angle."""

POISON = 0xA5
"""Byte that outputs are filled with before a kernel runs: what it does not write is found."""


@dataclass(frozen=True)
class Batch:
    """Network inputs to be cut: each from the slices of its channels, all of one output size."""

    sources: tuple[tuple[RegionSource, ...], ...]
    affines: tuple[FloatArray, ...]
    size: tuple[int, int]
    percentiles: tuple[float, float]


def random_image(rng: np.random.Generator, shape: tuple[int, int], signed: bool) -> StoredPixels:
    """Stored values of one of the kinds that break things: full range, smooth, constant, few values."""
    kind = rng.choice(["full", "smooth", "constant", "few"])
    lowest, highest = (-32768, 32767) if signed else (0, 65535)
    if kind == "full":
        values = rng.integers(lowest, highest + 1, shape)
    elif kind == "smooth":
        rows, columns = np.indices(shape)
        values = 800 + 600 * np.sin(rows / 17.0) * np.cos(columns / 23.0) + rng.normal(0, 20, shape)
    elif kind == "constant":
        values = np.full(shape, rng.integers(lowest, highest + 1))
    else:
        values = rng.choice([lowest, 0, 100, highest], shape)
    return np.rint(np.clip(values, lowest, highest)).astype(np.int16 if signed else np.uint16)


def random_affine(
    rng: np.random.Generator, shape: tuple[int, int], size: tuple[int, int], kind: str
) -> FloatArray:
    """Output → source pixels: scaled and flipped, and of one of KINDS; partly outside the image."""
    scale = np.exp(rng.uniform(np.log(0.2), np.log(3.9), 2)) * rng.choice([-1.0, 1.0], 2)
    linear = np.diag(scale)
    if kind == "swapped":
        linear = linear[::-1]
    if kind == "turned":
        angle = rng.uniform(0, 2 * np.pi)
        cosine, sine = np.cos(angle), np.sin(angle)
        linear = np.array([[cosine, -sine], [sine, cosine]]) @ linear
    # Anywhere such that some of the region shows the image.
    height, width = size
    place = rng.uniform(0, 1, 2) * np.array([shape[1] - 1, shape[0] - 1])
    shown = rng.uniform(0, 1, 2) * np.array([width - 1, height - 1])
    return np.column_stack([linear, place - linear @ shown])


def random_batch(
    rng: np.random.Generator, count: int = 3, shapes: tuple[int, int] = (1, 90), kind: str = "straight"
) -> Batch:
    """A ragged batch of three-channel inputs, of one slice or of neighbouring ones.

    Args:
        rng: draws everything.
        count: inputs.
        shapes: least and most rows and columns of a slice.
        kind: of the affines, of KINDS.
    """
    # Even widths mostly: odd ones take the kernel that gathers.
    width = int(rng.integers(1, 200))
    size = (int(rng.integers(1, 70)), width if rng.random() < 0.2 else 2 * width)
    sources, affines = [], []
    while len(sources) < count:
        signed = bool(rng.random() < 0.5)
        rows, columns = (int(side) for side in rng.integers(shapes[0], shapes[1] + 1, 2))
        shape = (rows, columns)
        slope, intercept = float(rng.choice([1.0, -1.0, 0.37, -2.5])), float(rng.choice([0.0, -1024.0]))
        images = [random_image(rng, shape, signed) for _ in range(int(rng.choice([1, 3])))]
        affine = random_affine(rng, shape, size, kind)
        if region_bounds(affine, size, shape) is None:
            continue
        channels = images if len(images) == 3 else images * 3
        sources.append(tuple(RegionSource(image, slope, intercept) for image in channels))
        affines.append(affine)
    low, high = (0.0, 100.0) if rng.random() < 0.2 else (1.0, 99.5)
    return Batch(tuple(sources), tuple(affines), size, (low, high))


@dataclass(frozen=True)
class Arena:
    """Slices in one array of 16-bit pixels, each in a pitch and at an offset of its own; and what is cut."""

    pixels: npt.NDArray[np.uint16]
    cuts: RegionBatch


def lay_out(rng: np.random.Generator, batch: Batch) -> Arena:
    """Put a batch's distinct slices into an arena, with random pixels between rows and between slices."""
    parts: list[npt.NDArray[np.uint16]] = []
    place = 0
    slices: list[SliceLayout] = []
    numbers: dict[int, int] = {}
    for source in (source for sources in batch.sources for source in sources):
        if id(source.stored) in numbers:
            continue
        rows, columns = source.stored.shape
        pitch, gap = columns + int(rng.integers(0, 9)), int(rng.integers(0, 9))
        block = rng.integers(0, 65536, gap + rows * pitch).astype(np.uint16)
        block[gap:].reshape(rows, pitch)[:, :columns] = source.stored.view(np.uint16)
        numbers[id(source.stored)] = len(slices)
        slices.append(
            SliceLayout(
                offset=place + gap,
                shape=(rows, columns),
                pitch=pitch,
                signed=source.stored.dtype == np.int16,
                slope=source.slope,
                intercept=source.intercept,
            )
        )
        parts.append(block)
        place += len(block)
    picks = np.array([[numbers[id(source.stored)] for source in sources] for sources in batch.sources])
    single_slice = bool((picks == picks[:, :1]).all())
    return Arena(
        np.concatenate(parts), RegionBatch(slices, picks, np.array(batch.affines), batch.size, single_slice)
    )


def poisoned(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """An array of POISON bytes."""
    result = np.empty(shape, dtype)
    result.view(np.uint8)[...] = POISON
    return result


def run_statistics(
    runner: Runner, arena: Arena, percentiles: tuple[float, float], blocks: int | None = None
) -> np.ndarray:
    """Windows (WINDOW) of every input, in biased stored values."""
    work = statistics_work(arena.cuts, percentiles, blocks)
    count = len(arena.cuts.slice_indices)
    selections = np.zeros(count, SELECTION)
    windows = poisoned(count, WINDOW)
    arguments = (arena.pixels, work.regions, work.requests, selections, windows)
    runner.run("order_statistics_upper", work.launch, arguments)
    runner.run("order_statistics_lower", work.launch, arguments)
    for name in ("counts", "blocks_done"):
        assert not selections[name].any(), f"{name} are not left at zero for the next call"
    return windows


def run_preprocess(
    runner: Runner,
    arena: Arena,
    windows: np.ndarray,
    dtype: npt.DTypeLike,
    *,
    window_per_channel: bool = False,
) -> np.ndarray:
    """Network inputs (N, 3, height, width)."""
    height, width = arena.cuts.size
    table = describe_planes(arena.cuts, MEANS, DEVIATIONS, window_per_channel=window_per_channel)
    out = poisoned((len(arena.cuts.slice_indices), 3, height, width), dtype)
    kernel = preprocess_kernel(table, arena.cuts)
    suffix = "f16" if out.dtype == np.float16 else "f32"
    grids = launches.preprocess_launch(kernel, len(table), arena.cuts.size)
    runner.run(f"{kernel}_{suffix}", grids, (arena.pixels, table, windows, out, height, width))
    return out


def run_decode(runner: Runner, heatmaps: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Peaks (KEYPOINT, (N, K, PEAKS)) of heatmaps (N, K, h, w), and their support, float32 (N, K, K)."""
    count, maps, height, width = heatmaps.shape
    points = poisoned((count, maps, PEAKS), KEYPOINT)
    support = poisoned((count, maps, maps), np.float32)
    kernel = f"decode_peaks_{'f16' if heatmaps.dtype == np.float16 else 'f32'}"
    arguments = (heatmaps, frames, points, support, height, width)
    runner.run(kernel, launches.decode_launch(count, maps), arguments)
    return points, support


def run_cord(
    runner: Runner, heatmaps: np.ndarray, frames: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (KEYPOINT) and cords (CORD) of heatmaps (N, 4, h, w); `directions` are DIRECTION."""
    count, maps, height, width = heatmaps.shape
    points, cords = poisoned((count, maps), KEYPOINT), poisoned(count, CORD)
    kernel = f"cord_geometry_{'f16' if heatmaps.dtype == np.float16 else 'f32'}"
    arguments = (heatmaps, frames, directions, points, cords, height, width)
    runner.run(kernel, launches.cord_launch(count), arguments)
    return points, cords


def run_contrast(runner: Runner, inputs: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Contrast, float32 (N,), of inputs (N, C, height, width)."""
    count, channels, height, width = inputs.shape
    suffix = "f16" if inputs.dtype == np.float16 else "f32"
    contrasts = poisoned(count, np.float32)
    arguments = (inputs, deviations.astype(np.float32), contrasts, channels, height * width)
    runner.run(f"input_contrast_{suffix}", launches.contrast_launch(count), arguments)
    return contrasts


def random_directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors (DIRECTION, (count,)); one in five is zero, which measures the cord in the image."""
    vectors = rng.normal(0, 1, (count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.zeros(count, DIRECTION)
    directions["d"] = vectors * (rng.random((count, 1)) > 0.2)
    return directions
