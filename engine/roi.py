"""Which part of a slice a network sees, and the way back from its pixels to the patient.

A network's input has canonical axes whatever way the scanner stored the slice: on sagittal planes x runs to
the back and y to the feet, on axial planes x runs to the patient's left and y to the back. The axes taken
are the image's own, whichever lie nearest, with their sign: nothing is rotated, so an affine only scales,
flips and swaps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import FloatArray, SlicePose
from stenosis_trt.engine.pack import InputSpec

_CANONICAL_AXES = {
    "sagittal": (np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])),
    "axial": (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])),
}


def canonical_directions(pose: SlicePose, plane: str) -> tuple[FloatArray, FloatArray]:
    """Unit vectors in the patient along the output's x and y, taken from the image's own axes."""
    row, column = np.asarray(pose.row_direction), np.asarray(pose.column_direction)
    wanted_x, wanted_y = _CANONICAL_AXES[plane]
    straight = abs(row @ wanted_x) + abs(column @ wanted_y)
    swapped = abs(column @ wanted_x) + abs(row @ wanted_y)
    along_x, along_y = (row, column) if straight >= swapped else (column, row)
    x = along_x if along_x @ wanted_x >= 0 else -along_x
    y = along_y if along_y @ wanted_y >= 0 else -along_y
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)


def slice_roi(pose: SlicePose, centre: npt.ArrayLike, spec: InputSpec) -> FloatArray:
    """Affine of a region around a patient point.

    Args:
        pose: the slice.
        centre: LPS, mm, (3,); its foot on the plane, moved by `spec.centre_offset_mm` along the output's
            axes, comes to lie at ((width − 1) / 2, (height − 1) / 2).
        spec: size and spacing of the network's input.

    Returns:
        float64 (2, 3): output pixel (x, y) → source pixel (column, row).
    """
    x, y = canonical_directions(pose, spec.plane)
    rotation = pose.patient_to_pixel[:2, :3]
    linear = np.stack([rotation @ x, rotation @ y], axis=1) * spec.spacing_mm
    # The image's axes are unit vectors of the plane; what is left beside the main entries is rounding.
    linear[np.abs(linear) < 1e-9 * np.abs(linear).max()] = 0.0
    moved = np.asarray(centre) + spec.centre_offset_mm[0] * x + spec.centre_offset_mm[1] * y
    middle = pose.to_pixels(moved)[:2]
    offset = middle - linear @ np.array([(spec.width - 1) / 2, (spec.height - 1) / 2])
    return np.column_stack([linear, offset])


def to_source(affine: FloatArray, xy: npt.ArrayLike) -> FloatArray:
    """Output pixels (..., 2) → source pixels (..., 2) as (column, row)."""
    return np.asarray(np.asarray(xy) @ affine[:, :2].T + affine[:, 2], dtype=np.float64)


def to_patient(pose: SlicePose, affine: FloatArray, xy: npt.ArrayLike) -> FloatArray:
    """Output pixels (..., 2) → patient points (..., 3), LPS, mm."""
    return pose.to_patient(to_source(affine, xy))


def heatmap_to_input(xy: npt.ArrayLike, stride: int) -> FloatArray:
    """Heatmap pixels → network input pixels; heatmap pixel h covers inputs stride·h to stride·(h + 1) − 1."""
    return np.asarray((np.asarray(xy, dtype=np.float64) + 0.5) * stride - 0.5)


def input_to_heatmap(xy: npt.ArrayLike, stride: int) -> FloatArray:
    """Inverse of `heatmap_to_input`."""
    return np.asarray((np.asarray(xy, dtype=np.float64) + 0.5) / stride - 0.5)
