"""Where a slice lies in the patient.

Patient coordinates are DICOM's: LPS, millimetres (x to the patient's left, y to the back,
z to the head). Pixel coordinates are `(column, row)` with the centre of the first pixel at
`(0, 0)`. The mapping is equation C.7.6.2.1-1 of DICOM PS3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]
FloatArray = npt.NDArray[np.float64]
Orientation = Literal["sagittal", "coronal", "axial", "oblique"]

_PATIENT_AXES: tuple[Orientation, ...] = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class SlicePose:
    """Position, orientation and sampling of one image plane.

    Attributes:
        origin: centre of the first pixel, LPS, mm (ImagePositionPatient).
        row_direction: unit vector along increasing column index (ImageOrientationPatient[:3]).
        column_direction: unit vector along increasing row index (ImageOrientationPatient[3:]).
        row_spacing: mm between neighbouring rows (PixelSpacing[0]).
        column_spacing: mm between neighbouring columns (PixelSpacing[1]).
        rows, columns: image size in pixels.
        thickness: slice thickness in mm, or None where the header does not say.
    """

    origin: Vector
    row_direction: Vector
    column_direction: Vector
    row_spacing: float
    column_spacing: float
    rows: int
    columns: int
    thickness: float | None = None

    @cached_property
    def normal(self) -> FloatArray:
        """Unit normal, row direction × column direction, float64 (3,)."""
        (a, b, c), (d, e, f) = self.row_direction, self.column_direction
        # NumPy takes thirty times as long for three numbers, and every slice of a study is asked.
        cross = (b * f - c * e, c * d - a * f, a * e - b * d)
        return np.array(cross) / math.hypot(*cross)

    @cached_property
    def pixel_to_patient(self) -> FloatArray:
        """Homogeneous float64 (4, 4): `(column, row, mm along the normal, 1)` → `(x, y, z, 1)`."""
        matrix = np.eye(4)
        matrix[:3, 0] = np.asarray(self.row_direction) * self.column_spacing
        matrix[:3, 1] = np.asarray(self.column_direction) * self.row_spacing
        matrix[:3, 2] = self.normal
        matrix[:3, 3] = self.origin
        return matrix

    @cached_property
    def patient_to_pixel(self) -> FloatArray:
        """Inverse of `pixel_to_patient`, float64 (4, 4)."""
        return np.asarray(np.linalg.inv(self.pixel_to_patient), dtype=np.float64)

    @cached_property
    def centre(self) -> FloatArray:
        """Centre of the image, LPS, mm, float64 (3,)."""
        return self.to_patient(np.array([(self.columns - 1) / 2, (self.rows - 1) / 2]))

    @property
    def orientation(self) -> Orientation:
        """The patient plane nearest to this slice; "oblique" beyond 40° from each of them."""
        axis = int(np.argmax(np.abs(self.normal)))
        if abs(self.normal[axis]) < np.cos(np.deg2rad(40.0)):
            return "oblique"
        return _PATIENT_AXES[axis]

    def to_patient(self, pixels: npt.ArrayLike) -> FloatArray:
        """Pixel coordinates `(..., 2)` as (column, row) → patient points `(..., 3)` in mm."""
        points = np.asarray(pixels, dtype=np.float64)
        matrix = self.pixel_to_patient
        return np.asarray(points @ matrix[:3, :2].T + matrix[:3, 3], dtype=np.float64)

    def to_pixels(self, points: npt.ArrayLike) -> FloatArray:
        """Patient points `(..., 3)` in mm → `(..., 3)` as (column, row, mm off the plane)."""
        patient = np.asarray(points, dtype=np.float64)
        matrix = self.patient_to_pixel
        return np.asarray(patient @ matrix[:3, :3].T + matrix[:3, 3], dtype=np.float64)
