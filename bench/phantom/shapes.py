"""Painting outlines: points of one plane, and signed distances to simple shapes.

A distance is in mm and negative inside. Distances are of first order: exact on the outline, right in sign
everywhere, which is all that an edge one pixel wide needs.

Paint that covers nothing changes nothing. A structure is therefore evaluated only on the points near it
(`Canvas.on`); the bounds err on the safe side, so that the values are those of the whole plane.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]

_ROUNDING_MM = 0.02
"""Added to bounds, so that float32 arithmetic never leaves out a point that would be painted."""


class Canvas:
    """Points being painted: flat float32 arrays of one plane, and the softness of edges in mm."""

    def __init__(self, u: Array, v: Array, s: Array, edge: float) -> None:
        self.u, self.v, self.s, self.edge = u, v, s, edge
        self.signal: Array = np.zeros(u.shape, dtype=np.float32)

    @property
    def fade(self) -> float:
        """Distance in mm outside an outline from which on `inside` is 0."""
        return 0.5 * self.edge + _ROUNDING_MM

    def inside(self, distance: Array) -> Array:
        """Coverage in [0, 1] of points at a signed distance (mm, negative inside) from an outline."""
        coverage = np.subtract(0.5, distance / self.edge)
        np.maximum(coverage, 0.0, out=coverage)
        np.minimum(coverage, 1.0, out=coverage)
        return np.asarray(coverage, dtype=np.float32)

    def paint(self, coverage: Array, signal: Array | float) -> None:
        """Lay `signal` over what is there, as far as `coverage` goes."""
        change = np.asarray(signal, dtype=np.float32) - self.signal
        change *= coverage
        self.signal += change

    def subset(self, chosen: Mask) -> tuple[Canvas, Positions]:
        """A canvas of the chosen points only, and their positions, to write back with."""
        where = np.flatnonzero(chosen)
        part = Canvas(self.u.take(where), self.v.take(where), self.s.take(where), self.edge)
        part.signal = self.signal.take(where)
        return part, where

    def on(self, chosen: Mask, draw: Callable[[Canvas, Positions], None]) -> None:
        """Have `draw` paint a canvas of the chosen points, if any; it is given their positions too."""
        part, where = self.subset(chosen)
        if len(where):
            draw(part, where)
            self.signal[where] = part.signal


def ellipse(u: Array, v: Array, half_u: Array | float, half_v: Array | float) -> Array:
    """Signed distance to an ellipse, first order: exact on the outline, right in sign everywhere."""
    a, b = u / half_u, v / half_v
    radius = np.sqrt(a * a + b * b) + np.float32(1e-6)
    slope = np.sqrt((a / half_u) ** 2 + (b / half_v) ** 2) / radius + np.float32(1e-6)
    return np.asarray((radius - 1.0) / slope, dtype=np.float32)


def reach(half_u: float, half_v: float, beyond: float) -> tuple[float, float]:
    """Half axes of a box that holds every point whose `ellipse` distance is below `beyond` mm.

    The distance is at least (radius − 1) · the smaller half axis; radius is 1 on the outline.
    """
    grown = 1.0 + max(beyond, 0.0) / min(half_u, half_v)
    return half_u * grown + _ROUNDING_MM, half_v * grown + _ROUNDING_MM


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
