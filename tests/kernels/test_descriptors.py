"""Batches as the kernels are told of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stenosis_trt.kernels.descriptors import (
    describe_frames,
    describe_planes,
    preprocess_kernel,
    statistics_work,
)
from stenosis_trt.kernels.region_batch import RegionBatch, SliceLayout, regions_per_input

from .cases import DEVIATIONS, KINDS, MEANS, lay_out, random_batch

_SLICES = (SliceLayout(0, (40, 60), 64, signed=False), SliceLayout(4096, (40, 60), 60, signed=True))
_IDENTITY = np.eye(2, 3)


def _cuts(
    picks: list[list[int]], *, single_slice: bool = False, affine: np.ndarray = _IDENTITY
) -> RegionBatch:
    return RegionBatch(_SLICES, np.array(picks), np.array([affine] * len(picks)), (16, 24), single_slice)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_a_batch_is_described_as_its_inputs_one_by_one(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch = random_batch(rng, count=4, kind=kind)
    cuts = lay_out(rng, batch).cuts
    planes = describe_planes(cuts, MEANS, DEVIATIONS).reshape(4, -1)
    work = statistics_work(cuts, batch.percentiles, blocks=2)
    elements = 3 * batch.size[0] * batch.size[1]
    for number in range(4):
        own = replace(
            cuts, slice_indices=cuts.slice_indices[number, None], affines=cuts.affines[number, None]
        )
        alone = describe_planes(own, MEANS, DEVIATIONS)
        alone["output"] += number * elements
        alone["window"] += number
        assert alone.tobytes() == planes[number].tobytes()
        regions = statistics_work(own, batch.percentiles, blocks=2)
        regions.regions["set"] += number
        assert regions.regions.tobytes() == work.regions.reshape(4, -1)[number].tobytes()
        assert regions.requests[0] == work.requests[number]


def test_planes_say_where_each_channel_is_read_and_written() -> None:
    planes = describe_planes(_cuts([[0, 1, 1], [0, 0, 0]]), MEANS, DEVIATIONS)
    assert planes["output"].tolist() == [channel * 16 * 24 for channel in range(6)]
    assert planes["offset"].tolist() == [0, 4096, 4096, 0, 0, 0]
    assert planes["window"].tolist() == [0, 0, 0, 1, 1, 1]
    assert planes["sign"].tolist() == [0, 0x8000, 0x8000, 0, 0, 0]
    assert planes["mean"][:3, 0].tolist() == [np.float32(value) for value in MEANS]
    assert planes["scale"][:3, 0].tolist() == [np.float32(1 / value) for value in DEVIATIONS]


def test_one_plane_is_all_channels_of_one_slice() -> None:
    planes = describe_planes(_cuts([[1, 1, 1], [0, 0, 0]], single_slice=True), MEANS, DEVIATIONS)
    assert planes["copies"].tolist() == [3, 3]
    assert planes["output"].tolist() == [0, 3 * 16 * 24]
    np.testing.assert_array_equal(planes["mean"], np.array([[*MEANS, 0.0]] * 2, np.float32))


def test_more_channels_than_a_plane_has_copies_are_described_apart() -> None:
    cuts = _cuts([[0] * 5], single_slice=True)
    assert cuts.regions_per_input == regions_per_input(5, single_slice=True) == 5
    planes = describe_planes(cuts, [0.5] * 5, [0.25] * 5)
    assert planes["copies"].tolist() == [1] * 5
    assert planes["output"].tolist() == [channel * 16 * 24 for channel in range(5)]


def test_pixels_stand_in_for_all_channels_that_show_them() -> None:
    together = statistics_work(_cuts([[0] * 3], single_slice=True), (1.0, 99.0))
    apart = statistics_work(_cuts([[0] * 3]), (1.0, 99.0))
    pixels = 16 * 24
    assert apart.requests["rank"][0].tolist() == [
        round(0.01 * (3 * pixels - 1)),
        round(0.99 * (3 * pixels - 1)),
    ]
    assert together.requests["rank"][0].tolist() == [rank // 3 for rank in apart.requests["rank"][0]]


def test_the_kernel_that_gathers_takes_what_the_other_cannot() -> None:
    def kernel(cuts: RegionBatch) -> str:
        return preprocess_kernel(describe_planes(cuts, MEANS, DEVIATIONS), cuts)

    straight = _cuts([[0, 0, 0]])
    assert kernel(straight) == "preprocess"
    assert kernel(replace(straight, size=(16, 23))) == "preprocess_affine"
    for affine in ([[0, 1, 0], [1, 0, 0]], [[0.8, -0.6, 9], [0.6, 0.8, 0]], [[4.5, 0, 0], [0, 1, 0]]):
        assert kernel(_cuts([[0, 0, 0]], affine=np.array(affine, np.float64))) == "preprocess_affine"


def test_slices_that_differ_within_an_input_are_refused_by_the_statistics() -> None:
    slices = (_SLICES[0], replace(_SLICES[0], slope=2.0), replace(_SLICES[0], intercept=1.0), _SLICES[1])
    picks = np.array([[0, 0], [0, 1], [0, 2], [0, 3], [1, 1]])
    cuts = RegionBatch(slices, picks, np.array([_IDENTITY] * 5), (16, 24), single_slice=False)
    assert cuts.has_uniform_rescale.tolist() == [True, False, False, False, True]
    with pytest.raises(ValueError, match="Find its window on the CPU"):
        statistics_work(cuts, (1.0, 99.0))


def test_several_slices_where_one_was_promised_are_refused() -> None:
    with pytest.raises(ValueError, match="single_slice=False"):
        _cuts([[0, 1, 0]], single_slice=True)


@pytest.mark.parametrize("offset", [2.0**30, -1e300, np.nan])
def test_a_region_absurdly_far_from_its_image_is_refused(offset: float) -> None:
    affine = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, offset]])
    with pytest.raises(ValueError, match="which cannot be intended"):
        describe_planes(_cuts([[0, 0, 0]], affine=affine), MEANS, DEVIATIONS)


def test_frames_map_heatmap_pixels_to_the_slice_and_the_patient() -> None:
    rng = np.random.default_rng(0)
    affines, poses = rng.normal(0, 3, (4, 2, 3)), rng.normal(0, 1, (4, 4, 4))
    frames = describe_frames(affines, poses)
    point = np.array([5.0, 7.0, 1.0])
    for frame, affine, pose in zip(frames, affines, poses, strict=True):
        column, row = affine @ point
        np.testing.assert_allclose(point @ frame["source"], [column, row], rtol=1e-5)
        patient = (pose @ np.array([column, row, 0.0, 1.0]))[:3]
        np.testing.assert_allclose(point @ frame["patient"], patient, rtol=1e-4, atol=1e-4)
