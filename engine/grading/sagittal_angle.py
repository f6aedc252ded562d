"""Angle between the sagittal slices and the neck, from the cord on axial slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.engine.records import CordMeasurement, LoadedSlice

MAXIMUM_SAGITTAL_ANGLE_DEGREES = 12.0
"""Angle from which on the sagittal slices are oblique to the neck; see docs/decisions/cord-angle.md."""

_MINIMUM_SLICES = 3
"""Axial slices from which the direction of the cord's transverse diameter is taken."""


def sagittal_angle_degrees(sagittal: Sequence[LoadedSlice], cords: Sequence[CordMeasurement]) -> float | None:
    """Return the angle between the normal of the sagittal slices and the cord from right to left.

    Args:
        sagittal: at least one slice.
        cords: the cord on the axial slices. Those with warnings do not count.

    Returns:
        0 to 90; None if fewer than three axial slices count.
    """
    across = np.array([np.subtract(*item.points[2:]) for item in cords if not item.warnings])
    if len(across) < _MINIMUM_SLICES:
        return None
    transverse = np.median(across / np.linalg.norm(across, axis=1, keepdims=True), axis=0)
    cosine = np.abs(transverse @ sagittal[0].pose.normal) / np.linalg.norm(transverse)
    return float(np.degrees(np.arccos(min(cosine, 1.0))))
