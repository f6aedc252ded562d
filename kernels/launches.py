"""Launch configurations of the kernels: grid and block sizes. Needs no device."""

from __future__ import annotations

from dataclasses import dataclass

from stenosis_trt.kernels.table import (
    COLUMNS_PER_THREAD,
    CONTRAST_THREADS,
    CORD_POINTS,
    MAX_MAPS,
    PREPROCESS_THREADS,
    STATISTICS_THREADS,
    STRIP_ROWS,
    WARP,
)

Grid = tuple[int, int, int]

_ROWS_PER_BLOCK = 4 * STATISTICS_THREADS // WARP
"""Rows per block of `order_statistics`: 4 per warp amortise launch overhead."""
_MAX_BLOCKS = 32


@dataclass(frozen=True)
class LaunchConfig:
    """Blocks per grid and threads per block of one launch, in x, y, z."""

    grid: Grid
    block: Grid


def statistics_launch(blocks: int, regions: int) -> LaunchConfig:
    """Launch configuration of both passes of `order_statistics`."""
    return LaunchConfig((blocks, regions, 1), (STATISTICS_THREADS, 1, 1))


def statistics_blocks(rows: int) -> int:
    """Blocks per region for regions of up to `rows` source rows.

    The number affects speed only: blocks without rows exit at once, and fewer blocks iterate more often.
    """
    return min(max(-(-rows // _ROWS_PER_BLOCK), 1), _MAX_BLOCKS)


def preprocess_launch(kernel: str, planes: int, size: tuple[int, int]) -> LaunchConfig:
    """Launch configuration of `kernel` (see `preprocess_kernel`) for planes of `size` (height, width)."""
    height, width = size
    columns, rows = (COLUMNS_PER_THREAD, STRIP_ROWS) if kernel == "preprocess" else (1, 1)
    blocks = -(-width // (PREPROCESS_THREADS * columns)), -(-height // rows)
    return LaunchConfig((*blocks, planes), (PREPROCESS_THREADS, 1, 1))


def decode_launch(images: int, maps: int) -> LaunchConfig:
    """Launch configuration of `decode_peaks` for images of `maps` heatmaps each."""
    if not 1 <= maps <= MAX_MAPS:
        raise ValueError(f"An image has 1–{MAX_MAPS} heatmaps, not {maps}.")
    return LaunchConfig((images, 1, 1), (WARP * maps, 1, 1))


def cord_launch(images: int) -> LaunchConfig:
    """Launch configuration of `cord_geometry`."""
    return LaunchConfig((images, 1, 1), (WARP * CORD_POINTS, 1, 1))


def contrast_launch(inputs: int) -> LaunchConfig:
    """Launch configuration of `input_contrast`."""
    return LaunchConfig((inputs, 1, 1), (CONTRAST_THREADS, 1, 1))
