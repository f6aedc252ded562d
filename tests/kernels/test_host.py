"""The CPU path of preprocessing computes what the reference computes."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from stenosis_trt.kernels import host
from stenosis_trt.kernels.host import preprocess_regions
from stenosis_trt.kernels.reference import RegionSource, preprocess_region, region_window

from .cases import DEVIATIONS, KINDS, MEANS, Batch, random_affine, random_batch, random_image

NORMALISATION = (MEANS, DEVIATIONS)


def _reference(batch: Batch) -> np.ndarray:
    inputs = []
    for sources, affine in zip(batch.sources, batch.affines, strict=True):
        window = region_window(sources, affine, batch.size, batch.percentiles)
        inputs.append(preprocess_region(sources, affine, batch.size, window, NORMALISATION))
    return np.stack(inputs)


def _host(batch: Batch) -> np.ndarray:
    return preprocess_regions(
        batch.sources, np.stack(batch.affines), batch.size, batch.percentiles, NORMALISATION
    )


def _assert_equal(inputs: np.ndarray, expected: np.ndarray) -> None:
    assert inputs.dtype == expected.dtype == np.float32
    if platform.machine() == "x86_64":
        np.testing.assert_array_equal(inputs, expected)
    else:
        # Where multiplication and addition are fused, float64 sums round differently.
        np.testing.assert_array_max_ulp(inputs, expected, maxulp=1)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_those_of_the_reference_bit_for_bit(kind: str) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    for _ in range(25):
        batch = random_batch(rng, kind=kind)
        _assert_equal(_host(batch), _reference(batch))


def test_regions_of_a_batch_may_differ_in_direction_scale_image_and_rescale() -> None:
    rng = np.random.default_rng(10)
    size = (24, 30)
    sources, affines = [], []
    for number in range(24):
        shape = (int(rng.integers(20, 200)), int(rng.integers(20, 200)))
        image = random_image(rng, shape, signed=number % 2 == 1)
        # Large scales: ten taps of the box prefilter.
        affine = random_affine(rng, shape, size, KINDS[number % 3]) * (1.0 if number % 4 else 3.0)
        sources.append((RegionSource(image, 0.5 + number, -3.0 * number),) * 3)
        affines.append(affine)
    batch = Batch(tuple(sources), tuple(affines), size, (1.0, 99.5))
    _assert_equal(_host(batch), _reference(batch))


def test_channels_with_a_rescale_of_their_own_are_those_of_the_reference() -> None:
    rng = np.random.default_rng(11)
    images = [rng.integers(0, 4096, (30, 40)).astype(np.uint16) for _ in range(3)]
    sources = tuple(RegionSource(image, 1.0 + k, -10.0 * k) for k, image in enumerate(images))
    affine = np.array([[1.1, 0, 3], [0, 0.9, 2]])
    batch = Batch((sources,), (affine,), (16, 24), (1.0, 99.0))
    _assert_equal(_host(batch), _reference(batch))


def test_a_region_outside_its_image_or_on_a_constant_one_is_black() -> None:
    rng = np.random.default_rng(12)
    image = RegionSource(random_image(rng, (30, 40), signed=False))
    constant = RegionSource(np.full((30, 40), 7, np.uint16))
    inside, outside = np.array([[1.0, 0, 3], [0, 1.0, 2]]), np.array([[1.0, 0, 500], [0, 1.0, -300]])
    batch = Batch(((image,) * 3, (constant,) * 3), (outside, inside), (16, 24), (1.0, 99.0))
    inputs = _host(batch)
    _assert_equal(inputs, _reference(batch))
    black = -np.divide(MEANS, DEVIATIONS).astype(np.float32)
    np.testing.assert_array_equal(inputs, np.broadcast_to(black[:, None, None], inputs.shape))


def test_no_region_gives_an_empty_batch() -> None:
    inputs = preprocess_regions([], np.zeros((0, 2, 3)), (16, 24), (1.0, 99.0), NORMALISATION)
    assert inputs.shape == (0, 3, 16, 24)


def test_an_image_shown_by_several_channels_is_resampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resampled = []
    original = host._resampled

    def counted(source: RegionSource, *arguments: object) -> np.ndarray:
        resampled.append(source)
        return original(source, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(host, "_resampled", counted)
    rng = np.random.default_rng(13)
    shared, other = (RegionSource(random_image(rng, (30, 40), signed=False)) for _ in range(2))
    affine = np.array([[1.1, 0, 3], [0, 0.9, 2]])
    batch = Batch(((shared,) * 3, (shared, other, shared)), (affine,) * 2, (16, 24), (1.0, 99.0))
    _host(batch)
    assert len(resampled) == 1 + 2
