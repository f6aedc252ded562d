"""What every backend offers. The pipe knows nothing else of where it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.pack import InputSpec
from stenosis_trt.engine.records import LoadedSlice

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Roi:
    """One network input to be cut.

    Attributes:
        slices: index of the source slice of each channel.
        affine: output pixel (x, y) → source pixel (column, row), float64 (2, 3), for every channel.
    """

    slices: tuple[int, ...]
    affine: FloatArray


class Backend(Protocol):
    """Preprocessing, inference and heatmap decoding on one device. Only a backend holds state."""

    name: str

    def preprocess(self, slices: Sequence[LoadedSlice], rois: Sequence[Roi], spec: InputSpec) -> Float32Array:
        """Cut, window, resample and normalise: float32 (len(rois), C, H, W)."""
        ...

    def infer(self, model: str, batch: Float32Array) -> Float32Array:
        """Run "levels", "grader" or "cord" on (N, C, H, W).

        Returns heatmaps (N, K, h, w) in [0, 1] or probabilities (N, classes), float32; anything else that a
        model gives is a PackError.
        """
        ...

    def decode(self, heatmaps: Float32Array) -> Float32Array:
        """Heatmaps (N, K, h, w) → float32 (N, K, 3): x, y in heatmap pixels, confidence."""
        ...

    def close(self) -> None:
        """Give back what the backend holds. It is not used afterwards."""
        ...
