"""Slice poses against equation C.7.6.2.1-1 of DICOM PS3.3 and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stenosis_trt.engine.geometry import SlicePose


def _pose(row: tuple[float, float, float], column: tuple[float, float, float]) -> SlicePose:
    return SlicePose((10.0, 20.0, 30.0), row, column, 0.5, 0.8, 100, 80, 3.0)


def test_pixels_follow_both_spacings() -> None:
    pose = _pose((0, 1, 0), (0, 0, -1))
    # Ten columns are 8 mm to the back, ten rows are 5 mm to the feet.
    assert pose.to_patient([10, 10]) == pytest.approx([10.0, 28.0, 25.0])


@given(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5), st.floats(-100, 100), st.floats(-100, 100))
def test_pixels_and_patient_are_inverse(yaw: float, pitch: float, column: float, row: float) -> None:
    across = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    down = np.cross(across, [np.sin(pitch) * -np.sin(yaw), np.sin(pitch) * np.cos(yaw), np.cos(pitch)])
    down /= np.linalg.norm(down)
    pose = _pose(tuple(across), tuple(down))
    back = pose.to_pixels(pose.to_patient([column, row]) + 2.5 * pose.normal)
    assert back == pytest.approx([column, row, 2.5], abs=1e-9)


@pytest.mark.parametrize(
    ("row", "column", "plane"),
    [
        ((0, 1, 0), (0, 0, -1), "sagittal"),
        ((0, -1, 0), (0, 0, 1), "sagittal"),
        ((1, 0, 0), (0, 1, 0), "axial"),
        ((1, 0, 0), (0, 0.9, 0.436), "axial"),
        ((1, 0, 0), (0, 0, -1), "coronal"),
        ((0.7071, 0.7071, 0), (0, 0, -1), "oblique"),
    ],
)
def test_plane_is_the_nearest_one(
    row: tuple[float, float, float], column: tuple[float, float, float], plane: str
) -> None:
    assert _pose(row, column).orientation == plane
