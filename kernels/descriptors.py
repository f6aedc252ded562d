"""Descriptor arrays of the kernels for regions and heatmaps. Needs no device.

Whole batches are vectorised because the study waits while the host computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.kernels.launches import LaunchConfig, statistics_blocks, statistics_launch
from stenosis_trt.kernels.layouts import FRAME, PLANE, RANK_REQUEST, REGION
from stenosis_trt.kernels.reference import window_percentiles
from stenosis_trt.kernels.region_batch import RegionBatch
from stenosis_trt.kernels.regions import FloatArray, IntArray, box_counts, covered_pixels
from stenosis_trt.kernels.table import COLUMNS_PER_THREAD, MAX_TAPS

_FRACTION_BITS = 32
_FARTHEST = float(1 << 30)
_POSITIONS = (
    ("first_x", "first_y"),
    ("step_xx", "step_yx"),
    ("step_xy", "step_yy"),
    ("tap_xx", "tap_yx"),
    ("tap_xy", "tap_yy"),
)
"""Fields of a PLANE that hold fixed-point positions, (x, y) each."""


@dataclass(frozen=True)
class StatisticsWork:
    """Arguments of both passes of `order_statistics`: REGION rows, one RANK_REQUEST per input, the launch."""

    regions: np.ndarray
    requests: np.ndarray
    launch: LaunchConfig


def statistics_work(
    batch: RegionBatch, percentiles: tuple[float, float], blocks: int | None = None
) -> StatisticsWork:
    """Describe the search for the windows of network inputs, from the pixels in their bounding boxes.

    Every channel is counted, as in `region_window`; a slice that several channels share is read once. An
    input whose region misses its image gets the window (0, 0), for which `preprocess` writes 0 everywhere.

    Args:
        batch: N inputs with N × `batch.regions_per_input` regions.
        percentiles: percentiles of the low and high end of the window.
        blocks: blocks per region if the grid must not depend on the regions; None to choose them.

    Raises:
        ValueError: the slices of an input differ in rescale or signedness (see
            `RegionBatch.has_uniform_rescale`); `region_window` finds such a window.
    """
    if not batch.has_uniform_rescale.all():
        raise ValueError("The slices of an input differ in rescale or sign. Find its window on the CPU.")
    slices, (inputs, parts) = batch.source_slices, batch.source_slices.shape
    extents = np.stack([slices["columns"], slices["rows"]], axis=-1)
    first, last = covered_pixels(batch.affines, batch.size, extents)
    covered = last - first + 1
    covered[(covered <= 0).any(axis=-1)] = 0
    columns, rows = covered[..., 0], covered[..., 1]
    regions = np.zeros((inputs, parts), dtype=REGION)
    # A region that misses its image has no rows: its offset is never read.
    regions["offset"] = slices["offset"] + first[..., 1] * slices["pitch"] + first[..., 0]
    regions["rows"], regions["columns"], regions["pitch"] = rows, columns, slices["pitch"]
    regions["set"], regions["sign"] = np.arange(inputs)[:, None], slices["sign"]
    if blocks is None:
        blocks = statistics_blocks(int(rows.max()))
    requests = np.zeros(inputs, dtype=RANK_REQUEST)
    requests["rank"] = _ranks((rows * columns).sum(axis=1), batch, percentiles)
    requests["blocks"] = blocks * parts
    return StatisticsWork(regions.ravel(), requests, statistics_launch(blocks, regions.size))


def _ranks(counted: IntArray, batch: RegionBatch, percentiles: tuple[float, float]) -> IntArray:
    """Ranks of the low and high end of the window among the counted pixels of each input, int64 (N, 2).

    If one region stands for several channels, each of its pixels counts that many times.
    """
    worth = batch.slice_indices.shape[1] // batch.regions_per_input
    rising = np.array(window_percentiles(percentiles, 1.0)) / 100.0
    falling = np.array(window_percentiles(percentiles, -1.0)) / 100.0
    wanted = np.where(batch.source_slices["slope"][:, :1] > 0, rising, falling)
    last = np.maximum(counted * worth - 1, 0)[:, None]
    return np.asarray(np.rint(wanted * last).astype(np.int64) // worth)


def describe_planes(
    batch: RegionBatch, mean: Sequence[float], std: Sequence[float], *, window_per_channel: bool = False
) -> np.ndarray:
    """PLANE rows of a batch that is written to an array (N, C, height, width).

    Args:
        batch: N inputs.
        mean, std: normalisation of each channel.
        window_per_channel: True if each channel has its own window, in the order of channels; else one
            window per input.

    Returns:
        (N × `batch.regions_per_input`,) PLANE.

    Raises:
        ValueError: a region lies more than 2³⁰ pixels from its image.
    """
    slices, parts = batch.source_slices, batch.regions_per_input
    inputs, channels = batch.slice_indices.shape
    copies, pixels = channels // parts, batch.size[0] * batch.size[1]
    affines = batch.affines
    # If output x runs along source rows, the kernel's x axis is the row axis of the image.
    swapped = batch.aligned & (np.abs(affines[:, 0, 1]) > np.abs(affines[:, 0, 0]))
    matrix = np.where(swapped[:, None, None], affines[:, ::-1], affines)
    step = matrix[:, :, :2]
    taps = box_counts(np.hypot(affines[:, 0, :2], affines[:, 1, :2]))
    tap = step / taps[:, None, :]
    first = matrix[:, :, 2] - 0.5 * (step[:, :, 0] + step[:, :, 1]) + 0.5 * (tap[:, :, 0] + tap[:, :, 1])
    positions = _fixed(np.concatenate([first[:, :, None], step, tap], axis=2))

    planes = np.zeros((inputs, parts), dtype=PLANE)
    channel = np.arange(inputs * parts).reshape(inputs, parts) * copies
    planes["offset"], planes["output"] = slices["offset"], channel * pixels
    planes["window"] = channel if window_per_channel else np.arange(inputs)[:, None]
    for place, (name_x, name_y) in enumerate(_POSITIONS):
        planes[name_x], planes[name_y] = positions[:, None, 0, place], positions[:, None, 1, place]
    along = swapped[:, None]
    planes["extent_x"] = np.where(along, slices["rows"], slices["columns"])
    planes["extent_y"] = np.where(along, slices["columns"], slices["rows"])
    planes["stride_x"] = np.where(along, slices["pitch"], 1)
    planes["stride_y"] = np.where(along, 1, slices["pitch"])
    planes["taps_x"], planes["taps_y"] = taps[:, None, 0], taps[:, None, 1]
    planes["sign"], planes["copies"] = slices["sign"], copies
    planes["mean"][:, :, :copies] = np.asarray(mean).reshape(parts, copies)
    planes["scale"][:, :, :copies] = 1.0 / np.asarray(std).reshape(parts, copies)
    return planes.ravel()


def _fixed(values: FloatArray) -> IntArray:
    """Positions as fixed-point numbers with 32 fractional bits."""
    farthest = np.abs(values).max()
    if not farthest < _FARTHEST:
        raise ValueError(f"A region lies {farthest:.3g} pixels from its image, which cannot be intended.")
    return np.asarray(np.rint(values * float(1 << _FRACTION_BITS)).astype(np.int64))


def preprocess_kernel(planes: np.ndarray, batch: RegionBatch) -> str:
    """Name of the kernel that resamples `batch`, described by `planes` (PLANE).

    Returns:
        "preprocess", or "preprocess_affine" if an affine rotates, swaps axes or shrinks more than fourfold,
        an image has at most `MAX_TAPS` columns, or the output width is odd.
    """
    few = max(int(planes["taps_x"].max()), int(planes["taps_y"].max())) <= MAX_TAPS
    along_rows = bool((planes["stride_x"] == 1).all()) and bool((planes["extent_x"] > MAX_TAPS).all())
    suits = few and along_rows and batch.size[1] % COLUMNS_PER_THREAD == 0 and bool(batch.aligned.all())
    return "preprocess" if suits else "preprocess_affine"


def describe_frames(heatmap_to_source: FloatArray, pixel_to_patient: FloatArray) -> np.ndarray:
    """FRAME rows, one per image.

    Args:
        heatmap_to_source: heatmap pixel (x, y) → source pixel (column, row), (N, 2, 3).
        pixel_to_patient: source (column, row, 0, 1) → patient (x, y, z, 1), LPS, mm, (N, 4, 4).
    """
    frames = np.zeros(len(heatmap_to_source), dtype=FRAME)
    frames["source"] = heatmap_to_source.transpose(0, 2, 1)
    patient = pixel_to_patient[:, :3, :2] @ heatmap_to_source
    patient[:, :, 2] += pixel_to_patient[:, :3, 3]
    frames["patient"] = patient.transpose(0, 2, 1)
    return frames
