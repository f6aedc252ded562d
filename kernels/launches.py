"""Grids of kernel launches, and the limits of what is a cord. No device is needed for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.kernels.layouts import CORD_LIMITS
from stenosis_trt.kernels.table import (
    COLUMNS,
    CONTRAST_THREADS,
    CORD_POINTS,
    MOST_MAPS,
    PREPROCESS_THREADS,
    STATISTICS_THREADS,
    STRIP_ROWS,
    WARP,
)

Grid = tuple[int, int, int]

LOW_CONFIDENCE, NOT_CROSSING, NOT_ORTHOGONAL, IMPLAUSIBLE_SIZE = 1, 2, 4, 8
"""Bits of a CORD's flags."""

_ROWS_A_BLOCK = 4 * STATISTICS_THREADS // WARP
"""Rows that one block of `order_statistics` takes: four for each of its warps hide the cost of its start."""
_MOST_BLOCKS = 32


@dataclass(frozen=True)
class LaunchConfig:
    """Grid and block of one launch."""

    grid: Grid
    block: Grid


def statistics_launch(blocks: int, regions: int) -> LaunchConfig:
    """Grid and block of both passes of `order_statistics`."""
    return LaunchConfig((blocks, regions, 1), (STATISTICS_THREADS, 1, 1))


def statistics_blocks(rows: int) -> int:
    """Blocks for each region that suit regions of up to `rows` source rows.

    Any number gives the same windows: a block that finds no row costs its start, and few blocks go round
    longer.
    """
    return min(max(-(-rows // _ROWS_A_BLOCK), 1), _MOST_BLOCKS)


def preprocess_launch(kernel: str, planes: int, size: tuple[int, int]) -> LaunchConfig:
    """Grid and block of `kernel` (see `preprocess_kernel`) for that many planes of `size` (height, width)."""
    height, width = size
    columns, rows = (COLUMNS, STRIP_ROWS) if kernel == "preprocess" else (1, 1)
    blocks = -(-width // (PREPROCESS_THREADS * columns)), -(-height // rows)
    return LaunchConfig((*blocks, planes), (PREPROCESS_THREADS, 1, 1))


def decode_launch(images: int, maps: int) -> LaunchConfig:
    """Grid and block of `decode_keypoints` for images of `maps` heatmaps each."""
    if not 1 <= maps <= MOST_MAPS:
        raise ValueError(f"An image has 1–{MOST_MAPS} heatmaps, not {maps}.")
    return LaunchConfig((images, 1, 1), (WARP * maps, 1, 1))


def cord_launch(images: int) -> LaunchConfig:
    """Grid and block of `cord_geometry`."""
    return LaunchConfig((images, 1, 1), (WARP * CORD_POINTS, 1, 1))


def level_grids(levels: int) -> LaunchConfig:
    """Grid and block of `maximal_compression`."""
    return LaunchConfig((levels, 1, 1), (WARP, 1, 1))


def contrast_launch(inputs: int) -> LaunchConfig:
    """Grid and block of `input_contrast`."""
    return LaunchConfig((inputs, 1, 1), (CONTRAST_THREADS, 1, 1))


def describe_limits(
    confidence: float, angle_degrees: float, ap_mm: tuple[float, float], transverse_mm: tuple[float, float]
) -> np.ndarray:
    """CORD_LIMITS: what is a cord."""
    limits = np.zeros((), dtype=CORD_LIMITS)
    limits["confidence"], limits["angle_degrees"] = confidence, angle_degrees
    limits["ap_mm"], limits["transverse_mm"] = ap_mm, transverse_mm
    return limits
