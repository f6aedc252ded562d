"""Every kernel against its float64 reference.

On the CPU build of its source in two orders of threads, and on a GPU where there is one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.kernels.decoding import decode_keypoints, decode_peaks, keypoint_support
from stenosis_trt.kernels.descriptors import describe_frames
from stenosis_trt.kernels.layouts import WINDOW
from stenosis_trt.kernels.reference import (
    RegionSource,
    cord_geometry,
    input_contrast,
    preprocess_region,
    region_window,
)
from stenosis_trt.kernels.region_batch import SliceLayout, stored_window
from stenosis_trt.kernels.table import MAX_MAPS

from .cases import (
    DEVIATIONS,
    KINDS,
    MEANS,
    Batch,
    lay_out,
    random_batch,
    random_directions,
    run_contrast,
    run_cord,
    run_decode,
    run_preprocess,
    run_statistics,
)
from .runners import Runner

FloatArray = npt.NDArray[np.float64]

_FLOAT_ERROR = 1e-4
_PIXEL_ERROR = 1e-3
_MM_ERROR = 1e-3

random_seeds = st.integers(0, 2**32 - 1)
bounded = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _reference(batch: Batch) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Windows in real values (N, 2), and inputs (N, 3, height, width)."""
    windows, inputs = [], []
    for sources, affine in zip(batch.sources, batch.affines, strict=True):
        window = region_window(sources, affine, batch.size, batch.percentiles)
        windows.append(window)
        inputs.append(preprocess_region(sources, affine, batch.size, window, (MEANS, DEVIATIONS)))
    return np.array(windows), np.stack(inputs)


def _real(source: SliceLayout, window: np.void) -> tuple[float, float]:
    return tuple(  # type: ignore[return-value]
        (float(window[end]) - source.sign) * source.slope + source.intercept for end in ("low", "high")
    )


@bounded
@given(seed=random_seeds)
def test_order_statistics_are_exact(runner: Runner, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch = random_batch(rng)
    arena = lay_out(rng, batch)
    windows = run_statistics(runner, arena, batch.percentiles)
    expected, _ = _reference(batch)
    for number, picks in enumerate(arena.cuts.slice_indices):
        assert _real(arena.cuts.slices[picks[0]], windows[number]) == tuple(expected[number])


@bounded
@given(seed=random_seeds, kind=st.sampled_from(KINDS))
def test_preprocess_in_single_precision_is_the_reference(runner: Runner, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    batch = random_batch(rng, kind=kind)
    arena = lay_out(rng, batch)
    windows = run_statistics(runner, arena, batch.percentiles)
    out = run_preprocess(runner, arena, windows, np.float32)
    assert np.abs(out - _reference(batch)[1]).max() <= _FLOAT_ERROR


@bounded
@given(seed=random_seeds, kind=st.sampled_from(KINDS))
def test_preprocess_in_half_precision_is_within_one_ulp(runner: Runner, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    batch = random_batch(rng, kind=kind)
    arena = lay_out(rng, batch)
    windows = run_statistics(runner, arena, batch.percentiles)
    out = run_preprocess(runner, arena, windows, np.float16)
    expected = _reference(batch)[1]
    # Values near 0 have ever smaller ulps; what the arithmetic before them loses has not.
    ulp = np.maximum(np.spacing(np.abs(expected).astype(np.float16)).astype(np.float64), _FLOAT_ERROR)
    assert (np.abs(out.astype(np.float64) - expected) <= ulp).all()


@pytest.mark.parametrize(
    ("shape", "size", "scale"),
    [
        ((1, 1), (7, 5), 0.3),
        ((1024, 1024), (256, 300), 3.4),
        ((1024, 700), (64, 64), 12.0),
        ((3, 1024), (40, 40), 1.0),
    ],
)
def test_extreme_sizes(runner: Runner, shape: tuple[int, int], size: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 65536, shape).astype(np.uint16)
    middle = (np.array([shape[1], shape[0]]) - 1) / 2 - scale * (np.array([size[1], size[0]]) - 1) / 2
    affine = np.column_stack([np.diag([scale, scale]), middle])
    batch = Batch(((RegionSource(image),) * 3,), (affine,), size, (1.0, 99.5))
    arena = lay_out(rng, batch)
    windows = run_statistics(runner, arena, batch.percentiles)
    out = run_preprocess(runner, arena, windows, np.float32)
    assert np.abs(out - _reference(batch)[1]).max() <= _FLOAT_ERROR


def test_a_region_beside_its_image_is_the_low_end_of_the_window(runner: Runner) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 4096, (30, 40)).astype(np.uint16)
    affine = np.array([[1.0, 0.0, 500.0], [0.0, 1.0, -300.0]])
    batch = Batch(((RegionSource(image),) * 3,), (affine,), (16, 24), (1.0, 99.0))
    windows = np.array([(0.0, 4095.0)], WINDOW)
    out = run_preprocess(runner, lay_out(rng, batch), windows, np.float32)
    for channel, (mean, deviation) in enumerate(zip(MEANS, DEVIATIONS, strict=True)):
        np.testing.assert_allclose(out[0, channel], -mean / deviation, atol=1e-6)


def test_a_window_given_in_real_values_is_used_as_it_is(runner: Runner) -> None:
    rng = np.random.default_rng(8)
    image = rng.integers(-1000, 3000, (50, 60)).astype(np.int16)
    source = RegionSource(image, 0.5, 10.0)
    affine = np.array([[0.9, 0.0, 2.0], [0.0, 1.1, -3.0]])
    batch = Batch(((source,) * 3,), (affine,), (40, 44), (1.0, 99.0))
    arena = lay_out(rng, batch)
    wanted = (-120.3, 900.7)
    windows = np.array([stored_window(arena.cuts.slices[0], wanted)], WINDOW)
    out = run_preprocess(runner, arena, windows, np.float32)
    expected = preprocess_region((source,) * 3, affine, batch.size, wanted, (MEANS, DEVIATIONS))
    assert np.abs(out[0] - expected).max() <= _FLOAT_ERROR


def _random_pose(rng: np.random.Generator, rows: int, columns: int) -> SlicePose:
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    origin, row, column = (
        [float(value) for value in vector] for vector in (rng.normal(0, 100, 3), axes[0], axes[1])
    )
    return SlicePose(
        origin=(origin[0], origin[1], origin[2]),
        row_direction=(row[0], row[1], row[2]),
        column_direction=(column[0], column[1], column[2]),
        row_spacing=float(rng.uniform(0.3, 1.0)),
        column_spacing=float(rng.uniform(0.3, 1.0)),
        rows=rows,
        columns=columns,
    )


def _random_heatmaps(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> npt.NDArray[np.float32]:
    """Gaussians anywhere, on the border too, over noise; now and then a flat map, or an invalid value.

    Half of the maps with Gaussians have several of one height, and values so coarse that many are equal.
    """
    count, maps, height, width = shape
    rows, columns = np.indices((height, width))
    result = rng.uniform(0, 0.02, shape)
    for image in range(count):
        for number in range(maps):
            centre, sigma = (
                rng.uniform(-0.5, 1.0, 2) + rng.uniform(0, 1, 2) * (height, width),
                rng.uniform(1.0, 2.5),
            )
            square = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
            kind = rng.random()
            if kind < 0.4:
                result[image, number] += rng.uniform(0.2, 0.95) * np.exp(-0.5 * square / sigma**2)
            elif kind < 0.8:
                for _ in range(int(rng.integers(2, 7))):
                    square = (rows - rng.integers(height)) ** 2 + (columns - rng.integers(width)) ** 2
                    blob = 0.75 * np.exp(-0.5 * square / 1.5**2)
                    result[image, number] = np.maximum(result[image, number], blob)
                result[image, number] = np.round(result[image, number] * 16) / 16
            elif kind < 0.9:
                result[image, number] = 0.25
            else:
                invalid = rng.choice([np.nan, np.inf, -np.inf, -0.01])
                result[image, number].ravel()[rng.integers(0, height * width, 5)] = invalid
    return result.astype(np.float32)


def _random_frames(
    rng: np.random.Generator, count: int
) -> tuple[npt.NDArray[np.void], list[tuple[FloatArray, SlicePose]]]:
    """Frames of `count` images, and what each is made of: heatmap pixel → source pixel, the slice's pose."""
    places = []
    for _ in range(count):
        scale = rng.uniform(0.5, 6.0, 2) * rng.choice([-1.0, 1.0], 2)
        places.append(
            (np.column_stack([np.diag(scale), rng.uniform(-50, 300, 2)]), _random_pose(rng, 300, 300))
        )
    affines = np.array([affine for affine, _ in places])
    return describe_frames(affines, np.array([pose.pixel_to_patient for _, pose in places])), places


@bounded
@given(seed=random_seeds, half=st.booleans())
def test_decode_peaks_is_the_reference(runner: Runner, seed: int, half: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (
        int(rng.integers(1, 4)),
        int(rng.integers(1, MAX_MAPS + 1)),
        int(rng.integers(1, 40)),
        int(rng.integers(1, 40)),
    )
    heatmaps = _random_heatmaps(rng, shape).astype(np.float16 if half else np.float32)
    frames, places = _random_frames(rng, shape[0])
    points, support = run_decode(runner, heatmaps, frames)
    np.testing.assert_array_equal(support, keypoint_support(heatmaps))
    expected = decode_peaks(heatmaps)
    xy = expected[..., :2].astype(np.float64)
    assert np.abs(points["x"] - xy[..., 0]).max() <= _PIXEL_ERROR
    assert np.abs(points["y"] - xy[..., 1]).max() <= _PIXEL_ERROR
    np.testing.assert_array_equal(points["confidence"], expected[..., 2])
    for image, (affine, pose) in enumerate(places):
        found = np.stack([points["x"][image], points["y"][image]], axis=-1).astype(np.float64)
        source = found @ affine[:, :2].T + affine[:, 2]
        kept = np.stack([points["column"][image], points["row"][image]], axis=-1)
        assert np.abs(kept - source).max() <= _PIXEL_ERROR
        assert np.abs(points["patient"][image] - pose.to_patient(source)).max() <= _MM_ERROR


def _cord_heatmaps(rng: np.random.Generator, count: int, size: int = 64) -> npt.NDArray[np.float32]:
    """Four Gaussians on an ellipse each; now and then two of them are exchanged, or one is faint."""
    rows, columns = np.indices((size, size))
    result = np.zeros((count, 4, size, size))
    for image in range(count):
        middle, angle = rng.uniform(24, 40, 2), rng.normal(0, 0.2)
        half = np.array([rng.uniform(1, 8), rng.uniform(3, 12)])
        down, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        corners = [
            middle - half[0] * down,
            middle + half[0] * down,
            middle - half[1] * across,
            middle + half[1] * across,
        ]
        if rng.random() < 0.2:
            corners[1], corners[2] = corners[2], corners[1]
        for number, (row, column) in enumerate(corners):
            square = (rows - row) ** 2 + (columns - column) ** 2
            result[image, number] = rng.choice([0.9, 0.2], p=[0.95, 0.05]) * np.exp(-0.5 * square / 1.5**2)
    return result.astype(np.float32)


@bounded
@given(seed=random_seeds, half=st.booleans())
def test_cord_geometry_is_the_reference(runner: Runner, seed: int, half: bool) -> None:
    rng = np.random.default_rng(seed)
    heatmaps = _cord_heatmaps(rng, 4).astype(np.float16 if half else np.float32)
    frames, places = _random_frames(rng, len(heatmaps))
    directions = random_directions(rng, len(heatmaps))
    points, cords = run_cord(runner, heatmaps, frames, directions)
    corners = points["patient"].astype(np.float64)
    # The points are judged by the test above; here by what the reference makes of heatmaps with them.
    decoded = decode_keypoints(heatmaps).astype(np.float64)
    exact = np.stack(
        [
            pose.to_patient(decoded[k, :, :2] @ affine[:, :2].T + affine[:, 2])
            for k, (affine, pose) in enumerate(places)
        ]
    )
    assert np.abs(corners - exact).max() <= 5 * _MM_ERROR
    expected = cord_geometry(corners, directions["d"])
    assert np.abs(cords["ap_mm"] - expected.ap_mm).max() <= _MM_ERROR
    assert np.abs(cords["transverse_mm"] - expected.transverse_mm).max() <= _MM_ERROR
    np.testing.assert_allclose(cords["ratio"], expected.compression_ratio, rtol=1e-5)
    np.testing.assert_allclose(cords["angle_degrees"], expected.angle_degrees, atol=2e-3)
    # Diameters that only just touch cross or not by rounding.
    moved = corners + rng.uniform(-5 * _MM_ERROR, 5 * _MM_ERROR, (16, *corners.shape))
    again = np.array([cord_geometry(each, directions["d"]).crossing for each in moved])
    clear = (again == expected.crossing).all(axis=0)
    np.testing.assert_array_equal(cords["crossing"][clear], expected.crossing[clear])


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("half", [False, True])
def test_an_invalid_map_of_a_cord_leaves_its_own_point_without_confidence(
    runner: Runner, number: int, half: bool
) -> None:
    rng = np.random.default_rng(number)
    heatmaps = _cord_heatmaps(rng, 2).astype(np.float16 if half else np.float32)
    heatmaps[1, number, 5, 6] = np.nan
    frames, _ = _random_frames(rng, 2)
    points, _ = run_cord(runner, heatmaps, frames, random_directions(rng, 2))
    assert not np.isnan(points["confidence"][0]).any()
    assert np.isnan(points["confidence"][1]).tolist() == [k == number for k in range(4)]


@bounded
@given(seed=random_seeds, half=st.booleans())
def test_input_contrast_is_the_reference(runner: Runner, seed: int, half: bool) -> None:
    rng = np.random.default_rng(seed)
    count, channels = (int(number) for number in rng.integers(1, 4, 2))
    # Odd numbers of pixels too, whose channels begin where no vector does, and fewer than a vector.
    height, width = (int(side) for side in rng.choice([1, 2, 5, 31, 64, 117], 2))
    mean, spread = rng.choice([0.0, -1.8, 30.0]), rng.choice([0.0, 0.01, 1.0])
    inputs = rng.normal(mean, spread, (count, channels, height, width))
    inputs = inputs.astype(np.float16 if half else np.float32)
    deviations = rng.uniform(0.1, 2.0, channels).astype(np.float32)
    contrasts = run_contrast(runner, inputs, deviations)
    expected = input_contrast(inputs, [float(value) for value in deviations])
    # What is left where all values are equal is the rounding of one product.
    np.testing.assert_allclose(contrasts, expected, rtol=5e-6, atol=1e-7 * max(1.0, 2.0 * abs(mean)))


def test_the_contrast_of_a_whole_input_keeps_its_digits(runner: Runner) -> None:
    rng = np.random.default_rng(6)
    deviations = np.array([0.25, 0.26, 0.27], np.float32)
    # Little contrast far from zero: float32 sums of squares about zero would lose all of it.
    window = 100.0 + np.linspace(0, 0.02, 456) + rng.normal(0, 0.01, (1, 3, 456, 456))
    inputs = (window / deviations[:, None, None]).astype(np.float32)
    contrasts = run_contrast(runner, inputs, deviations)
    expected = input_contrast(inputs, [float(value) for value in deviations])
    assert expected[0] < 0.02
    np.testing.assert_allclose(contrasts, expected, rtol=1e-5)


def test_the_contrast_of_an_input_that_is_no_number_is_none(runner: Runner) -> None:
    inputs = np.zeros((2, 1, 8, 8), np.float32)
    inputs[1, 0, 3, 3] = np.nan
    contrasts = run_contrast(runner, inputs, np.ones(1))
    assert contrasts[0] == 0.0
    assert np.isnan(contrasts[1])
