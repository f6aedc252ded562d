"""Interface of a backend, the only part of it that the pipeline knows.

A study is loaded once. The levels are located first; grades and cord are then requested with regions derived
from the levels, before waiting for either result, so that a GPU computes one while the host prepares the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.kernels.reference import CordGeometry

Float32Array = npt.NDArray[np.float32]

_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True)
class Roi:
    """Region of interest: one network input to be resampled.

    Attributes:
        slices: index of the source slice of each channel.
        affine: output pixel (x, y) → source pixel (column, row), float64 (2, 3), for every channel.
        direction: unit vector along the cord, LPS, float64 (3,), across which the cord is measured; zero
            measures it in the slice. Only `BackendStudy.measure` uses it.
    """

    slices: tuple[int, ...]
    affine: FloatArray
    direction: FloatArray = field(default_factory=lambda: np.zeros(3))


@dataclass(frozen=True)
class Keypoints:
    """The highest peak of each heatmap, for N inputs with K maps each.

    Attributes:
        points: LPS, mm, float64 (N, K, 3).
        confidence: height of each peak, float64 (N, K).
    """

    points: FloatArray
    confidence: FloatArray


@dataclass(frozen=True)
class Peaks:
    """The P highest peaks of each heatmap, for N inputs with K maps each.

    Attributes:
        points: LPS, mm, float64 (N, K, P, 3).
        heights: float64 (N, K, P), descending; 0 where a map has no further peak.
        support: height of each map at the highest peaks of all maps, float64 (N, K, K): [n, k, j] is the
            height of map k at the highest peak of map j.
    """

    points: FloatArray
    heights: FloatArray
    support: FloatArray


@dataclass(frozen=True)
class Grades:
    """Output of the grader for N inputs.

    Attributes:
        probabilities: float32 (N, classes).
        contrast: standard deviation of each input in units of its window (0 to 1), float64 (N,).
    """

    probabilities: Float32Array
    contrast: FloatArray


@dataclass(frozen=True)
class Cords:
    """The cord on N slices: its four points, in the order of the pack, and the measurements."""

    keypoints: Keypoints
    geometry: CordGeometry


class Pending(Protocol[_T_co]):
    """A result that may still be computed."""

    def result(self) -> _T_co:
        """Wait for the result. Errors of its computation are raised here at the latest."""
        ...


@dataclass(frozen=True)
class Ready(Generic[_T_co]):
    """A result that is already computed."""

    value: _T_co

    def result(self) -> _T_co:
        """See `Pending.result`."""
        return self.value


class BackendStudy(Protocol):
    """A loaded study. Its methods take any number of regions, including none.

    They raise ModelOutputError if the output of a model is invalid.
    """

    def locate(self, rois: Sequence[Roi]) -> Pending[Peaks]:
        """Run the model "levels" on regions of sagittal slices: the peaks of one heatmap per disc level."""
        ...

    def grade(self, rois: Sequence[Roi]) -> Pending[Grades]:
        """Run the model "grader" on regions of sagittal slices."""
        ...

    def measure(self, rois: Sequence[Roi]) -> Pending[Cords]:
        """Run the model "cord" on regions of axial slices and measure the cord across its direction."""
        ...

    def close(self) -> None:
        """Release the resources of the study. Results that were not waited for are lost."""
        ...


class ReadingSlot(Protocol):
    """A part of the reading memory that holds the slices of one study."""

    def add_release_wait(self, wait: Callable[[], None]) -> None:
        """Call `wait` before another study is read into the slot."""
        ...


class ReadingMemory(Protocol):
    """Memory that studies are decoded into.

    Attributes:
        array: the whole memory, uint8 (bytes,).
    """

    array: npt.NDArray[np.uint8]

    def offset_of(self, array: npt.NDArray[Any]) -> int | None:
        """Offset of an array in the memory, in bytes; None if it lies outside."""
        ...

    def slot_of(self, array: npt.NDArray[Any]) -> ReadingSlot | None:
        """Slot that an array lies in; None if it lies outside."""
        ...


class Backend(Protocol):
    """Preprocessing, inference, decoding and measurement on one device.

    Attributes:
        name: name of the backend.
        locates_in_parts: True if `BackendStudy.locate` takes time for each slice, as on a CPU, so that calls
            with a few slices each may save time over one with the whole stack.
    """

    name: str
    locates_in_parts: bool

    @property
    def reading_bytes(self) -> int:
        """Bytes of reading memory per study for `set_reading_memory`; 0 if the backend does not use it."""
        ...

    def set_reading_memory(self, memory: ReadingMemory) -> None:
        """Announce the memory that studies are decoded into. It must outlive the backend."""
        ...

    def prefetch(self, study: LoadedStudy) -> None:
        """Announce the study that is loaded next. May be called from another thread."""
        ...

    def load(self, study: LoadedStudy) -> BackendStudy:
        """Make the slices of a study available to the device. One study is loaded at a time."""
        ...

    def record(self) -> dict[str, Any]:
        """Record of how it computed, for run.json."""
        ...

    def close(self) -> None:
        """Release all resources. The backend cannot be used afterwards."""
        ...
