"""Diameters across the cord, from four points on an axial slice that may be oblique to it.

A slice that is tilted by 25° against the cord shows its anteroposterior diameter 10 % too long. Spinal Cord
Toolbox, whose norms and whose MSCC are used here, measures across the cord (`sct_process_segmentation`, angle
correction), so what is compared with them is measured across the cord too.
"""

from __future__ import annotations

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
    """Project the diameters of a measurement on the plane across the cord.

    Args:
        line: line of the canal; its direction is taken for that of the cord.
        arc_length_mm: where the slice crosses the line.
        cord: a measurement without warnings, so its diameters cross and are nearly orthogonal.
    """
    direction = _direction(line, arc_length_mm)
    anterior, posterior, left, right = np.asarray(cord.points)
    ap, transverse = anterior - posterior, left - right
    normal = np.cross(ap, transverse)
    cosine = abs(float(normal @ direction)) / float(np.linalg.norm(normal))
    return CrossSection(
        ap_mm=_length_across(ap, direction),
        transverse_mm=_length_across(transverse, direction),
        tilt_degrees=float(np.degrees(np.arccos(min(cosine, 1.0)))),
    )


def _direction(line: CanalLine, arc_length_mm: float) -> FloatArray:
    """Return the unit tangent of the line, interpolated between its points, so that it bends smoothly."""
    tangents = np.gradient(line.points, line.arc_length_mm, axis=0)
    tangent = np.array([np.interp(arc_length_mm, line.arc_length_mm, part) for part in tangents.T])
    return np.asarray(tangent / np.linalg.norm(tangent))


def _length_across(diameter: FloatArray, direction: FloatArray) -> float:
    return float(np.linalg.norm(diameter - (diameter @ direction) * direction))
