"""The angle between sagittal slices and the neck is that of the cord on axial slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_study import made_study

from stenosis_trt.engine.geometry import Vector
from stenosis_trt.engine.grading.cord import CordSlice
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


def angle(cords: list[CordMeasurement], direction: Vector = (0.0, 0.0, -1.0)) -> float | None:
    across = [CordSlice(k, np.zeros(3), 0.0, np.array(direction)) for k in range(len(cords))]
    return sagittal_angle_degrees(SAGITTAL, across, cords)


@pytest.mark.parametrize("degrees", [0.0, 7.0, -15.0, 40.0])
def test_the_angle_is_that_of_the_cord(degrees: float) -> None:
    assert angle([cord(degrees)] * 3) == pytest.approx(abs(degrees), abs=1e-4)


def test_left_and_right_may_be_exchanged() -> None:
    assert angle([cord(15.0), cord(195.0)] * 2) == pytest.approx(15.0)


def test_the_tilt_of_an_axial_slice_does_not_count() -> None:
    tilt = np.radians(15.0)
    tilted = replace(
        cord(0.0),
        points=(
            (0.0, -4.0, 0.0),
            (0.0, 4.0, 0.0),
            (6.0, 0.0, 6.0 * float(np.tan(tilt))),
            (-6.0, 0.0, -6.0 * float(np.tan(tilt))),
        ),
    )
    assert angle([tilted] * 3) == pytest.approx(0.0, abs=1e-4)
    # If the cord itself is tilted, so is the neck against the sagittal slices.
    across_slice = (float(np.sin(tilt)), 0.0, -float(np.cos(tilt)))
    assert angle([tilted] * 3, across_slice) == pytest.approx(15.0)


def test_the_angle_is_the_median_of_slices_without_warnings() -> None:
    cords = [cord(2.0), cord(3.0), cord(4.0), cord(3.0), cord(80.0), *[cord(60.0, "cord_low_confidence")] * 9]
    assert angle(cords) == pytest.approx(3.0)


def test_two_slices_are_too_few() -> None:
    assert angle([cord(30.0)] * 2) is None
    assert angle([*[cord(30.0)] * 2, cord(30.0, "slice_too_oblique")]) is None
