"""From regions and heatmaps to kernel launches: descriptors, grids and arguments. No device is needed for it.

The arena is one array of 16-bit pixels in which all source slices lie, each somewhere of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.kernels.layouts import CORD_LIMITS, FRAME, MAX_COPIES, PLANE, RANK_REQUEST, REGION
from stenosis_trt.kernels.reference import Window, box_taps, is_aligned, region_bounds, window_percentiles
from stenosis_trt.kernels.table import (
    COLUMNS,
    CORD_POINTS,
    MOST_MAPS,
    MOST_TAPS,
    PREPROCESS_THREADS,
    STATISTICS_THREADS,
    STRIP_ROWS,
    WARP,
)

FloatArray = npt.NDArray[np.float64]
Grid = tuple[int, int, int]

LOW_CONFIDENCE, NOT_CROSSING, NOT_ORTHOGONAL, IMPLAUSIBLE_SIZE = 1, 2, 4, 8
"""Bits of a CORD's flags."""

_SIGN = 0x8000
_FRACTION_BITS = 32
_ROWS_A_BLOCK = 4 * STATISTICS_THREADS // WARP
"""Rows that one block of `order_statistics` takes: four for each of its warps hide the cost of its start."""
_MOST_BLOCKS = 32


@dataclass(frozen=True)
class Slice:
    """Where a slice lies in the arena, and what turns its stored values into real ones.

    Attributes:
        offset: of its first pixel, in pixels.
        shape: (rows, columns).
        pitch: pixels from one row to the next.
        signed: whether the stored 16 bits are int16.
        slope, intercept: rescale.
    """

    offset: int
    shape: tuple[int, int]
    pitch: int
    signed: bool
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def sign(self) -> int:
        """What turns a stored value into one whose unsigned order is the order of values."""
        return _SIGN if self.signed else 0


@dataclass(frozen=True)
class Grids:
    """Grid and block of one launch."""

    grid: Grid
    block: Grid


@dataclass(frozen=True)
class StatisticsWork:
    """What both passes of `order_statistics` are given: REGION rows, and a RANK_REQUEST for each set."""

    regions: np.ndarray
    requests: np.ndarray
    grids: Grids


def statistics_work(
    sets: Sequence[Sequence[Slice]],
    affines: Sequence[FloatArray],
    size: tuple[int, int],
    percentiles: tuple[float, float],
) -> StatisticsWork:
    """The windows of network inputs, each from the pixels in the bounding box of its region.

    Args:
        sets: the slices of each input's channels; the slices of one set have one rescale and one signedness.
        affines: of each input, output pixel → source pixel, (2, 3).
        size: output (height, width).
        percentiles: of the window's low and high end.

    Raises:
        ValueError: a region misses its image, or the slices of a set differ in rescale or signedness: such a
            window is `region_window`'s to find.
    """
    regions = []
    counts = []
    for number, (slices, affine) in enumerate(zip(sets, affines, strict=True)):
        if len({(item.slope, item.intercept, item.signed) for item in slices}) != 1:
            raise ValueError("The slices of a set differ in rescale or sign. Find their window on the CPU.")
        count = 0
        for item in slices:
            bounds = region_bounds(affine, size, item.shape)
            if bounds is None:
                raise ValueError("A region misses its image: it has no window.")
            rows, columns = bounds
            height, width = rows.stop - rows.start, columns.stop - columns.start
            first = item.offset + rows.start * item.pitch + columns.start
            regions.append((first, height, width, item.pitch, number, item.sign, 0))
            count += height * width
        counts.append(count)
    table = np.array(regions, dtype=REGION)
    blocks = int(np.clip(-(-table["rows"].max() // _ROWS_A_BLOCK), 1, _MOST_BLOCKS))
    requests = np.zeros(len(sets), dtype=RANK_REQUEST)
    for number, slices in enumerate(sets):
        wanted = np.asarray(window_percentiles(percentiles, slices[0].slope))
        requests[number]["rank"] = np.rint(wanted / 100.0 * (counts[number] - 1))
        requests[number]["blocks"] = blocks * len(slices)
    return StatisticsWork(table, requests, Grids((blocks, len(table), 1), (STATISTICS_THREADS, 1, 1)))


def _fixed(value: float) -> int:
    """A position as fixed point with 32 fractional bits."""
    if not abs(value) < 1 << 30:
        raise ValueError(f"A region lies {value:.3g} pixels away from its image, too far to be meant.")
    return round(value * (1 << _FRACTION_BITS))


@dataclass(frozen=True)
class PlaneTarget:
    """Where one slice goes: `copies` channels from element `output` on, each with its mean and deviation.

    `window` is the index of the window that its values are mapped by.
    """

    output: int
    window: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]


def describe_plane(source: Slice, affine: FloatArray, target: PlaneTarget) -> np.ndarray:
    """One PLANE: a slice, the affine output pixel (x, y) → source pixel (column, row), and where it goes.

    Raises:
        ValueError: more copies than a plane can have, or an affine far outside the image.
    """
    copies = len(target.means)
    if not 1 <= copies <= MAX_COPIES:
        raise ValueError(f"A plane is copied to 1–{MAX_COPIES} channels, not {copies}. Split it.")
    rows, columns = source.shape
    matrix = affine
    extents, strides = (columns, rows), (1, source.pitch)
    if is_aligned(affine) and abs(affine[0, 1]) > abs(affine[0, 0]):
        # Output x runs along source rows: the kernel's axis x is the image's axis of rows.
        matrix, extents, strides = affine[::-1], extents[::-1], strides[::-1]
    taps_x, taps_y = (len(box_taps(float(np.hypot(*affine[:, axis])))) for axis in (0, 1))
    tap = matrix[:, :2] / np.array([taps_x, taps_y])
    first = matrix[:, 2] - 0.5 * matrix[:, :2].sum(axis=1) + 0.5 * tap.sum(axis=1)
    plane = np.zeros((), dtype=PLANE)
    plane["offset"], plane["output"] = source.offset, target.output
    plane["first_x"], plane["first_y"] = (_fixed(float(value)) for value in first)
    for place, value in {"step": matrix[:, :2], "tap": tap}.items():
        plane[f"{place}_xx"], plane[f"{place}_yx"] = (_fixed(float(x)) for x in value[:, 0])
        plane[f"{place}_xy"], plane[f"{place}_yy"] = (_fixed(float(x)) for x in value[:, 1])
    plane["extent_x"], plane["extent_y"] = extents
    plane["stride_x"], plane["stride_y"] = strides
    plane["taps_x"], plane["taps_y"] = taps_x, taps_y
    plane["window"], plane["sign"], plane["copies"] = target.window, source.sign, copies
    plane["mean"][:copies] = target.means
    plane["scale"][:copies] = 1.0 / np.asarray(target.deviations)
    return plane


def describe_input(
    slices: Sequence[Slice], affine: FloatArray, size: tuple[int, int], target: PlaneTarget
) -> list[np.ndarray]:
    """The PLANEs of one network input: one where all channels show one slice, else one a channel.

    Args:
        slices: one a channel.
        affine: see `describe_plane`.
        size: of the input, (height, width).
        target: of the whole input: its first element, its window, one mean and deviation a channel.
    """
    if len(set(slices)) == 1:
        return [describe_plane(slices[0], affine, target)]
    pixels = size[0] * size[1]
    channels = zip(slices, target.means, target.deviations, strict=True)
    return [
        describe_plane(
            source, affine, PlaneTarget(target.output + k * pixels, target.window, (mean,), (deviation,))
        )
        for k, (source, mean, deviation) in enumerate(channels)
    ]


def biased_window(source: Slice, window: Window) -> tuple[float, float]:
    """A window in real values as the kernels have it: in stored values, signed ones moved up by 2¹⁵."""
    low, high = ((value - source.intercept) / source.slope + source.sign for value in window)
    return low, high


def preprocess_kernel(planes: np.ndarray, affines: Sequence[FloatArray], width: int) -> str:
    """Which kernel cuts planes (PLANE) to inputs of `width` pixels.

    Returns:
        "preprocess", or "preprocess_affine" where an affine is turned, swaps axes or shrinks more than
        fourfold, an image is only a few pixels wide, or the outputs' rows do not begin on whole pairs.
    """
    few = max(int(planes["taps_x"].max()), int(planes["taps_y"].max())) <= MOST_TAPS
    along_rows = bool((planes["stride_x"] == 1).all()) and bool((planes["extent_x"] > MOST_TAPS).all())
    in_pairs = width % COLUMNS == 0 and bool((planes["output"] % COLUMNS == 0).all())
    suits = few and along_rows and in_pairs and all(map(is_aligned, affines))
    return "preprocess" if suits else "preprocess_affine"


def preprocess_grids(kernel: str, planes: int, size: tuple[int, int]) -> Grids:
    """Grid and block of `kernel` (see `preprocess_kernel`) for that many planes of `size` (height, width)."""
    height, width = size
    columns, rows = (COLUMNS, STRIP_ROWS) if kernel == "preprocess" else (1, 1)
    blocks = -(-width // (PREPROCESS_THREADS * columns)), -(-height // rows)
    return Grids((*blocks, planes), (PREPROCESS_THREADS, 1, 1))


def describe_frame(heatmap_to_source: FloatArray, pixel_to_patient: FloatArray) -> np.ndarray:
    """One FRAME.

    Args:
        heatmap_to_source: heatmap pixel (x, y) → source pixel (column, row), (2, 3).
        pixel_to_patient: source (column, row, 0, 1) → patient (x, y, z, 1), LPS, mm, (4, 4).
    """
    frame = np.zeros((), dtype=FRAME)
    frame["source"] = heatmap_to_source.T
    plane = pixel_to_patient[:3, :2]
    patient = plane @ heatmap_to_source
    patient[:, 2] += pixel_to_patient[:3, 3]
    frame["patient"] = patient.T
    return frame


def decode_grids(images: int, maps: int) -> Grids:
    """Grid and block of `decode_keypoints` for images of `maps` heatmaps each."""
    if not 1 <= maps <= MOST_MAPS:
        raise ValueError(f"An image has 1–{MOST_MAPS} heatmaps, not {maps}.")
    return Grids((images, 1, 1), (WARP * maps, 1, 1))


def cord_grids(images: int) -> Grids:
    """Grid and block of `cord_geometry`."""
    return Grids((images, 1, 1), (WARP * CORD_POINTS, 1, 1))


def level_grids(levels: int) -> Grids:
    """Grid and block of `maximal_compression`."""
    return Grids((levels, 1, 1), (WARP, 1, 1))


def describe_limits(
    confidence: float, angle_degrees: float, ap_mm: tuple[float, float], transverse_mm: tuple[float, float]
) -> np.ndarray:
    """CORD_LIMITS: what is a cord."""
    limits = np.zeros((), dtype=CORD_LIMITS)
    limits["confidence"], limits["angle_degrees"] = confidence, angle_degrees
    limits["ap_mm"], limits["transverse_mm"] = ap_mm, transverse_mm
    return limits
