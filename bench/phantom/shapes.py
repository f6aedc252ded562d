"""Signed distances to simple shapes, and a canvas of points on which structures are painted.

Distances are in mm and negative inside. They are first-order approximations: exact on the outline and of the
right sign everywhere, which suffices for an edge one pixel wide.

Each structure is evaluated only on the points near it (`Canvas.paint_on`). The bounds are conservative: the
result equals that of the whole plane.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]

_ROUNDING_MM = 0.02
"""Margin of bounds that covers the rounding of float32 arithmetic."""


class Canvas:
    """Points of one plane in canal coordinates and their signal, flat float32 (N,) each.

    `edge` is the width in mm over which outlines fade.
    """

    def __init__(self, u: Array, v: Array, s: Array, edge: float) -> None:
        self.u, self.v, self.s, self.edge = u, v, s, edge
        self.signal: Array = np.zeros(u.shape, dtype=np.float32)

    @property
    def fade(self) -> float:
        """Distance in mm outside an outline beyond which `coverage` is 0."""
        return 0.5 * self.edge + _ROUNDING_MM

    def coverage(self, distance: Array) -> Array:
        """Coverage in [0, 1] of points at a signed distance (mm, negative inside) from an outline."""
        coverage = np.subtract(0.5, distance / self.edge)
        np.maximum(coverage, 0.0, out=coverage)
        np.minimum(coverage, 1.0, out=coverage)
        return np.asarray(coverage, dtype=np.float32)

    def fill(self, distance: Array, signal: Array | float) -> None:
        """Paint `signal` inside an outline, given the signed distance to it."""
        self.paint(self.coverage(distance), signal)

    def paint(self, coverage: Array, signal: Array | float) -> None:
        """Blend `signal` over the present signal with weight `coverage`."""
        change = np.asarray(signal, dtype=np.float32) - self.signal
        change *= coverage
        self.signal += change

    def paint_on(self, chosen: Mask | Positions, draw: Callable[[Canvas, Positions], None]) -> None:
        """Call `draw` with a canvas of the chosen points and their positions, unless no point is chosen."""
        where: Positions = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.intp)
        if not len(where):
            return
        part = Canvas(self.u.take(where), self.v.take(where), self.s.take(where), self.edge)
        part.signal = self.signal.take(where)
        draw(part, where)
        self.signal[where] = part.signal


def ellipse(u: Array, v: Array, half_u: Array | float, half_v: Array | float) -> Array:
    """First-order signed distance to an ellipse around the origin."""
    a, b = u / half_u, v / half_v
    radius = np.sqrt(a * a + b * b) + np.float32(1e-6)
    slope = np.sqrt((a / half_u) ** 2 + (b / half_v) ** 2) / radius + np.float32(1e-6)
    return np.asarray((radius - 1.0) / slope, dtype=np.float32)


def bounding_box(half_u: float, half_v: float, beyond: float) -> tuple[float, float]:
    """Half axes of a box that contains every point whose `ellipse` distance is below `beyond` mm.

    The distance is at least (radius − 1) · the smaller half axis, where radius is 1 on the outline.
    """
    grown = 1.0 + max(beyond, 0.0) / min(half_u, half_v)
    return half_u * grown + _ROUNDING_MM, half_v * grown + _ROUNDING_MM


def ellipsoid(u: Array, v: Array, s: Array, radii: tuple[float, float, float]) -> Array:
    """First-order signed distance to an ellipsoid around the origin."""
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
    """Signed distance to the intersection of two outlines, its corner rounded with `radius` mm."""
    a, b = a + radius, b + radius
    outside = np.hypot(np.maximum(a, 0.0), np.maximum(b, 0.0))
    return np.asarray(np.minimum(np.maximum(a, b), 0.0) + outside - radius, dtype=np.float32)


def ramp(x: Array, start: float, length: float) -> Array:
    """Smooth step 3t² − 2t³ from 0 at `start` to 1 at `start + length`; `length` may be negative."""
    t = np.clip((x - start) / length, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)
