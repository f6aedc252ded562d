"""What the kernels are told of regions and heatmaps: whole batches as arrays. No device is needed for it.

A batch is described at a time: a study waits while the host does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.kernels.cuts import RegionBatch
from stenosis_trt.kernels.launches import LaunchConfig, statistics_blocks, statistics_launch
from stenosis_trt.kernels.layouts import FRAME, PLANE, RANK_REQUEST, REGION
from stenosis_trt.kernels.reference import window_percentiles
from stenosis_trt.kernels.regions import FloatArray, IntArray, box_counts, covered_pixels
from stenosis_trt.kernels.table import COLUMNS, MOST_TAPS

_FRACTION_BITS = 32
_FARTHEST = float(1 << 30)
_POSITIONS = (
    ("first_x", "first_y"),
    ("step_xx", "step_yx"),
    ("step_xy", "step_yy"),
    ("tap_xx", "tap_yx"),
    ("tap_xy", "tap_yy"),
)
"""Fields of a PLANE that are positions, along x and y each."""


@dataclass(frozen=True)
class StatisticsWork:
    """What both passes of `order_statistics` are given: REGION rows, and a RANK_REQUEST for each input."""

    regions: np.ndarray
    requests: np.ndarray
    launch: LaunchConfig


def statistics_work(
    cuts: RegionBatch, percentiles: tuple[float, float], blocks: int | None = None
) -> StatisticsWork:
    """The windows of network inputs, each from the pixels in the bounding boxes of its channels' regions.

    Every channel counts, as in `region_window`; what several show together is read once. An input whose
    region misses its image has the window (0, 0), of which `preprocess` makes the low end everywhere.

    Args:
        cuts: N inputs. There are N × `cuts.parts` regions.
        percentiles: of the window's low and high end.
        blocks: for each region, where the grid must not depend on the regions; else as many as suit them.

    Raises:
        ValueError: the slices of an input differ in rescale or signedness (`cuts.one_kind`): such a window is
            `region_window`'s to find.
    """
    if not cuts.has_uniform_rescale.all():
        raise ValueError("The slices of an input differ in rescale or sign. Find its window on the CPU.")
    shown, (inputs, parts) = cuts.source_slices, cuts.source_slices.shape
    extents = np.stack([shown["columns"], shown["rows"]], axis=-1)
    first, last = covered_pixels(cuts.affines, cuts.size, extents)
    covered = last - first + 1
    covered[(covered <= 0).any(axis=-1)] = 0
    columns, rows = covered[..., 0], covered[..., 1]
    regions = np.zeros((inputs, parts), dtype=REGION)
    # Where a region misses its image nothing is read, wherever it begins.
    regions["offset"] = shown["offset"] + first[..., 1] * shown["pitch"] + first[..., 0]
    regions["rows"], regions["columns"], regions["pitch"] = rows, columns, shown["pitch"]
    regions["set"], regions["sign"] = np.arange(inputs)[:, None], shown["sign"]
    if blocks is None:
        blocks = statistics_blocks(int(rows.max()))
    requests = np.zeros(inputs, dtype=RANK_REQUEST)
    requests["rank"] = _ranks((rows * columns).sum(axis=1), cuts, percentiles)
    requests["blocks"] = blocks * parts
    return StatisticsWork(regions.ravel(), requests, statistics_launch(blocks, regions.size))


def _ranks(counted: IntArray, cuts: RegionBatch, percentiles: tuple[float, float]) -> IntArray:
    """Ranks of the window's two ends among the pixels that are counted for each input, (N, 2).

    Where one region stands for several channels each pixel is worth that many.
    """
    worth = cuts.slice_indices.shape[1] // cuts.regions_per_input
    rising = np.array(window_percentiles(percentiles, 1.0)) / 100.0
    falling = np.array(window_percentiles(percentiles, -1.0)) / 100.0
    wanted = np.where(cuts.source_slices["slope"][:, :1] > 0, rising, falling)
    last = np.maximum(counted * worth - 1, 0)[:, None]
    return np.asarray(np.rint(wanted * last).astype(np.int64) // worth)


def describe_planes(
    cuts: RegionBatch, mean: Sequence[float], std: Sequence[float], *, window_a_channel: bool = False
) -> np.ndarray:
    """PLANE rows, N × `cuts.parts`, of inputs that lie one behind the other in (N, C, height, width).

    Args:
        cuts: N inputs.
        means, deviations: of the normalisation, one a channel.
        window_a_channel: whether each channel has a window of its own, in the order of channels; else each
            input has one.

    Raises:
        ValueError: an affine far outside its image.
    """
    shown, parts = cuts.source_slices, cuts.regions_per_input
    inputs, channels = cuts.slice_indices.shape
    copies, pixels = channels // parts, cuts.size[0] * cuts.size[1]
    affines = cuts.affines
    # Output x may run along source rows: the kernel's axis x is the image's axis of rows then.
    swapped = cuts.aligned & (np.abs(affines[:, 0, 1]) > np.abs(affines[:, 0, 0]))
    matrix = np.where(swapped[:, None, None], affines[:, ::-1], affines)
    step = matrix[:, :, :2]
    taps = box_counts(np.hypot(affines[:, 0, :2], affines[:, 1, :2]))
    tap = step / taps[:, None, :]
    first = matrix[:, :, 2] - 0.5 * (step[:, :, 0] + step[:, :, 1]) + 0.5 * (tap[:, :, 0] + tap[:, :, 1])
    positions = _fixed(np.concatenate([first[:, :, None], step, tap], axis=2))

    planes = np.zeros((inputs, parts), dtype=PLANE)
    channel = np.arange(inputs * parts).reshape(inputs, parts) * copies
    planes["offset"], planes["output"] = shown["offset"], channel * pixels
    planes["window"] = channel if window_a_channel else np.arange(inputs)[:, None]
    for place, (name_x, name_y) in enumerate(_POSITIONS):
        planes[name_x], planes[name_y] = positions[:, None, 0, place], positions[:, None, 1, place]
    along = swapped[:, None]
    planes["extent_x"] = np.where(along, shown["rows"], shown["columns"])
    planes["extent_y"] = np.where(along, shown["columns"], shown["rows"])
    planes["stride_x"] = np.where(along, shown["pitch"], 1)
    planes["stride_y"] = np.where(along, 1, shown["pitch"])
    planes["taps_x"], planes["taps_y"] = taps[:, None, 0], taps[:, None, 1]
    planes["sign"], planes["copies"] = shown["sign"], copies
    planes["mean"][:, :, :copies] = np.asarray(mean).reshape(parts, copies)
    planes["scale"][:, :, :copies] = 1.0 / np.asarray(std).reshape(parts, copies)
    return planes.ravel()


def _fixed(values: FloatArray) -> IntArray:
    """Positions as fixed point with 32 fractional bits."""
    farthest = np.abs(values).max()
    if not farthest < _FARTHEST:
        raise ValueError(f"A region lies {farthest:.3g} pixels away from its image, too far to be meant.")
    return np.asarray(np.rint(values * float(1 << _FRACTION_BITS)).astype(np.int64))


def preprocess_kernel(planes: np.ndarray, cuts: RegionBatch) -> str:
    """Which kernel makes the inputs `cuts` of `planes` (PLANE).

    Returns:
        "preprocess", or "preprocess_affine" where an affine is turned, swaps axes or shrinks more than
        fourfold, an image is only a few pixels wide, or the outputs' rows do not begin on whole pairs.
    """
    few = max(int(planes["taps_x"].max()), int(planes["taps_y"].max())) <= MOST_TAPS
    along_rows = bool((planes["stride_x"] == 1).all()) and bool((planes["extent_x"] > MOST_TAPS).all())
    suits = few and along_rows and cuts.size[1] % COLUMNS == 0 and bool(cuts.aligned.all())
    return "preprocess" if suits else "preprocess_affine"


def describe_frames(heatmap_to_source: FloatArray, pixel_to_patient: FloatArray) -> np.ndarray:
    """FRAME rows, one an image.

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
