"""Affines between the pixels of a network's input, those of the slice it is cut from, and the patient.

Inputs have canonical axes, however the scanner stored the slice: on sagittal planes x points posterior and y
inferior, on axial planes x points to the patient's left and y posterior. They are the axes of the image that
lie nearest, with their sign, so an affine scales, flips and swaps, but never rotates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import FloatArray, SlicePose
from stenosis_trt.engine.packs.models import InputSpec

_CANONICAL_AXES = {
    "sagittal": (np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])),
    "axial": (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])),
}


def canonical_directions(poses: Sequence[SlicePose], plane: str) -> tuple[FloatArray, FloatArray]:
    """Unit vectors along x and y of the input in patient coordinates, each (N, 3)."""
    row = np.array([pose.row_direction for pose in poses])
    column = np.array([pose.column_direction for pose in poses])
    wanted_x, wanted_y = _CANONICAL_AXES[plane]
    straight = np.abs(row @ wanted_x) + np.abs(column @ wanted_y)
    swapped = np.abs(column @ wanted_x) + np.abs(row @ wanted_y)
    kept = (straight >= swapped)[:, None]
    along_x, along_y = np.where(kept, row, column), np.where(kept, column, row)
    x = np.where((along_x @ wanted_x >= 0)[:, None], along_x, -along_x)
    y = np.where((along_y @ wanted_y >= 0)[:, None], along_y, -along_y)
    return x, y


def channel_slices(nearest: int, slices: int, spec: InputSpec) -> tuple[int, ...]:
    """Return the index of the slice of each channel around the nearest slice, clamped to the stack."""
    if spec.channel_source == "slice":
        return (nearest,) * spec.channels
    half = spec.channels // 2
    return tuple(min(max(k, 0), slices - 1) for k in range(nearest - half, nearest + half + 1))


def slice_rois(poses: Sequence[SlicePose], centres: npt.ArrayLike, spec: InputSpec) -> FloatArray:
    """Compute the affines of N regions, each in its slice around its centre.

    Args:
        poses: N ≥ 1 slices.
        centres: patient points, LPS, mm, (N, 3). The projection of each to its slice, moved by
            `spec.centre_offset_mm`, maps to the input's centre ((width − 1) / 2, (height − 1) / 2).
        spec: size and spacing of the network's input.

    Returns:
        float64 (N, 2, 3): input pixel (x, y) → source pixel (column, row).
    """
    x, y = canonical_directions(poses, spec.plane)
    to_pixel = np.array([pose.patient_to_pixel[:2] for pose in poses])
    linear = to_pixel[:, :, :3] @ np.stack([x, y], axis=2) * spec.spacing_mm
    # The axes are those of the image: entries beside the main ones are rounding errors.
    largest = np.abs(linear).max(axis=(1, 2), keepdims=True)
    linear[np.abs(linear) < 1e-9 * largest] = 0.0
    moved = np.asarray(centres) + spec.centre_offset_mm[0] * x + spec.centre_offset_mm[1] * y
    middle = to_pixel[:, :, :3] @ moved[:, :, None] + to_pixel[:, :, 3:]
    offset = middle - linear @ np.array([[(spec.width - 1) / 2], [(spec.height - 1) / 2]])
    return np.concatenate([linear, offset], axis=2)


def slice_roi(pose: SlicePose, centre: npt.ArrayLike, spec: InputSpec) -> FloatArray:
    """Compute the affine of one region, float64 (2, 3); see `slice_rois`."""
    affine: FloatArray = slice_rois([pose], np.asarray(centre)[None], spec)[0]
    return affine


def crop_to_source(affine: FloatArray, xy: npt.ArrayLike) -> FloatArray:
    """Map input pixels (..., 2) to source pixels (..., 2) as (column, row)."""
    return np.asarray(np.asarray(xy) @ affine[:, :2].T + affine[:, 2], dtype=np.float64)


def crop_to_patient(pose: SlicePose, affine: FloatArray, xy: npt.ArrayLike) -> FloatArray:
    """Map input pixels (..., 2) to patient points (..., 3), LPS, mm."""
    return pose.to_patient(crop_to_source(affine, xy))


def heatmap_to_input(xy: npt.ArrayLike, stride: int) -> FloatArray:
    """Map heatmap pixels to input pixels; heatmap pixel h covers inputs stride·h to stride·(h + 1) − 1."""
    return np.asarray((np.asarray(xy, dtype=np.float64) + 0.5) * stride - 0.5)


def input_to_heatmap(xy: npt.ArrayLike, stride: int) -> FloatArray:
    """Inverse of `heatmap_to_input`."""
    return np.asarray((np.asarray(xy, dtype=np.float64) + 0.5) / stride - 0.5)
