"""Base class of backends that preprocess, infer and decode in separate steps on the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from stenosis_trt.engine.backends.base import (
    Cords,
    Float32Array,
    Grades,
    Keypoints,
    Peaks,
    Pending,
    ReadingMemory,
    Ready,
    Roi,
)
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.packs.crop import crop_to_patient, heatmap_to_input
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy
from stenosis_trt.kernels.decoding import decode_peaks, keypoint_support
from stenosis_trt.kernels.reference import cord_geometry, input_contrast
from stenosis_trt.kernels.table import PEAKS

_T = TypeVar("_T")


@dataclass(frozen=True)
class Inference:
    """How the inputs of one request are run.

    Attributes:
        part: largest number of inputs of a call.
        submit: starts to run the model on (N, C, H, W), 1 ≤ N ≤ part. The array must not change until the
            result is there. Waiting for it raises ModelOutputError where the output is invalid.
    """

    part: int
    submit: Callable[[Float32Array], Pending[Float32Array]]


class StepwiseBackend(ABC):
    """A `Backend` with one overridable method per step."""

    name: str

    locates_in_parts = True
    """See `Backend`."""

    reading_bytes = 0
    """See `Backend.reading_bytes`."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack

    @abstractmethod
    def preprocess(self, slices: Sequence[LoadedSlice], rois: Sequence[Roi], spec: InputSpec) -> Float32Array:
        """Window, resample and normalise regions: float32 (len(rois), C, H, W)."""

    @abstractmethod
    def infer(self, model: str, batch: Float32Array) -> Float32Array:
        """Run "levels", "grader" or "cord" on (N, C, H, W), N ≥ 1.

        Returns heatmaps (N, K, h, w) in [0, 1] or probabilities (N, classes), float32.

        Raises:
            ModelOutputError: the output is invalid.
        """

    def inference(self, model: str, count: int) -> Inference:
        """How `count` inputs of a request are run: by default all at once, when they are submitted."""
        return Inference(count, lambda batch: Ready(self.infer(model, batch)))

    @abstractmethod
    def decode(self, heatmaps: Float32Array) -> Float32Array:
        """Heatmaps (N, K, h, w) → float32 (N, K, 3): x, y in heatmap pixels, confidence."""

    def decode_peaks(self, heatmaps: Float32Array) -> Float32Array:
        """Heatmaps (N, K, h, w) → float32 (N, K, PEAKS, 3): see `decoding.decode_peaks`."""
        return decode_peaks(heatmaps)

    def support(self, heatmaps: Float32Array) -> Float32Array:
        """Heatmaps (N, K, h, w) → float32 (N, K, K): see `keypoint_support`."""
        return keypoint_support(heatmaps)

    @abstractmethod
    def close(self) -> None:
        """See `Backend.close`."""

    def set_reading_memory(self, memory: ReadingMemory) -> None:  # noqa: B027 - nothing is to be done on a CPU
        """See `Backend.set_reading_memory`."""

    def prefetch(self, study: LoadedStudy) -> None:  # noqa: B027 - likewise
        """See `Backend.prefetch`."""

    def record(self) -> dict[str, Any]:
        """See `Backend.record`."""
        return {}

    def load(self, study: LoadedStudy) -> StepwiseStudy:
        """See `Backend.load`."""
        return StepwiseStudy(self, study)


class StepwiseStudy:
    """See `BackendStudy`. Inputs are preprocessed when they are requested, and outputs are decoded when a
    result is waited for; what runs between them is for the backend to say."""

    def __init__(self, backend: StepwiseBackend, study: LoadedStudy) -> None:
        self._backend, self._study = backend, study

    def locate(self, rois: Sequence[Roi]) -> Pending[Peaks]:
        """See `BackendStudy.locate`."""
        model, backend, slices = self._backend.pack.models["levels"], self._backend, self._study.sagittal
        if not rois:
            maps = model.output_shape[0]
            none = Peaks(np.zeros((0, maps, PEAKS, 3)), np.zeros((0, maps, PEAKS)), np.zeros((0, maps, maps)))
            return Ready(none)
        running = [output for _, output in self._parts("levels", slices, rois)]

        def peaks() -> Peaks:
            heatmaps = [output.result() for output in running]
            decoded = np.concatenate([backend.decode_peaks(maps) for maps in heatmaps])
            support = np.concatenate([backend.support(maps) for maps in heatmaps])
            return patient_peaks(slices, rois, decoded, support, model.output.stride)

        return _Deferred(peaks)

    def grade(self, rois: Sequence[Roi]) -> Pending[Grades]:
        """See `BackendStudy.grade`."""
        model = self._backend.pack.models["grader"]
        if not rois:
            return Ready(Grades(np.zeros((0, *model.output_shape), np.float32), np.zeros(0)))
        contrast = []
        running = []
        for batch, output in self._parts("grader", self._study.sagittal, rois):
            contrast.append(input_contrast(batch, model.input.std))
            running.append(output)
        return _Deferred(
            lambda: Grades(np.concatenate([output.result() for output in running]), np.concatenate(contrast))
        )

    def measure(self, rois: Sequence[Roi]) -> Pending[Cords]:
        """See `BackendStudy.measure`."""
        model, backend, slices = self._backend.pack.models["cord"], self._backend, self._study.axial
        if not rois:
            maps = model.output_shape[0]
            none = Keypoints(np.zeros((0, maps, 3)), np.zeros((0, maps)))
            return Ready(Cords(none, cord_geometry(none.points, np.zeros((0, 3)))))
        running = [output for _, output in self._parts("cord", slices, rois)]

        def cords() -> Cords:
            decoded = np.concatenate([backend.decode(output.result()) for output in running])
            found = patient_keypoints(slices, rois, decoded, model.output.stride)
            return Cords(found, cord_geometry(found.points, np.stack([roi.direction for roi in rois])))

        return _Deferred(cords)

    def close(self) -> None:
        """See `BackendStudy.close`."""

    def _parts(
        self, name: str, slices: Sequence[LoadedSlice], rois: Sequence[Roi]
    ) -> Iterator[tuple[Float32Array, Pending[Float32Array]]]:
        """Yield the preprocessed inputs of each part with its output, which may still be computed."""
        backend = self._backend
        inference = backend.inference(name, len(rois))
        for first in range(0, len(rois), inference.part):
            part = rois[first : first + inference.part]
            batch = backend.preprocess(slices, part, backend.pack.models[name].input)
            yield batch, inference.submit(batch)


class _Deferred(Generic[_T]):
    """A result that is computed by a function when it is first waited for."""

    def __init__(self, compute: Callable[[], _T]) -> None:
        self._compute = compute
        self._value: _T | None = None

    def result(self) -> _T:
        """See `Pending.result`."""
        if self._value is None:
            self._value = self._compute()
        return self._value


def patient_keypoints(
    slices: Sequence[LoadedSlice], rois: Sequence[Roi], decoded: Float32Array, stride: int
) -> Keypoints:
    """Transform peaks (N, K, 3), as of `decode_keypoints`, to patient coordinates; see `_patient_points`."""
    points = _patient_points(slices, rois, decoded[..., :2], stride)
    return Keypoints(points, decoded[..., 2].astype(np.float64))


def patient_peaks(
    slices: Sequence[LoadedSlice],
    rois: Sequence[Roi],
    decoded: Float32Array,
    support: Float32Array,
    stride: int,
) -> Peaks:
    """Transform peaks (N, K, P, 3), as of `decode_peaks`, to patient coordinates; see `_patient_points`.

    `support` is (N, K, K), as of `keypoint_support`.
    """
    points = _patient_points(slices, rois, decoded[..., :2], stride)
    return Peaks(points, decoded[..., 2].astype(np.float64), support.astype(np.float64))


def _patient_points(
    slices: Sequence[LoadedSlice], rois: Sequence[Roi], pixels: Float32Array, stride: int
) -> FloatArray:
    """Transform heatmap pixels to patient coordinates.

    Args:
        slices: source slices; a region lies in the slice of its middle channel.
        rois: N regions.
        pixels: x, y in heatmap pixels, (N, ..., 2).
        stride: input pixels per heatmap pixel.

    Returns:
        LPS, mm, float64 (N, ..., 3).
    """
    xy = heatmap_to_input(pixels, stride)
    points = [
        crop_to_patient(slices[roi.slices[len(roi.slices) // 2]].pose, roi.affine, xy[number])
        for number, roi in enumerate(rois)
    ]
    return np.stack(points)
