"""Landmarks that tell the levels apart, besides the levels themselves."""

from __future__ import annotations

from stenosis_trt.bench.phantom.painting.tissue_traits import DENS_APEX_MM
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.engine.geometry import Vector

_DENS_BASE_MM = 16.0
"""Distance of the base of the dens above disc C2/3 along the canal, for a patient of scale 1."""

_DENS_AXIS_MM = 7.0
"""Distance of the axis of the dens in front of the canal."""


def painted_landmarks(anatomy: Anatomy) -> dict[str, Vector]:
    """Landmarks of a painted spine, LPS, mm: where `tissue` paints discs and dens."""
    apex = float(anatomy.discs[0] - DENS_APEX_MM * anatomy.scale)
    front = -float(anatomy.canal_ap[anatomy.curve.index(apex)]) / 2 - _DENS_AXIS_MM
    x, y, z = anatomy.curve.to_patient(0.0, front, apex)
    return {
        "T1/2": anatomy.wall_point(float(anatomy.discs[6])),
        "T2/3": anatomy.wall_point(float(anatomy.discs[7])),
        "C2": anatomy.wall_point(float(anatomy.discs[0] - _DENS_BASE_MM * anatomy.scale)),
        "dens": (float(x), float(y), float(z)),
    }
