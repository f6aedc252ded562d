"""The angle between sagittal slices and the neck is that of the cord on axial slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_study import made_study

from stenosis_trt.engine.geometry import Vector
from stenosis_trt.engine.grading.sagittal_angle import sagittal_angle_degrees
from stenosis_trt.engine.records import CordMeasurement

SAGITTAL = made_study().sagittal


def cord(degrees: float, *warnings: str) -> CordMeasurement:
    """A cord that is turned about the axis from feet to head."""
    turn = np.radians(degrees)
    x, y = float(np.cos(turn)), float(np.sin(turn))
    points: tuple[Vector, Vector, Vector, Vector] = (
        (4 * y, -4 * x, 0.0),
        (-4 * y, 4 * x, 0.0),
        (6 * x, 6 * y, 0.0),
        (-6 * x, -6 * y, 0.0),
    )
    return CordMeasurement("1", points, 8.0, 12.0, 0.67, 0.9, warnings)


@pytest.mark.parametrize("degrees", [0.0, 7.0, -15.0, 40.0])
def test_the_angle_is_that_of_the_cord(degrees: float) -> None:
    assert sagittal_angle_degrees(SAGITTAL, [cord(degrees)] * 3) == pytest.approx(abs(degrees))


def test_slices_may_be_listed_from_either_side() -> None:
    mirrored = [
        replace(item, pose=replace(item.pose, row_direction=(0.0, -1.0, 0.0))) for item in reversed(SAGITTAL)
    ]
    assert sagittal_angle_degrees(mirrored, [cord(15.0)] * 3) == pytest.approx(15.0)


def test_the_angle_is_the_median_of_slices_without_warnings() -> None:
    cords = [cord(2.0), cord(3.0), cord(4.0), cord(3.0), cord(80.0), *[cord(60.0, "cord_low_confidence")] * 9]
    assert sagittal_angle_degrees(SAGITTAL, cords) == pytest.approx(3.0, abs=0.1)


def test_two_slices_are_too_few() -> None:
    assert sagittal_angle_degrees(SAGITTAL, [cord(30.0)] * 2) is None
    assert sagittal_angle_degrees(SAGITTAL, [*[cord(30.0)] * 2, cord(30.0, "slice_too_oblique")]) is None
