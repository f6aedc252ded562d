"""Angle between the sagittal slices and the neck, from the cord on axial slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.engine.grading.cord import CordSlice
from stenosis_trt.engine.records import CordMeasurement, LoadedSlice

MAXIMUM_SAGITTAL_ANGLE_DEGREES = 12.0
"""Beyond this angle the sagittal slices are oblique to the neck; see docs/decisions/cord-angle.md."""

_MINIMUM_SLICES = 3
"""Axial slices from which the direction of the cord's transverse diameter is taken."""


def sagittal_angle_degrees(
    sagittal: Sequence[LoadedSlice], across: Sequence[CordSlice], cords: Sequence[CordMeasurement]
) -> float | None:
    """Return the angle between the normal of the sagittal slices and the transverse diameter of the cord.

    The diameter is projected on the plane across the cord, so that the tilt of an axial slice does not count.

    Args:
        sagittal: at least one slice.
        across, cords: the axial slices, and the cord on each. Those with warnings do not count.

    Returns:
        The median of the slices, 0 to 90; None if fewer than three count.
    """
    normal = sagittal[0].pose.normal
    cosines = []
    for one, cord in zip(across, cords, strict=True):
        if not cord.warnings:
            side = np.subtract(*cord.points[2:])
            side = side - (side @ one.direction) * one.direction
            # Left and right may be exchanged.
            cosines.append(float(np.abs(side @ normal) / np.linalg.norm(side)))
    if len(cosines) < _MINIMUM_SLICES:
        return None
    return float(np.degrees(np.arccos(min(float(np.median(cosines)), 1.0))))
