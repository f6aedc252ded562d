"""The reference kernels against direct computations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stenosis_trt.kernels.decoding import decode_keypoints, decode_peaks, keypoint_support
from stenosis_trt.kernels.reference import (
    RegionSource,
    cord_geometry,
    input_contrast,
    order_statistics,
    preprocess_region,
    region_window,
    resample,
)
from stenosis_trt.kernels.reference import _resample_gather as resample_any
from stenosis_trt.kernels.regions import region_bounds
from stenosis_trt.kernels.table import LOWEST_PEAK, PEAKS

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint16, np.int16]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    ),
    st.floats(0, 100),
)
def test_order_statistics_are_values_of_the_sorted_image(image: np.ndarray, percentile: float) -> None:
    rank = int(np.rint(percentile / 100 * (image.size - 1)))
    assert order_statistics([image], [percentile]) == [np.sort(image.ravel())[rank]]


def test_order_statistics_of_several_images_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 4096, shape, dtype=np.uint16) for shape in ((5, 7), (3, 3), (10, 2))]
    together = np.concatenate([image.ravel() for image in images])[None]
    assert order_statistics(images, [0, 1, 50, 99, 100]) == order_statistics([together], [0, 1, 50, 99, 100])


def test_identity_gives_the_image_back() -> None:
    image = np.random.default_rng(0).random((12, 9))
    assert np.allclose(resample(image, IDENTITY, (12, 9)), image)


@pytest.mark.parametrize(
    "affine",
    [
        [[0.5, 0, 3], [0, 0.5, -2]],
        [[2.3, 0, 0.4], [0, 1.7, 1.1]],
        [[-1.2, 0, 40], [0, 0.9, 0]],
        [[0, 1.5, 2], [-0.8, 0, 30]],
        [[0, -3.1, 41], [2.2, 0, -6]],
    ],
)
def test_the_separable_form_equals_the_general_one(affine: list[list[float]]) -> None:
    image = np.random.default_rng(1).random((37, 44))
    matrix = np.array(affine, dtype=np.float64)
    assert np.allclose(resample(image, matrix, (20, 25)), resample_any(image, matrix, (20, 25)), atol=1e-12)


def test_a_linear_image_is_resampled_exactly_by_any_affine() -> None:
    rows, columns = np.mgrid[0:60, 0:80].astype(np.float64)
    image = 0.3 * columns + 0.7 * rows
    angle = 0.4
    affine = np.array([[np.cos(angle), -np.sin(angle), 30], [np.sin(angle), np.cos(angle), 15]]) * [
        [1.0],
        [1.0],
    ]
    y, x = np.mgrid[0:20, 0:20].astype(np.float64)
    source_x = affine[0, 0] * x + affine[0, 1] * y + affine[0, 2]
    source_y = affine[1, 0] * x + affine[1, 1] * y + affine[1, 2]
    assert np.allclose(resample(image, affine, (20, 20)), 0.3 * source_x + 0.7 * source_y)


def test_shrinking_averages_instead_of_aliasing() -> None:
    stripes = np.tile([0.0, 1.0], (64, 32))
    shrunk = resample(stripes, np.array([[4.0, 0, 1.5], [0, 4.0, 1.5]]), (16, 16))
    assert np.allclose(shrunk, 0.5)


def test_outside_the_image_is_the_windows_low_end() -> None:
    stored = np.full((8, 8), 1000, dtype=np.uint16)
    far = np.array([[1.0, 0, 100.0], [0, 1.0, 0]])
    region = preprocess_region([RegionSource(stored)], far, (4, 4), (0.0, 1000.0), ([0.5], [0.25]))
    assert np.allclose(region, -2.0)


def test_rescale_window_mean_and_deviation_are_applied_in_that_order() -> None:
    stored = np.array([[0, 100], [200, 300]], dtype=np.uint16)
    source = RegionSource(stored, slope=2.0, intercept=-100.0)
    region = preprocess_region([source], IDENTITY, (2, 2), (0.0, 400.0), ([0.5], [0.5]))
    real = stored * 2.0 - 100.0
    assert np.allclose(region[0], (np.clip(real / 400.0, 0, 1) - 0.5) / 0.5)


def test_a_flat_region_gives_zeros_not_infinities() -> None:
    stored = np.full((6, 6), 7, dtype=np.int16)
    window = region_window([RegionSource(stored)], IDENTITY, (6, 6), (1.0, 99.0))
    region = preprocess_region([RegionSource(stored)], IDENTITY, (6, 6), window, ([0.0], [1.0]))
    assert np.array_equal(region, np.zeros((1, 6, 6)))


def test_the_window_looks_at_the_region_alone() -> None:
    stored = np.zeros((20, 20), dtype=np.uint16)
    stored[5:10, 5:10] = np.arange(25).reshape(5, 5) + 100
    stored[0, 0] = 60000
    window = region_window([RegionSource(stored)], np.array([[1.0, 0, 5], [0, 1.0, 5]]), (5, 5), (0.0, 100.0))
    assert window == (100.0, 124.0)


def test_a_negative_slope_turns_the_window_round() -> None:
    stored = np.arange(100, dtype=np.uint16).reshape(10, 10)
    low, high = region_window([RegionSource(stored, -1.0, 0.0)], IDENTITY, (10, 10), (0.0, 90.0))
    assert (low, high) == (-99.0, -10.0)


def test_channels_with_different_rescale_share_one_window() -> None:
    stored = np.arange(100, dtype=np.uint16).reshape(10, 10)
    sources = [RegionSource(stored), RegionSource(stored, 2.0, 5.0)]
    assert region_window(sources, IDENTITY, (10, 10), (0.0, 100.0)) == (0.0, 203.0)


def test_a_region_that_misses_the_image_has_no_bounds() -> None:
    assert region_bounds(np.array([[1.0, 0, 500], [0, 1.0, 0]]), (10, 10), (20, 20)) is None


def test_contrast_is_of_the_window_whatever_the_normalisation() -> None:
    rng = np.random.default_rng(5)
    unit = rng.uniform(0, 1, (2, 1, 9, 7))
    unit[1] *= 0.1
    mean, deviation = 0.4, 0.2
    contrast = input_contrast(((unit - mean) / deviation).astype(np.float32), (deviation,))
    np.testing.assert_allclose(contrast, unit.std(axis=(1, 2, 3)), rtol=1e-6)


def test_contrast_counts_the_channels_means_as_the_network_is_given_them() -> None:
    flat = np.zeros((1, 2, 4, 4), np.float32)
    flat[0, 1] = 1.0
    assert input_contrast(flat, (0.5, 2.0))[0] == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(4, 27), st.floats(4, 27), st.floats(1.2, 2.5), st.floats(0.2, 1.0))
def test_a_gaussian_peak_is_found_to_a_twentieth_of_a_pixel(
    x: float, y: float, sigma: float, height: float
) -> None:
    rows, columns = np.mgrid[0:32, 0:32]
    heatmap = height * np.exp(-0.5 * (((columns - x) / sigma) ** 2 + ((rows - y) / sigma) ** 2))
    found = decode_keypoints(heatmap[None, None])[0, 0]
    assert found[0] == pytest.approx(x, abs=0.05)
    assert found[1] == pytest.approx(y, abs=0.05)
    assert found[2] == pytest.approx(heatmap.max(), rel=1e-5)


def test_a_peak_on_the_border_stays_in_the_map() -> None:
    heatmap = np.zeros((1, 2, 8, 8))
    heatmap[0, 0, 0, 7] = heatmap[0, 1, 7, 0] = 1.0
    assert decode_keypoints(heatmap)[0].tolist() == [[7.0, 0.0, 1.0], [0.0, 7.0, 1.0]]


def _blobs(*peaks: tuple[float, float, float], size: int = 32) -> npt.NDArray[np.float64]:
    """A map with Gaussians of x, y and height."""
    rows, columns = np.mgrid[0:size, 0:size]
    return np.max(
        [h * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / 1.3**2) for x, y, h in peaks], axis=0
    )


def test_peaks_are_found_from_the_highest_to_the_lowest() -> None:
    peaks = [(6.0, 5.0, 0.5), (7.0, 11.0, 0.9), (25.0, 20.0, 0.7)]
    found = decode_peaks(_blobs(*peaks)[None, None])[0, 0]
    assert found[:3] == pytest.approx(np.array([peaks[1], peaks[2], peaks[0]]), abs=1e-2)
    assert found[3].tolist() == [0.0, 0.0, 0.0]


def test_no_more_peaks_are_found_than_asked_for_and_none_that_is_next_to_nothing() -> None:
    many = [(5.0 + 5.0 * k, 10.0, 0.9 - 0.1 * k) for k in range(PEAKS + 1)]
    assert decode_peaks(_blobs(*many)[None, None])[0, 0, :, 0] == pytest.approx(
        [5.0, 10.0, 15.0, 20.0], abs=1e-2
    )
    faint = _blobs((5.0, 5.0, 0.9), (20.0, 20.0, LOWEST_PEAK))
    assert decode_peaks(faint[None, None])[0, 0, 1].tolist() == [0.0, 0.0, 0.0]


def test_the_same_peaks_are_found_whichever_is_the_highest() -> None:
    first, second = ((6.0, 5.0), (7.0, 9.0))
    one = decode_peaks(_blobs((*first, 0.634), (*second, 0.632))[None, None])[0, 0]
    other = decode_peaks(_blobs((*first, 0.632), (*second, 0.634))[None, None])[0, 0]
    assert one[0, :2] == pytest.approx(other[1, :2], abs=0.01)
    assert one[1, :2] == pytest.approx(other[0, :2], abs=0.01)


def test_of_equal_neighbours_the_first_is_the_peak() -> None:
    maps = np.zeros((1, 1, 8, 8), np.float32)
    maps[0, 0, 2, 3:6] = maps[0, 0, 3, 2] = 0.5
    maps[0, 0, 6, 6] = 0.5
    found = decode_peaks(maps)[0, 0]
    assert found[:, 2].tolist() == [0.5, 0.5, 0.0, 0.0]
    assert found[1, :2].tolist() == [6.0, 6.0]


def test_an_invalid_map_has_no_further_peak() -> None:
    maps = np.repeat(_blobs((6.0, 5.0, 0.5), (20.0, 20.0, 0.4))[None, None], 2, axis=1)
    maps[0, 1, 9, 9] = np.nan
    good, bad = decode_peaks(maps)[0]
    assert good[:, 2] == pytest.approx([0.5, 0.4, 0.0, 0.0])
    assert np.isnan(bad[0, 2])
    assert bad[0, :2].tolist() == [0.0, 0.0]
    assert not bad[1:].any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_first_peak_is_the_highest_pixel_of_the_map(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = np.round(rng.uniform(-1e-3, rng.choice([1e-3, 1.0]), (2, 3, 9, 7)), int(rng.integers(1, 4)))
    np.testing.assert_array_equal(decode_peaks(maps)[:, :, 0], decode_keypoints(maps))


def test_the_support_of_a_peak_is_what_each_map_has_within_a_pixel_of_it() -> None:
    maps = np.zeros((1, 2, 8, 8))
    maps[0, 0, 0, 0], maps[0, 0, 5, 6] = 0.9, 0.4
    maps[0, 1, 6, 7], maps[0, 1, 1, 2] = 0.7, 0.3
    # Two pixels from the first map's peak the second has 0.3, which is too far; one pixel from the second's
    # the first has 0.4.
    assert keypoint_support(maps)[0] == pytest.approx(np.array([[0.9, 0.4], [0.0, 0.7]]))
    # An invalid map has its peak at the first pixel, and its NaN counts as 0 for the others.
    maps[0, 1, 0, 1] = np.nan
    assert keypoint_support(maps)[0] == pytest.approx(np.array([[0.9, 0.9], [0.0, 0.0]]))


def test_an_empty_heatmap_has_no_confidence() -> None:
    assert decode_keypoints(np.zeros((1, 1, 8, 8)))[0, 0, 2] == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_heatmap_with_a_value_that_none_may_have_is_not_one_without_a_peak(
    value: float, dtype: type[np.floating]
) -> None:
    maps = np.zeros((1, 2, 8, 8), dtype)
    maps[0, :, 3, 4] = 0.8
    maps[0, 1, 6, 6] = value
    good, bad = decode_keypoints(maps)[0]
    assert good.tolist() == pytest.approx([4.0, 3.0, 0.8], abs=1e-3)
    assert bad[:2].tolist() == [0.0, 0.0]
    assert np.isnan(bad[2])


def test_a_heatmap_may_lie_below_zero_by_what_half_precision_brings() -> None:
    maps = np.full((1, 1, 8, 8), -5e-4, np.float32)
    maps[0, 0, 2, 3] = 0.7
    assert decode_keypoints(maps)[0, 0].tolist() == pytest.approx([3.0, 2.0, 0.7])
    assert decode_keypoints(np.full((1, 1, 8, 8), -5e-4))[0, 0, 2] == pytest.approx(-5e-4)


_DOWN = np.array([0.0, 0.0, -1.0])


def _cross(ap: float, transverse: float, angle: float = 90.0) -> np.ndarray:
    turn = np.deg2rad(angle)
    across = np.array([np.sin(turn), np.cos(turn), 0.0]) * transverse / 2
    return np.array([[0, -ap / 2, 0], [0, ap / 2, 0], across, -across])


@pytest.mark.parametrize("degrees", [-40.0, -15.0, 20.0, 30.0])
def test_an_oblique_cut_of_a_cord_is_measured_across_the_cord(degrees: float) -> None:
    """A cylinder of 7.5 by 13 mm, cut by a plane that is turned about both of its diameters."""
    about_x, about_y = np.tan(np.deg2rad([degrees, degrees / 3]))
    cut = _cross(7.5, 13.0)
    cut[:, 2] = cut[:, 1] * about_x + cut[:, 0] * about_y
    across, shown = cord_geometry([cut, cut], [_DOWN, np.zeros(3)]), np.linalg.norm(cut[0] - cut[1])
    assert across.ap_mm == pytest.approx([7.5, shown])
    assert across.transverse_mm[0] == pytest.approx(13.0)
    assert across.compression_ratio[0] == pytest.approx(7.5 / 13.0)
    assert shown == pytest.approx(7.5 / np.cos(np.deg2rad(degrees)))
    assert across.crossing.all()


def test_diameters_ratio_and_angle_of_a_cross() -> None:
    measured = cord_geometry(np.stack([_cross(7.5, 13.0), _cross(4.0, 14.0, 60.0)]), [_DOWN, _DOWN])
    assert measured.ap_mm == pytest.approx([7.5, 4.0])
    assert measured.transverse_mm == pytest.approx([13.0, 14.0])
    assert measured.compression_ratio == pytest.approx([7.5 / 13.0, 4.0 / 14.0])
    assert measured.angle_degrees == pytest.approx([90.0, 60.0])
    assert measured.crossing.all()


def test_diameters_that_do_not_meet_are_not_crossing() -> None:
    apart = _cross(7.5, 13.0)
    apart[2:] += [0, 10.0, 0]
    swapped = _cross(7.5, 13.0)[[0, 2, 1, 3]]
    assert not cord_geometry(np.stack([apart, swapped]), [_DOWN, _DOWN]).crossing.any()


def test_four_equal_points_have_no_ratio() -> None:
    measured = cord_geometry(np.zeros((1, 4, 3)), [_DOWN])
    assert np.isnan(measured.compression_ratio[0])
    assert not measured.crossing[0]


@settings(max_examples=40, deadline=None)
@given(st.floats(-3, 3), st.floats(-1, 1), st.floats(-1, 1))
def test_measures_do_not_depend_on_where_the_patient_lies(yaw: float, pitch: float, shift: float) -> None:
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    plain, moved = _cross(6.0, 12.0, 80.0), _cross(6.0, 12.0, 80.0) @ (turn @ tilt).T + shift * 100
    first = cord_geometry(plain[None], [_DOWN])
    second = cord_geometry(moved[None], [turn @ tilt @ _DOWN])
    assert second.compression_ratio == pytest.approx(first.compression_ratio)
    assert second.angle_degrees == pytest.approx(first.angle_degrees, abs=1e-6)
    assert second.crossing.all()
