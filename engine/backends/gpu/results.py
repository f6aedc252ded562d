"""Convert the outputs of model stages to the results of `backends.base`, and check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stenosis_trt.engine.backends.base import Cords, Grades, Keypoints, Peaks
from stenosis_trt.engine.backends.model_checks import check_confidence, check_output
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.kernels.reference import CordGeometry
from stenosis_trt.kernels.table import PEAKS

BatchArrays = Mapping[str, list[Any]]
"""Arrays of all batches by the names of `PendingBatch.result`; empty if there was no input."""


def to_peaks(model: ModelSpec, found: BatchArrays) -> Peaks:
    """Convert the peaks of heatmaps.

    Raises:
        ModelOutputError: the value of a peak is invalid.
    """
    if not found:
        maps = model.output_shape[0]
        return Peaks(np.zeros((0, maps, PEAKS, 3)), np.zeros((0, maps, PEAKS)), np.zeros((0, maps, maps)))
    points = np.concatenate(found["points"])
    check_confidence(model, points["confidence"])
    support = np.concatenate(found["support"]).astype(np.float64)
    return Peaks(points["patient"].astype(np.float64), points["confidence"].astype(np.float64), support)


def to_grades(model: ModelSpec, found: BatchArrays) -> Grades:
    """Convert probabilities and contrast.

    Raises:
        ModelOutputError: the probabilities are invalid.
    """
    if not found:
        return Grades(np.zeros((0, *model.output_shape), np.float32), np.zeros(0))
    probabilities = np.concatenate(found["probabilities"]).astype(np.float32)
    check_output(model, len(probabilities), probabilities)
    return Grades(probabilities, np.concatenate(found["contrast"]).astype(np.float64))


def to_cords(model: ModelSpec, found: BatchArrays) -> Cords:
    """Convert cords that the device measured.

    Raises:
        ModelOutputError: the value of a peak is invalid.
    """
    if not found:
        maps, empty = model.output_shape[0], np.zeros(0)
        keypoints = Keypoints(np.zeros((0, maps, 3)), np.zeros((0, maps)))
        return Cords(keypoints, CordGeometry(empty, empty, empty, np.zeros(0, bool), empty))
    points = np.concatenate(found["points"])
    check_confidence(model, points["confidence"])
    keypoints = Keypoints(points["patient"].astype(np.float64), points["confidence"].astype(np.float64))
    cords = np.concatenate(found["cords"])
    geometry = CordGeometry(
        ap_mm=cords["ap_mm"].astype(np.float64),
        transverse_mm=cords["transverse_mm"].astype(np.float64),
        compression_ratio=cords["ratio"].astype(np.float64),
        crossing=cords["crossing"] != 0,
        angle_degrees=cords["angle_degrees"].astype(np.float64),
    )
    return Cords(keypoints, geometry)
