"""Random texture of tissue: smooth fields in canal coordinates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.shapes import Array, Canvas

_SIZE = 48
_CHANNELS = 6


class Texture:
    """One periodic random volume, sampled at a different offset for each channel."""

    def __init__(self, rng: np.random.Generator) -> None:
        grid: Array = rng.standard_normal((_SIZE,) * 3).astype(np.float32)
        for axis in range(3):
            grid = (np.roll(grid, 1, axis) + 2 * grid + np.roll(grid, -1, axis)) / 4
        grid = (grid / grid.std()).astype(np.float32)
        self._offsets = rng.uniform(0, _SIZE, size=(_CHANNELS, 3)).astype(np.float32)
        self.minimum = float(grid.min())
        """Lower bound of all channels, but for rounding."""
        # Padding repeats the first plane of each axis, so that the next cell is always the next in memory.
        padded = np.pad(grid, (0, 1), mode="wrap")
        steps = (padded.shape[1] * padded.shape[2], padded.shape[2], 1)
        flat = padded.ravel()
        self._strides = steps
        self._corners = [
            (corner, flat[sum(step for axis, step in enumerate(steps) if corner >> axis & 1) :])
            for corner in range(8)
        ]

    def noise(self, canvas: Canvas, channel: int, cell: tuple[float, float, float]) -> Array:
        """Sample a smooth random field of unit variance, float32 (N,).

        Args:
            canvas: where to sample it.
            channel: which of the independent fields.
            cell: grain size in mm along u, v and s.
        """
        index = np.zeros(canvas.u.shape, dtype=np.intp)
        weights: list[tuple[Array, Array]] = []
        for x, grain, offset, stride in zip(
            (canvas.u, canvas.v, canvas.s), cell, self._offsets[channel], self._strides, strict=True
        ):
            position = x / grain + offset
            floor = np.floor(position)
            share = position - floor
            index += _cell(floor) * stride
            weights.append((1 - share, share))
        total: npt.NDArray[np.float32] = np.zeros(canvas.u.shape, dtype=np.float32)
        along = [weights[0][corner & 1] * weights[1][corner >> 1 & 1] for corner in range(4)]
        for corner, values in self._corners:
            total += values.take(index) * (along[corner & 3] * weights[2][corner >> 2 & 1])
        return total


def _cell(floor: Array) -> npt.NDArray[np.intp]:
    """Integers modulo the volume's size; exact below 2¹⁸ times the size."""
    return np.asarray(floor - _SIZE * np.floor(floor / _SIZE), dtype=np.intp)
