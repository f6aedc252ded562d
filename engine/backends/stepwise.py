"""Base class of backends that preprocess, infer and decode in separate steps on the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stenosis_trt.engine.backends.base import (
    Cords,
    Float32Array,
    Grades,
    Keypoints,
    ReadingMemory,
    Ready,
    Roi,
)
from stenosis_trt.engine.packs.crop import crop_to_patient, heatmap_to_input
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy
from stenosis_trt.kernels.reference import cord_geometry, input_contrast, keypoint_support


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
    """See `BackendStudy`. Every result is computed when it is returned."""

    def __init__(self, backend: StepwiseBackend, study: LoadedStudy) -> None:
        self._backend, self._study = backend, study

    def locate(self, rois: Sequence[Roi]) -> Ready[Keypoints]:
        """See `BackendStudy.locate`."""
        return Ready(self._keypoints("levels", self._study.sagittal, rois))

    def grade(self, rois: Sequence[Roi]) -> Ready[Grades]:
        """See `BackendStudy.grade`."""
        model = self._backend.pack.models["grader"]
        if not rois:
            return Ready(Grades(np.zeros((0, *model.output_shape), np.float32), np.zeros(0)))
        batch = self._backend.preprocess(self._study.sagittal, rois, model.input)
        return Ready(Grades(self._backend.infer("grader", batch), input_contrast(batch, model.input.std)))

    def measure(self, rois: Sequence[Roi]) -> Ready[Cords]:
        """See `BackendStudy.measure`."""
        keypoints = self._keypoints("cord", self._study.axial, rois)
        return Ready(Cords(keypoints, cord_geometry(keypoints.points)))

    def close(self) -> None:
        """See `BackendStudy.close`."""

    def _keypoints(self, name: str, slices: Sequence[LoadedSlice], rois: Sequence[Roi]) -> Keypoints:
        model, backend = self._backend.pack.models[name], self._backend
        if not rois:
            maps = model.output_shape[0]
            return Keypoints(np.zeros((0, maps, 3)), np.zeros((0, maps)))
        heatmaps = backend.infer(name, backend.preprocess(slices, rois, model.input))
        found = patient_keypoints(slices, rois, backend.decode(heatmaps), model.output.stride)
        if name != "levels":
            return found
        return replace(found, support=backend.support(heatmaps).astype(np.float64))


def patient_keypoints(
    slices: Sequence[LoadedSlice], rois: Sequence[Roi], decoded: Float32Array, stride: int
) -> Keypoints:
    """Transform peaks from heatmap pixels to patient coordinates.

    Args:
        slices: source slices; a region lies in the slice of its middle channel.
        rois: N regions.
        decoded: x, y in heatmap pixels and confidence, (N, K, 3).
        stride: input pixels per heatmap pixel.
    """
    xy = heatmap_to_input(decoded[..., :2], stride)
    points = [
        crop_to_patient(slices[roi.slices[len(roi.slices) // 2]].pose, roi.affine, xy[number])
        for number, roi in enumerate(rois)
    ]
    return Keypoints(np.stack(points), decoded[..., 2].astype(np.float64))
