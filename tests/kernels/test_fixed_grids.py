"""Grids that stay the same from study to study: any number of blocks, batches padded with the last input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from stenosis_trt.kernels.descriptors import describe_frames, describe_planes, statistics_work
from stenosis_trt.kernels.launches import statistics_blocks
from stenosis_trt.kernels.layouts import WINDOW
from stenosis_trt.kernels.reference import RegionSource, preprocess_region, region_window
from stenosis_trt.kernels.region_batch import RegionBatch, stored_window

from .cases import (
    DEVIATIONS,
    KINDS,
    MEANS,
    Arena,
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

_REAL, _BUCKET = 5, 8
_PADDED = np.minimum(np.arange(_BUCKET), _REAL - 1)
"""Which real input stands at each place of a bucket."""


def _padded(cuts: RegionBatch) -> RegionBatch:
    return replace(cuts, slice_indices=cuts.slice_indices[_PADDED], affines=cuts.affines[_PADDED])


def _one_slice_each(batch: Batch) -> Batch:
    return replace(batch, sources=tuple((sources[0],) * 3 for sources in batch.sources))


@pytest.mark.parametrize("single_slice", [True, False])
@pytest.mark.parametrize("blocks", [1, 2, 7, 32])
def test_any_number_of_blocks_finds_the_same_windows(runner: Runner, blocks: int, single_slice: bool) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        batch = random_batch(rng)
        arena = lay_out(rng, _one_slice_each(batch) if single_slice else batch)
        expected = run_statistics(runner, arena, batch.percentiles)
        np.testing.assert_array_equal(run_statistics(runner, arena, batch.percentiles, blocks), expected)


def test_the_grid_of_given_blocks_depends_on_the_numbers_of_inputs_and_channels_alone() -> None:
    for single_slice, regions in ((True, 4), (False, 12)):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            batch = _one_slice_each(random_batch(rng, count=4))
            cuts = replace(lay_out(rng, batch).cuts, single_slice=single_slice)
            work = statistics_work(cuts, batch.percentiles, blocks=16)
            assert work.launch.grid == (16, regions, 1)
            assert len(describe_planes(cuts, MEANS, DEVIATIONS)) == regions


@pytest.mark.parametrize(("rows", "blocks"), [(0, 1), (32, 1), (33, 2), (512, 16), (1024, 32), (4096, 32)])
def test_more_rows_take_more_blocks_up_to_a_limit(rows: int, blocks: int) -> None:
    assert statistics_blocks(rows) == blocks


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_real_inputs_of_a_padded_batch_are_those_of_the_batch_alone(
    runner: Runner, kind: str, dtype: npt.DTypeLike
) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        batch = random_batch(rng, count=_REAL, kind=kind)
        alone = lay_out(rng, batch)
        padded = Arena(alone.pixels, _padded(alone.cuts))
        windows = run_statistics(runner, alone, batch.percentiles, 3)
        padded_windows = run_statistics(runner, padded, batch.percentiles, 3)
        np.testing.assert_array_equal(padded_windows, windows[_PADDED])
        inputs = run_preprocess(runner, alone, windows, dtype)
        padded_inputs = run_preprocess(runner, padded, padded_windows, dtype)
        np.testing.assert_array_equal(padded_inputs, inputs[_PADDED])
        deviations = np.array(DEVIATIONS)
        contrasts = run_contrast(runner, inputs, deviations)
        padded_contrasts = run_contrast(runner, padded_inputs, deviations)
        np.testing.assert_array_equal(padded_contrasts[:_REAL], contrasts)
        # Where an input begins in memory decides the order of its sums: repeated ones may differ in rounding.
        np.testing.assert_allclose(padded_contrasts, contrasts[_PADDED], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_real_heatmaps_of_a_padded_batch_are_decoded_as_alone(runner: Runner, dtype: npt.DTypeLike) -> None:
    rng = np.random.default_rng(3)
    heatmaps = rng.uniform(0, 1, (_REAL, 4, 21, 19)).astype(dtype)
    affines, poses = rng.normal(0, 3, (_REAL, 2, 3)), rng.normal(0, 1, (_REAL, 4, 4))
    frames = describe_frames(affines, poses)
    padded_frames = describe_frames(affines[_PADDED], poses[_PADDED])
    for padded, alone in zip(
        run_decode(runner, heatmaps[_PADDED], padded_frames),
        run_decode(runner, heatmaps, frames),
        strict=True,
    ):
        np.testing.assert_array_equal(padded, alone[_PADDED])
    directions = random_directions(rng, _REAL)
    points, cords = run_cord(runner, heatmaps, frames, directions)
    padded_points, padded_cords = run_cord(runner, heatmaps[_PADDED], padded_frames, directions[_PADDED])
    np.testing.assert_array_equal(padded_points, points[_PADDED])
    # As bytes: a ratio may be no number.
    assert padded_cords.tobytes() == cords[_PADDED].tobytes()


def test_one_region_for_all_channels_gives_what_one_a_channel_gives(runner: Runner) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        batch = _one_slice_each(random_batch(rng, count=3))
        together = lay_out(rng, batch)
        apart = Arena(together.pixels, replace(together.cuts, single_slice=False))
        windows = run_statistics(runner, together, batch.percentiles)
        np.testing.assert_array_equal(run_statistics(runner, apart, batch.percentiles), windows)
        inputs = run_preprocess(runner, together, windows, np.float32)
        np.testing.assert_array_equal(run_preprocess(runner, apart, windows, np.float32), inputs)


def test_a_region_that_misses_its_image_harms_no_other_and_is_the_reference(runner: Runner) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 4096, (30, 40)).astype(np.uint16)
    inside, outside = np.array([[1.0, 0, 3], [0, 1.0, 2]]), np.array([[1.0, 0, 500], [0, 1.0, -300]])
    batch = Batch(((RegionSource(image),) * 3,) * 3, (inside, outside, inside), (16, 24), (1.0, 99.0))
    arena = lay_out(rng, batch)
    windows = run_statistics(runner, arena, batch.percentiles)
    assert windows[1].tolist() == (0.0, 0.0)
    # Nothing of the search is left behind that a next one would find.
    np.testing.assert_array_equal(run_statistics(runner, arena, batch.percentiles), windows)
    inputs = run_preprocess(runner, arena, windows, np.float32)
    for number, affine in enumerate(batch.affines):
        sources = batch.sources[number]
        window = region_window(sources, affine, batch.size, batch.percentiles)
        expected = preprocess_region(sources, affine, batch.size, window, (MEANS, DEVIATIONS))
        assert np.abs(inputs[number] - expected).max() <= 1e-4


def test_windows_of_single_channels_are_used_in_their_order(runner: Runner) -> None:
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 4096, (30, 40)).astype(np.uint16) for _ in range(3)]
    # As Philips has it: a rescale of its own in each slice, one window of real values.
    sources = tuple(RegionSource(image, 1.0 + k, -10.0 * k) for k, image in enumerate(images))
    affine = np.array([[1.1, 0, 3], [0, 0.9, 2]])
    batch = Batch((sources,) * 2, (affine, affine + 0.25 * (np.arange(3) == 2)), (16, 24), (1.0, 99.0))
    arena = lay_out(rng, batch)
    windows, expected = [], []
    for place in batch.affines:
        window = region_window(sources, place, batch.size, batch.percentiles)
        windows += [stored_window(item, window) for item in arena.cuts.slices]
        expected.append(preprocess_region(sources, place, batch.size, window, (MEANS, DEVIATIONS)))
    table = np.array(windows, WINDOW)
    inputs = run_preprocess(runner, arena, table, np.float32, window_per_channel=True)
    assert np.abs(inputs - np.array(expected)).max() <= 1e-4
