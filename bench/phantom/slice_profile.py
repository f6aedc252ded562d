"""What of a slice's thickness goes into its image, and by how much."""

from __future__ import annotations

from collections.abc import Iterator

from stenosis_trt.engine.geometry import SlicePose

_PROFILE = ((-0.42, 0.19), (-0.14, 0.31), (0.14, 0.31), (0.42, 0.19))
"""Depth in shares of the thickness, and weight: a selective pulse's profile, with its sloping flanks."""


def through_thickness(pose: SlicePose) -> Iterator[tuple[float, float]]:
    """Depths along the slice's normal in mm, and their weights, which add up to 1."""
    thickness = pose.thickness if pose.thickness is not None else 0.0
    return ((depth * thickness, weight) for depth, weight in _PROFILE)
