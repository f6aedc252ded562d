"""Base class of backends that preprocess, infer and decode in separate steps on the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from stenosis_trt.engine.backends.base import (
    Cords,
    Float32Array,
    Grades,
    Keypoints,
    Peaks,
    ReadingMemory,
    Ready,
    Roi,
)
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.packs.crop import crop_to_patient, heatmap_to_input
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy
from stenosis_trt.kernels.reference import cord_geometry, decode_peaks, input_contrast
from stenosis_trt.kernels.table import PEAKS


class StepwiseBackend(ABC):
    """A `Backend` with one overridable method per step."""

    name: str

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

    @abstractmethod
    def decode(self, heatmaps: Float32Array) -> Float32Array:
        """Heatmaps (N, K, h, w) → float32 (N, K, 3): x, y in heatmap pixels, confidence."""

    def decode_peaks(self, heatmaps: Float32Array) -> Float32Array:
        """Heatmaps (N, K, h, w) → float32 (N, K, PEAKS, 3): see `reference.decode_peaks`."""
        return decode_peaks(heatmaps)

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
    """See `BackendStudy`. Every result is computed when it is returned."""

    def __init__(self, backend: StepwiseBackend, study: LoadedStudy) -> None:
        self._backend, self._study = backend, study

    def locate(self, rois: Sequence[Roi]) -> Ready[Peaks]:
        """See `BackendStudy.locate`."""
        model, backend, slices = self._backend.pack.models["levels"], self._backend, self._study.sagittal
        if not rois:
            shape = (0, model.output_shape[0], PEAKS)
            return Ready(Peaks(np.zeros((*shape, 3)), np.zeros(shape)))
        heatmaps = backend.infer("levels", backend.preprocess(slices, rois, model.input))
        return Ready(patient_peaks(slices, rois, backend.decode_peaks(heatmaps), model.output.stride))

    def grade(self, rois: Sequence[Roi]) -> Ready[Grades]:
        """See `BackendStudy.grade`."""
        model = self._backend.pack.models["grader"]
        if not rois:
            return Ready(Grades(np.zeros((0, *model.output_shape), np.float32), np.zeros(0)))
        batch = self._backend.preprocess(self._study.sagittal, rois, model.input)
        return Ready(Grades(self._backend.infer("grader", batch), input_contrast(batch, model.input.std)))

    def measure(self, rois: Sequence[Roi]) -> Ready[Cords]:
        """See `BackendStudy.measure`."""
        model, backend, slices = self._backend.pack.models["cord"], self._backend, self._study.axial
        if not rois:
            maps = model.output_shape[0]
            keypoints = Keypoints(np.zeros((0, maps, 3)), np.zeros((0, maps)))
        else:
            heatmaps = backend.infer("cord", backend.preprocess(slices, rois, model.input))
            keypoints = patient_keypoints(slices, rois, backend.decode(heatmaps), model.output.stride)
        return Ready(Cords(keypoints, cord_geometry(keypoints.points)))

    def close(self) -> None:
        """See `BackendStudy.close`."""


def patient_keypoints(
    slices: Sequence[LoadedSlice], rois: Sequence[Roi], decoded: Float32Array, stride: int
) -> Keypoints:
    """Transform peaks (N, K, 3), as of `decode_keypoints`, to patient coordinates; see `_patient_points`."""
    points = _patient_points(slices, rois, decoded[..., :2], stride)
    return Keypoints(points, decoded[..., 2].astype(np.float64))


def patient_peaks(
    slices: Sequence[LoadedSlice], rois: Sequence[Roi], decoded: Float32Array, stride: int
) -> Peaks:
    """Transform peaks (N, K, P, 3), as of `decode_peaks`, to patient coordinates; see `_patient_points`."""
    points = _patient_points(slices, rois, decoded[..., :2], stride)
    return Peaks(points, decoded[..., 2].astype(np.float64))


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
