"""Grey pictures of images: places, hanging, letters, window, square pixels."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from picture_samples import pose, spots

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.reports.pictures.windowing import (
    Crop,
    DisplayImage,
    Letters,
    direction_letters,
    display_image,
)

SPOT = (3.0, -12.0, 21.0)
SIGNS = list(product((1, -1), (1, -1), (False, True)))
"""Sign of the rows' direction, of the columns', and whether rows and columns are swapped."""


def _pose(plane: str, signs: tuple[int, int, bool] = (1, 1, False)) -> SlicePose:
    right, down = {
        "sagittal": ((0, 1, 0), (0, 0, -1)),
        "axial": ((1, 0, 0), (0, 1, 0)),
        "coronal": ((1, 0, 0), (0, 0, -1)),
        "oblique": ((1, 0, 0), (0, 0.9, 0.5)),
    }[plane]
    across, along = signs[0] * np.array(right, float), signs[1] * np.array(down, float)
    if signs[2]:
        across, along = along, across
    return pose(tuple(across), tuple(along), SPOT, (0.9, 0.6), (140, 180))


def _brightest(shown: DisplayImage) -> tuple[float, float]:
    """Centre of mass of the upper half of the grey values."""
    weights = np.clip(shown.grey.astype(float) - 128, 0, None)
    rows, columns = np.indices(weights.shape)
    return float((columns * weights).sum() / weights.sum()), float((rows * weights).sum() / weights.sum())


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("plane", ["sagittal", "axial", "coronal", "oblique"])
def test_a_point_is_shown_where_the_pose_says_however_the_image_is_stored(
    plane: str, signs: tuple[int, int, bool]
) -> None:
    place = _pose(plane, signs)
    target = place.to_patient((50.3, 61.8))
    image = spots(place, [tuple(target)])
    for crop, spacing in ((None, None), (Crop(tuple(target + 4), 40.0, 50.0), 0.2)):
        shown = display_image(image, crop, spacing)
        assert _brightest(shown) == pytest.approx(tuple(shown.to_pixels(target)), abs=0.1 / shown.spacing_mm)


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("plane", ["sagittal", "axial", "coronal", "oblique"])
def test_images_of_one_plane_hang_alike_however_they_are_stored(
    plane: str, signs: tuple[int, int, bool]
) -> None:
    place = _pose(plane, signs)
    points = [tuple(place.centre + offset) for offset in ((0, 0, 0), (9, 7, 5), (-4, 11, -16))]
    crop = Crop(points[0], 60.0, 60.0)
    shown = display_image(spots(place, points), crop, 0.3)
    usual = display_image(spots(_pose(plane), points), crop, 0.3)
    assert shown.letters == usual.letters
    # Spots lie between other pixels, so single grey values differ a little.
    assert np.abs(shown.grey.astype(int) - usual.grey).mean() < 1.5


def test_letters_name_the_sides_as_a_radiologist_expects_them() -> None:
    letters = {
        plane: display_image(spots(_pose(plane), [SPOT])).letters
        for plane in ("sagittal", "axial", "coronal")
    }
    assert letters["sagittal"] == Letters("A", "P", "H", "F")
    assert letters["axial"] == Letters("R", "L", "A", "P")
    assert letters["coronal"] == Letters("R", "L", "H", "F")


def test_an_oblique_direction_has_letters_in_the_order_of_its_components() -> None:
    assert direction_letters((0.0, 0.9, 0.5)) == "PH"
    assert direction_letters((-0.2, -0.3, -0.9)) == "FA"
    assert direction_letters((0.6, -0.5, 0.62)) == "HLA"
    assert direction_letters((0.0, 1.0, np.tan(np.deg2rad(14)))) == "P"
    assert direction_letters((0.0, 1.0, np.tan(np.deg2rad(17)))) == "PH"
    assert display_image(spots(_pose("oblique"), [SPOT])).letters == Letters("R", "L", "AF", "PH")


def test_pixels_that_are_not_square_are_shown_square() -> None:
    image = spots(_pose("axial"), [SPOT])
    shown = display_image(image)
    assert shown.spacing_mm == 0.6
    assert shown.grey.shape == (round(140 * 0.9 / 0.6), 180)
    # A round spot is as wide as it is high.
    bright = shown.grey > 128
    assert bright.any(axis=0).sum() == pytest.approx(bright.any(axis=1).sum(), abs=2)


def test_a_crop_moves_into_the_image_and_is_black_where_it_is_larger() -> None:
    image = spots(_pose("axial"), [SPOT])
    corner = tuple(image.pose.to_patient((0, 0)))
    moved = display_image(image, Crop(corner, 30.0, 30.0), 0.3)
    assert tuple(moved.to_pixels(corner)) == pytest.approx((0.5, 1.0), abs=0.01)
    outside = display_image(image, Crop(corner, 30.0, 30.0, inside=False), 0.3)
    assert tuple(outside.to_pixels(corner)) == pytest.approx((49.5, 49.5), abs=0.51)
    bright = replace(image, stored=np.tile(np.arange(100, 280, dtype=np.uint16), (140, 1)))
    wide = display_image(bright, Crop(SPOT, 400.0, 400.0), 1.0)
    assert wide.grey.shape == (400, 400)
    assert not wide.grey[:130].any()
    assert not wide.grey[:, :140].any()
    assert wide.grey[200, 150:250].all()


def test_the_window_spans_the_percentiles_of_the_shown_part() -> None:
    image = spots(_pose("axial"), [SPOT])
    ramp = np.tile(np.arange(180, dtype=np.uint16) * 10, (140, 1))
    shown = display_image(replace(image, stored=ramp))
    assert shown.window == pytest.approx((18, 1772), abs=20)
    assert shown.grey.min() == 0
    assert shown.grey.max() == 255
    assert np.all(np.diff(shown.grey[70].astype(int)) >= 0)


@pytest.mark.parametrize("slope", [2.0, -2.0])
def test_a_higher_real_world_value_is_brighter_whatever_the_sign_of_the_slope(slope: float) -> None:
    shown = display_image(spots(_pose("axial"), [SPOT], slope=slope))
    x, y = (round(value) for value in shown.to_pixels(SPOT))
    assert shown.grey[y, x] > 250
    assert shown.grey[2, 2] == 0
    assert shown.window[0] < shown.window[1]


def test_a_flat_image_and_negative_values_can_be_shown() -> None:
    image = spots(_pose("axial"), [SPOT])
    assert not display_image(replace(image, stored=np.full((140, 180), 7, np.uint16))).grey.any()
    negative = (image.stored.astype(np.int32) - 2000).astype(np.int16)
    assert np.array_equal(display_image(replace(image, stored=negative)).grey, display_image(image).grey)


def test_a_single_far_brighter_pixel_does_not_darken_the_image() -> None:
    image = spots(_pose("axial"), [SPOT, (20.0, 5.0, 21.0)])
    stored = image.stored.copy()
    stored[3, 3] = 60000
    shown, usual = display_image(replace(image, stored=stored)), display_image(image)
    assert shown.window == pytest.approx(usual.window, rel=0.02)
