"""Diameters across the cord, from four points on an axial slice that may be oblique to it.

A slice that is tilted by 25° against the cord shows its anteroposterior diameter 10 % too long. Spinal Cord
Toolbox, whose norms and whose MSCC are used here, measures across the cord (`sct_process_segmentation`, angle
correction), so what is compared with them is measured across the cord too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.grading.cord import CanalLine
from stenosis_trt.engine.records import CordMeasurement


@dataclass(frozen=True)
class CrossSection:
    """The cord in the plane across it.

    Attributes:
        ap_mm, transverse_mm: diameters.
        tilt_degrees: angle between the slice and that plane.
    """

    ap_mm: float
    transverse_mm: float
    tilt_degrees: float

    @property
    def compression_ratio(self) -> float:
        """ap_mm / transverse_mm."""
        return self.ap_mm / self.transverse_mm


def cross_section(line: CanalLine, arc_length_mm: float, cord: CordMeasurement) -> CrossSection:
    """Project the diameters of a measurement on the plane across the cord; see `cross_sections`."""
    return cross_sections(line, [arc_length_mm], [cord])[0]


def cross_sections(
    line: CanalLine, arc_lengths_mm: Sequence[float], cords: Sequence[CordMeasurement]
) -> list[CrossSection]:
    """Project the diameters of measurements on the plane across the cord.

    Args:
        line: line of the canal; its direction is taken for that of the cord.
        arc_lengths_mm: where the slice of each measurement crosses the line.
        cords: measurements without warnings, so their diameters cross and are nearly orthogonal.
    """
    if not cords:
        return []
    directions = _directions(line, arc_lengths_mm)
    anterior, posterior, left, right = np.array([cord.points for cord in cords]).transpose(1, 0, 2)
    ap, transverse = anterior - posterior, left - right
    normals = np.cross(ap, transverse)
    cosines = np.abs((normals * directions).sum(axis=1)) / np.linalg.norm(normals, axis=1)
    tilts = np.degrees(np.arccos(np.minimum(cosines, 1.0)))
    lengths = zip(
        _lengths_across(ap, directions), _lengths_across(transverse, directions), tilts, strict=True
    )
    return [CrossSection(float(depth), float(width), float(tilt)) for depth, width, tilt in lengths]


def _directions(line: CanalLine, arc_lengths_mm: Sequence[float]) -> FloatArray:
    """Return unit tangents of the line (N, 3), interpolated between its points, so that it bends smoothly."""
    tangents = np.gradient(line.points, line.arc_length_mm, axis=0)
    found = np.column_stack([np.interp(arc_lengths_mm, line.arc_length_mm, part) for part in tangents.T])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def _lengths_across(diameters: FloatArray, directions: FloatArray) -> FloatArray:
    """Return the lengths of vectors (N, 3) projected on the planes orthogonal to unit vectors (N, 3)."""
    along = (diameters * directions).sum(axis=1, keepdims=True)
    return np.asarray(np.linalg.norm(diameters - along * directions, axis=1))
