"""Regions: canonical axes, exact centres, and the way back, whatever way a slice is stored."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_pack import input_spec

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.packs.crop import crop_to_patient, heatmap_to_input, input_to_heatmap, slice_roi

# Every way a sagittal or axial slice can be stored: (row direction, column direction).
STORED = {
    "sagittal": [
        ((0, 1, 0), (0, 0, -1)),
        ((0, -1, 0), (0, 0, -1)),
        ((0, 1, 0), (0, 0, 1)),
        ((0, 0, -1), (0, 1, 0)),
        ((0, 0, 1), (0, -1, 0)),
    ],
    "axial": [
        ((1, 0, 0), (0, 1, 0)),
        ((-1, 0, 0), (0, 1, 0)),
        ((1, 0, 0), (0, -1, 0)),
        ((0, 1, 0), (1, 0, 0)),
        ((0, -1, 0), (-1, 0, 0)),
    ],
}
CASES = [(plane, row, column) for plane, stored in STORED.items() for row, column in stored]


def _pose(row: tuple[int, ...], column: tuple[int, ...]) -> SlicePose:
    return SlicePose((5.0, -80.0, 60.0), row, column, 0.6, 0.9, 200, 240)  # type: ignore[arg-type]


@pytest.mark.parametrize(("plane", "row", "column"), CASES)
def test_the_centre_and_the_canonical_axes_are_the_same_for_every_storage(
    plane: str, row: tuple[int, ...], column: tuple[int, ...]
) -> None:
    pose, spec = _pose(row, column), input_spec(64, 0.75, 1, plane)
    centre = pose.to_patient([100.0, 80.0])
    affine = slice_roi(pose, centre, spec)
    middle = (spec.width - 1) / 2
    corners = crop_to_patient(pose, affine, [[middle, middle], [middle + 10, middle], [middle, middle + 10]])
    x, y = {"sagittal": ([0.0, 7.5, 0.0], [0.0, 0.0, -7.5]), "axial": ([7.5, 0.0, 0.0], [0.0, 7.5, 0.0])}[
        plane
    ]
    assert corners[0] == pytest.approx(centre)
    assert corners[1] - corners[0] == pytest.approx(x)
    assert corners[2] - corners[0] == pytest.approx(y)


@pytest.mark.parametrize(("plane", "row", "column"), CASES)
def test_an_affine_only_scales_flips_and_swaps(
    plane: str, row: tuple[int, ...], column: tuple[int, ...]
) -> None:
    affine = slice_roi(_pose(row, column), [0.0, 0.0, 0.0], input_spec(64, 0.75, 1, plane))
    assert np.count_nonzero(affine[:, :2]) == 2


def test_the_offset_moves_the_region_along_the_canonical_axes() -> None:
    pose = _pose((0, -1, 0), (0, 0, 1))
    plain = slice_roi(pose, [0.0, 0.0, 0.0], input_spec(64, 0.75, 1, "sagittal"))
    moved = slice_roi(pose, [0.0, 0.0, 0.0], input_spec(64, 0.75, 1, "sagittal", offset=6.0))
    difference = crop_to_patient(pose, moved, [0.0, 0.0]) - crop_to_patient(pose, plain, [0.0, 0.0])
    assert difference == pytest.approx([0.0, 6.0, 0.0])


def test_an_oblique_slice_keeps_its_own_plane() -> None:
    tilt = np.deg2rad(25.0)
    pose = SlicePose((0, 0, 0), (1, 0, 0), (0, np.cos(tilt), np.sin(tilt)), 0.5, 0.5, 100, 100)
    spec = input_spec(32, 0.5, 1, "axial")
    affine = slice_roi(pose, pose.centre + 3.0 * pose.normal, spec)
    points = crop_to_patient(pose, affine, [[0, 0], [31, 31]])
    assert (points - pose.centre) @ pose.normal == pytest.approx([0.0, 0.0], abs=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_heatmap_and_input_pixels_are_inverse_and_share_their_edges(stride: int) -> None:
    xy = np.array([[0.0, 3.2], [10.7, -0.5]])
    assert input_to_heatmap(heatmap_to_input(xy, stride), stride) == pytest.approx(xy)
    assert heatmap_to_input([-0.5], stride) == pytest.approx([-0.5])
