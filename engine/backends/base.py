"""What every backend offers. The pipe knows nothing else of where it runs.

A study is loaded once. Then the levels are located, and with the regions that follow from them the grades and
the cord are asked for, one after the other, before either answer is waited for: on a GPU the one is computed
while the host describes the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """One network input to be cut.

    Attributes:
        slices: index of the source slice of each channel.
        affine: output pixel (x, y) → source pixel (column, row), float64 (2, 3), for every channel.
    """

    slices: tuple[int, ...]
    affine: FloatArray


@dataclass(frozen=True)
class Keypoints:
    """Peaks of the heatmaps of N inputs with K maps each.

    Attributes:
        points: LPS, mm, float64 (N, K, 3).
        confidence: height of each peak, float64 (N, K).
        support: what each map says of the places of all peaks, float64 (N, K, K): [n, k, j] is the height of
            map k at the peak of map j. None where it was not asked for.
    """

    points: FloatArray
    confidence: FloatArray
    support: FloatArray | None = None


@dataclass(frozen=True)
class Grades:
    """What the grader says of N inputs.

    Attributes:
        probabilities: float32 (N, classes).
        contrast: standard deviation of each input in its window, which runs from 0 to 1; float64 (N,).
    """

    probabilities: Float32Array
    contrast: FloatArray


@dataclass(frozen=True)
class Cords:
    """The cord on N slices: its four points, in the order of the pack, and what follows from them."""

    keypoints: Keypoints
    geometry: CordGeometry


class Pending(Protocol[_T_co]):
    """An answer that may still be computed."""

    def result(self) -> _T_co:
        """Wait for it. What went wrong with it is raised here at the latest."""
        ...


@dataclass(frozen=True)
class Ready(Generic[_T_co]):
    """An answer that is there."""

    value: _T_co

    def result(self) -> _T_co:
        """See `Pending.result`."""
        return self.value


class BackendStudy(Protocol):
    """A loaded study. Any number of regions may be asked for, also none.

    Its methods raise ModelOutputError where a model answers what no model may.
    """

    def locate(self, rois: Sequence[Roi]) -> Pending[Keypoints]:
        """What the model "levels" sees in regions of sagittal slices: one map a disc level."""
        ...

    def grade(self, rois: Sequence[Roi]) -> Pending[Grades]:
        """What the model "grader" makes of regions of sagittal slices."""
        ...

    def measure(self, rois: Sequence[Roi]) -> Pending[Cords]:
        """What the model "cord" sees in regions of axial slices, measured."""
        ...

    def close(self) -> None:
        """Give back what the study takes. Answers that were not waited for are lost."""
        ...


class ReadingSlot(Protocol):
    """Where the slices of one study lie."""

    def add_release_wait(self, wait: Callable[[], None]) -> None:
        """Have `wait` called before another study is read into it."""
        ...


class ReadingMemory(Protocol):
    """Memory that studies are read into.

    Attributes:
        array: all of it, uint8 (bytes,).
    """

    array: npt.NDArray[np.uint8]

    def offset_of(self, array: npt.NDArray[Any]) -> int | None:
        """First byte of an array in it; None where that lies elsewhere."""
        ...

    def slot_of(self, array: npt.NDArray[Any]) -> ReadingSlot | None:
        """The slot that an array lies in; None where it lies elsewhere."""
        ...


class Backend(Protocol):
    """Preprocessing, inference, decoding and measuring on one device. Only a backend holds state.

    Attributes:
        name: of the backend.
    """

    name: str

    @property
    def reading_bytes(self) -> int:
        """Size of the memory that each study is best read into, and that `set_reading_memory` is to be
        given; 0 where arrays of their own are as good."""
        ...

    def set_reading_memory(self, memory: ReadingMemory) -> None:
        """Studies are read into this memory from now on. It stays until the backend is closed."""
        ...

    def prefetch(self, study: LoadedStudy) -> None:
        """A study is going to be loaded next. May be called on another thread, while one is computed."""
        ...

    def load(self, study: LoadedStudy) -> BackendStudy:
        """Have a study's slices where they are computed on. One study is loaded at a time."""
        ...

    def record(self) -> dict[str, Any]:
        """What run.json keeps of how it computed."""
        ...

    def close(self) -> None:
        """Give back what the backend holds. It is not used afterwards."""
        ...
