"""Slice profile: weights of the signal through a slice's thickness."""

from __future__ import annotations

from collections.abc import Iterator

from stenosis_trt.engine.geometry import SlicePose

_PROFILE = ((-0.42, 0.19), (-0.14, 0.31), (0.14, 0.31), (0.42, 0.19))
"""(depth as a share of the thickness, weight): the profile of a selective pulse with sloping flanks."""


def through_thickness(pose: SlicePose) -> Iterator[tuple[float, float]]:
    """Yield (depth in mm along the slice's normal, weight); the weights add up to 1."""
    thickness = pose.thickness if pose.thickness is not None else 0.0
    return ((depth * thickness, weight) for depth, weight in _PROFILE)
