"""Validation during training: rendered studies that are not trained on, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stenosis_trt.bench.statistics.confusion import GRADE_COUNT
from stenosis_trt.bench.statistics.kappa import quadratic_kappa
from stenosis_trt.engine.packs.crop import channel_slices, heatmap_to_input, slice_roi
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.export.training.rendering import NOT_SHOWN, OPERATED, FloatArray, RenderedStudy
from stenosis_trt.export.training.samples import (
    StudyStore,
    inside_image,
    is_searched,
    patient_to_region,
    sample_region,
)
from stenosis_trt.kernels.decoding import decode_keypoints
from stenosis_trt.kernels.reference import RegionSource, region_window

Float32 = npt.NDArray[np.float32]

_BATCH = 16
_VISIBLE_MM = 3.0
"""Largest distance of a slice from a level's mid-plane at which the level is evaluated."""


def _sample(images: Sequence[npt.NDArray[np.uint16]], affine: FloatArray, spec: InputSpec) -> Float32:
    sources = [RegionSource(image) for image in images]
    window = region_window(sources, affine, (spec.height, spec.width), spec.window_percentiles)
    return sample_region(images, affine, spec, window)


def _predict(network: nn.Module, inputs: Sequence[Float32]) -> npt.NDArray[np.float32]:
    device = next(network.parameters()).device
    outputs = []
    with torch.inference_mode():
        for first in range(0, len(inputs), _BATCH):
            batch = torch.from_numpy(np.stack(inputs[first : first + _BATCH])).to(device)
            outputs.append(network(batch).float().cpu().numpy())
    return np.concatenate(outputs)


def _iterate_studies(store: StudyStore) -> Iterator[RenderedStudy]:
    return (store[number] for number in range(len(store)))


def _distances(distance: FloatArray) -> dict[str, float]:
    """Median and 95th percentile of the distances in mm that are not NaN."""
    seen = distance[np.isfinite(distance)]
    return {"median_mm": float(np.median(seen)), "p95_mm": float(np.percentile(seen, 95))}


class KeypointValidation:
    """Distances in mm between predicted and true points in the image plane."""

    def __init__(self, store: StudyStore, spec: InputSpec, stride: int) -> None:
        self.spec, self.stride = spec, stride
        self.inputs: list[Float32] = []
        self.points: list[FloatArray] = []
        for study in _iterate_studies(store):
            if spec.plane == "sagittal":
                self._add_sagittal(study)
            else:
                self._add_axial(study)

    def _add_sagittal(self, study: RenderedStudy) -> None:
        levels = study.level_points
        middle = int(np.argmin(study.mid_plane_distance[:, : len(levels)].mean(axis=1)))
        pose = study.sagittal_poses[middle]
        centre = levels.mean(axis=0) if is_searched(pose, self.spec) else pose.centre
        affine = slice_roi(pose, centre, self.spec)
        points = np.concatenate([levels, study.landmark_points])
        xy = patient_to_region(affine, pose, points)
        size = np.array([self.spec.width, self.spec.height])
        near = (study.mid_plane_distance[middle] <= _VISIBLE_MM) & inside_image(pose, points)
        near &= ((xy >= 0) & (xy < size)).all(axis=1)
        self.inputs.append(_sample([study.sagittal[middle]], affine, self.spec))
        self.points.append(np.where(near[:, None], xy, np.nan))

    def _add_axial(self, study: RenderedStudy) -> None:
        for image, pose, points in zip(study.axial[:4], study.axial_poses, study.cord_points, strict=False):
            affine = slice_roi(pose, points.mean(axis=0), self.spec)
            self.inputs.append(_sample([image], affine, self.spec))
            self.points.append(patient_to_region(affine, pose, points))

    def __call__(self, network: nn.Module) -> dict[str, float]:
        probability = 1.0 / (1.0 + np.exp(-_predict(network, self.inputs)))
        decoded = decode_keypoints(probability)
        found = heatmap_to_input(decoded[..., :2], self.stride)
        distance = np.linalg.norm(found - np.stack(self.points), axis=-1) * self.spec.spacing_mm
        figures = {"confidence": float(np.median(decoded[..., 2]))}
        if self.spec.plane == "axial":
            figures |= _distances(distance)
            figures["ratio_error"] = self._ratio_error(found)
            return figures
        levels, landmarks = distance[:, : len(LEVELS)], distance[:, len(LEVELS) :]
        marks = _distances(landmarks)
        return figures | _distances(levels) | {f"landmarks_{name}": mark for name, mark in marks.items()}

    def _ratio_error(self, found: FloatArray) -> float:
        """Mean absolute error of AP ÷ transverse diameter; independent of the pixel spacing."""

        def ratio(points: FloatArray) -> FloatArray:
            ap = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1)
            return np.asarray(ap / np.linalg.norm(points[:, 2] - points[:, 3], axis=-1))

        return float(np.mean(np.abs(ratio(found) - ratio(np.stack(self.points)))))


class GraderValidation:
    """Accuracy and quadratic kappa over all levels, and the share of operated levels that are refused."""

    def __init__(self, store: StudyStore, spec: InputSpec) -> None:
        self.inputs: list[Float32] = []
        self.grades: list[int] = []
        for study in _iterate_studies(store):
            for level, grade in enumerate(study.grades):
                if grade == NOT_SHOWN:
                    continue
                nearest = int(np.argmin(study.mid_plane_distance[:, level]))
                slices = channel_slices(nearest, len(study.sagittal), spec)
                affine = slice_roi(study.sagittal_poses[nearest], study.level_points[level], spec)
                self.inputs.append(_sample([study.sagittal[k] for k in slices], affine, spec))
                self.grades.append(int(grade))

    def logits(self, network: nn.Module) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Logits float64 (levels, classes) and the true grade of every level."""
        return _predict(network, self.inputs).astype(np.float64), np.array(self.grades, dtype=np.int64)

    def __call__(self, network: nn.Module) -> dict[str, float]:
        logits, grades = self.logits(network)
        operated = grades == OPERATED
        refused = logits[:, GRADE_COUNT:].max(axis=1, initial=-np.inf) > logits[:, :GRADE_COUNT].max(axis=1)
        table = np.zeros((GRADE_COUNT, GRADE_COUNT))
        np.add.at(table, (grades[~operated], logits[~operated, :GRADE_COUNT].argmax(axis=1)), 1)
        accuracy = float(np.trace(table) / table.sum())
        figures = {"accuracy": accuracy, "kappa": quadratic_kappa(table)}
        figures["refused"] = float(refused[~operated].mean())
        if operated.any():
            figures["operated_refused"] = float(refused[operated].mean())
        return figures
