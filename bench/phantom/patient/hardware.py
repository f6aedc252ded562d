"""Geometry of plates, screws and cages in canal coordinates, and the levels that they hide."""

from __future__ import annotations

import numpy as np

from stenosis_trt.bench.phantom.patient.findings import Findings
from stenosis_trt.bench.phantom.shapes import Array
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.records import LEVELS

BODY_DEPTH_MM = 16.5
"""From the canal's front wall to the front of a vertebral body, for an adult of scale 1."""
_PLATE_MM = 1.4
"""Half the thickness of a plate."""
_SCREW_RADIUS_MM = 1.9
_SCREW_MM = 13.0
_CAGE = (6.0, 3.0)
"""Half depth and half height of a cage, mm."""
_HIDDEN_SHARE = 0.05
"""Share of the sac within 3 mm of a disc that a signal void covers, from which on the level is hidden."""


class Implant:
    """The metal of one patient.

    Attributes:
        void: mm by which the signal void reaches beyond it.
    """

    def __init__(
        self, findings: Findings, s: FloatArray, discs: FloatArray, canal_ap: FloatArray, scale: float
    ) -> None:
        if findings.hardware is None:
            raise ValueError("These findings have no hardware. Draw them with metal.")
        self.hardware, self.void = findings.hardware, findings.hardware.void
        self._s, self._wall = s.astype(np.float32), (-canal_ap / 2 - 1.0).astype(np.float32)
        self._depth, self._scale = BODY_DEPTH_MM * scale, scale
        self._cages = tuple(float(discs[k]) for k in findings.fused)
        places = np.arange(findings.fused[0], findings.fused[-1] + 2) - 0.5
        # The outer screws stand a little towards the fused discs, as plates end within the bodies.
        places[0], places[-1] = places[0] + 0.08, places[-1] - 0.08
        self._screws = tuple(float(x) for x in np.interp(places, np.arange(len(discs)), discs))

    def distance(self, u: Array, v: Array, s: Array) -> Array:
        """Signed distance in mm from the metal, negative inside, float32 (N,)."""
        wall = np.interp(s, self._s, self._wall).astype(np.float32)
        from_front = v - wall + np.float32(self._depth)
        parts = self._plate(u, from_front, s) if self.hardware.plate else self._cage(u, from_front, s)
        return np.asarray(np.minimum.reduce(parts), dtype=np.float32)

    def _plate(self, u: Array, from_front: Array, s: Array) -> list[Array]:
        """A plate before the bodies, with two screws in each."""
        first, last = self._screws[0] - 3.5, self._screws[-1] + 3.5
        plate = _block(
            (u, self.hardware.width),
            (from_front + _PLATE_MM + 0.3, _PLATE_MM),
            (s - (first + last) / 2, (last - first) / 2),
        )
        away = np.abs(u)
        length = np.clip(from_front, 0.0, _SCREW_MM * self._scale)
        # Screws converge towards the mid-line.
        across = away - self.hardware.screw_u + 0.12 * length
        screws = [
            np.sqrt(across**2 + (from_front - length) ** 2 + (s - place) ** 2) - _SCREW_RADIUS_MM
            for place in self._screws
        ]
        return [plate, *screws]

    def _cage(self, u: Array, from_front: Array, s: Array) -> list[Array]:
        middle = from_front - np.float32(self._depth / 2)
        return [
            _block((u, self.hardware.width), (middle, _CAGE[0] * self._scale), (s - place, _CAGE[1]))
            for place in self._cages
        ]


def _block(*axes: tuple[Array, float]) -> Array:
    """Signed distance to a block, given the offset from its centre and its half size along each axis."""
    beyond = np.stack([np.abs(offset) - half for offset, half in axes])
    outside = np.sqrt((np.maximum(beyond, 0.0) ** 2).sum(axis=0))
    return np.asarray(outside + np.minimum(beyond.max(axis=0), 0.0))


def operated_levels(
    findings: Findings,
    s: FloatArray,
    discs: FloatArray,
    canal_ap: FloatArray,
    sac_ap: FloatArray,
    sac_transverse: FloatArray,
    scale: float,
) -> tuple[bool, ...]:
    """For each of the six levels, True if there is metal or its signal void covers the sac at the disc.

    Arguments are those of the anatomy.
    """
    if findings.hardware is None:
        return (False,) * len(LEVELS)
    implant = Implant(findings, s, discs, canal_ap, scale)
    across, along = np.linspace(-1.0, 1.0, 21), np.linspace(-3.0, 3.0, 7)
    u, v, away = (axis.ravel() for axis in np.meshgrid(across, across, along, indexing="ij"))
    inside = u * u + v * v <= 1.0
    hidden = []
    for level in range(len(LEVELS)):
        row = int(np.argmin(np.abs(s - discs[level])))
        points = (u * sac_transverse[row] / 2, v * sac_ap[row] / 2, discs[level] + away)
        covered = implant.distance(*(axis[inside].astype(np.float32) for axis in points)) < implant.void
        hidden.append(level in findings.fused or float(covered.mean()) > _HIDDEN_SHARE)
    return tuple(hidden)
