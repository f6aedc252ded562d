"""Painting outlines: points of one plane, and signed distances to simple shapes.

A distance is in mm and negative inside. Distances are of first order: exact on the outline, right in sign
everywhere, which is all that an edge one pixel wide needs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


class Canvas:
    """Points being painted: flat float32 arrays of one plane, and the softness of edges in mm."""

    def __init__(self, u: Array, v: Array, s: Array, edge: float) -> None:
        self.u, self.v, self.s, self.edge = u, v, s, edge
        self.signal: Array = np.zeros(u.shape, dtype=np.float32)

    def inside(self, distance: Array) -> Array:
        """Coverage in [0, 1] of points at a signed distance (mm, negative inside) from an outline."""
        return np.asarray(np.clip(0.5 - distance / self.edge, 0.0, 1.0), dtype=np.float32)

    def paint(self, coverage: Array, signal: Array | float) -> None:
        """Lay `signal` over what is there, as far as `coverage` goes."""
        self.signal += coverage * (np.asarray(signal, dtype=np.float32) - self.signal)

    def subset(self, chosen: npt.NDArray[np.bool_]) -> tuple[Canvas, npt.NDArray[np.intp]]:
        """A canvas of the chosen points only, and their positions, to write back with."""
        where = np.flatnonzero(chosen)
        part = Canvas(self.u[where], self.v[where], self.s[where], self.edge)
        part.signal = self.signal[where]
        return part, where


def ellipse(u: Array, v: Array, half_u: Array | float, half_v: Array | float) -> Array:
    """Signed distance to an ellipse, first order: exact on the outline, right in sign everywhere."""
    a, b = u / half_u, v / half_v
    radius = np.sqrt(a * a + b * b) + np.float32(1e-6)
    slope = np.sqrt((a / half_u) ** 2 + (b / half_v) ** 2) / radius + np.float32(1e-6)
    return np.asarray((radius - 1.0) / slope, dtype=np.float32)


def ellipsoid(u: Array, v: Array, s: Array, radii: tuple[float, float, float]) -> Array:
    """Signed distance to an ellipsoid, first order."""
    a, b, c = u / radii[0], v / radii[1], s / radii[2]
    radius = np.sqrt(a * a + b * b + c * c) + np.float32(1e-6)
    slope = np.sqrt((a / radii[0]) ** 2 + (b / radii[1]) ** 2 + (c / radii[2]) ** 2) / radius + np.float32(
        1e-6
    )
    return np.asarray((radius - 1.0) / slope, dtype=np.float32)


def box(x: Array, low: Array | float, high: Array | float) -> Array:
    """Signed distance to the interval [low, high]."""
    return np.asarray(np.maximum(low - x, x - high), dtype=np.float32)


def rounded(a: Array, b: Array, radius: float) -> Array:
    """Intersection of two outlines whose corner is rounded off with `radius` mm."""
    a, b = a + radius, b + radius
    outside = np.hypot(np.maximum(a, 0.0), np.maximum(b, 0.0))
    return np.asarray(np.minimum(np.maximum(a, b), 0.0) + outside - radius, dtype=np.float32)


def ramp(x: Array, start: float, length: float) -> Array:
    """3t² − 2t³: from 0 at `start` to 1 at `start + length` without a corner; a negative length falls."""
    t = np.clip((x - start) / length, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)
