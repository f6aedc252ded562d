"""The field of the levels model lies where the neck is, in images that are larger than the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from level_peaks import MODEL, Blob, Neck, level_peaks, sagittal_stack, straight_neck

from stenosis_trt.engine.backends.base import Peaks, Roi
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.grading.level_search import level_fields
from stenosis_trt.engine.grading.numbering import locate_levels
from stenosis_trt.engine.packs.crop import crop_to_patient, slice_rois
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.records import LEVELS, LoadedSlice

_NEAR_MM = 27.0
"""Largest distance of the field's middle from that of the levels."""
SIX_MAPS = replace(MODEL, output=replace(MODEL.output, names=LEVELS))


class _Network:
    """Answers with the peaks of the maps that lie in each region, and keeps the regions."""

    def __init__(
        self, stack: Sequence[LoadedSlice], maps: Mapping[str, Sequence[Blob]], model: ModelSpec = MODEL
    ) -> None:
        self.stack, self.maps, self.model = stack, maps, model
        self.calls: list[list[Roi]] = []

    def __call__(self, rois: Sequence[Roi]) -> Peaks:
        self.calls.append(list(rois))
        answers = []
        for roi in rois:
            item = self.stack[roi.slices[0]]
            inside = {
                name: [(point, height) for point, height in blobs if self._is_inside(item, roi, point)]
                for name, blobs in self.maps.items()
            }
            answers.append(level_peaks([item], inside, self.model.output.names))
        return Peaks(
            np.concatenate([answer.points for answer in answers]),
            np.concatenate([answer.heights for answer in answers]),
            np.concatenate([answer.support for answer in answers]),
        )

    def _is_inside(self, item: LoadedSlice, roi: Roi, point: FloatArray) -> bool:
        xy = np.linalg.solve(roi.affine[:, :2], item.pose.to_pixels(point)[:2] - roi.affine[:, 2])
        return bool((xy >= 0).all() and (xy <= 255).all())


def _moved(maps: Mapping[str, Sequence[Blob]], by: Sequence[float]) -> dict[str, list[Blob]]:
    return {name: [(point + by, height) for point, height in blobs] for name, blobs in maps.items()}


def _middle(neck: Neck) -> FloatArray:
    return np.asarray(neck.discs[: len(LEVELS)].mean(axis=0))


def _centres(stack: Sequence[LoadedSlice], affines: FloatArray) -> FloatArray:
    """Patient points in the middle of the fields, (N, 3)."""
    return np.array(
        [
            crop_to_patient(item.pose, affine, [(MODEL.input.width - 1) / 2, (MODEL.input.height - 1) / 2])
            for item, affine in zip(stack, affines, strict=True)
        ]
    )


@pytest.mark.parametrize("height_mm", [160.0, 256.0, 257.0, 280.0])
def test_images_that_fit_the_field_are_not_searched(height_mm: float) -> None:
    stack = sagittal_stack(height_mm / 2, -height_mm / 2)
    network = _Network(stack, straight_neck().maps())
    affines = level_fields(stack, MODEL, network)
    assert network.calls == []
    assert _centres(stack, affines) == pytest.approx(np.array([item.pose.centre for item in stack]))
    pose = stack[0].pose
    ends = [pose.to_pixels(crop_to_patient(pose, affines[0], [127.5, y]))[1] for y in (-0.5, 255.5)]
    assert ends[0] <= -0.5 + 1e-6
    assert ends[1] >= pose.rows - 0.5 - 1e-6
    if height_mm <= 256.0:
        assert affines == pytest.approx(
            slice_rois([i.pose for i in stack], [i.pose.centre for i in stack], MODEL.input)
        )


def test_an_image_slightly_wider_and_much_taller_than_the_field_is_covered() -> None:
    stack = [replace(item, pose=replace(item.pose, columns=340)) for item in sagittal_stack(300.0, -300.0)]
    network = _Network(stack, _moved(straight_neck().maps(), (0.0, 0.0, 200.0)))
    affines = level_fields(stack, MODEL, network)
    assert len(network.calls) == 1
    pose = stack[0].pose
    corners = [pose.to_pixels(crop_to_patient(pose, affines[0], [x, 127.5]))[0] for x in (-0.5, 255.5)]
    assert min(corners) == pytest.approx(-0.5)
    assert max(corners) == pytest.approx(pose.columns - 0.5)


@pytest.mark.parametrize("model", [MODEL, SIX_MAPS])
@pytest.mark.parametrize("z", [220.0, 130.0, 0.0, -95.0, -190.0])
def test_the_field_is_where_the_neck_is_in_a_tall_image(z: float, model: ModelSpec) -> None:
    stack = sagittal_stack(300.0, -300.0)
    neck = straight_neck()
    maps = _moved(neck.maps(), (0.0, 0.0, z))
    network = _Network(stack, maps, model)
    affines = level_fields(stack, model, network)
    centres = _centres(stack, affines)
    assert len(network.calls) == 1
    assert len(network.calls[0]) == 3 * 4
    assert centres[:, 2] == pytest.approx(np.full(9, _middle(neck)[2] + z), abs=_NEAR_MM)
    # Along the axis that fits the field, the middle of the image remains.
    assert centres[:, 1] == pytest.approx([item.pose.centre[1] for item in stack])
    peaks = network([Roi((k,), affine) for k, affine in enumerate(affines)])
    located = locate_levels(stack, peaks, model)
    for item, disc in zip(located.levels, neck.discs, strict=False):
        assert item.point == pytest.approx(np.add(disc, [0.0, 0.0, z]), abs=0.6)


@pytest.mark.parametrize("z", [-20.0, 0.0, 20.0])
def test_the_field_stays_in_the_middle_where_the_neck_is(z: float) -> None:
    stack = sagittal_stack(200.0, -200.0)
    neck = straight_neck()
    maps = _moved(neck.maps(), (0.0, 0.0, z - _middle(neck)[2]))
    centres = _centres(stack, level_fields(stack, MODEL, _Network(stack, maps)))
    assert centres == pytest.approx(np.array([item.pose.centre for item in stack]))


def test_the_field_is_where_the_neck_is_in_a_wide_image() -> None:
    stack = [replace(item, pose=replace(item.pose, columns=560)) for item in sagittal_stack()]
    neck = straight_neck()
    network = _Network(stack, _moved(neck.maps(), (0.0, 280.0, 0.0)))
    centres = _centres(stack, level_fields(stack, MODEL, network))
    assert len(network.calls) == 1
    assert centres[:, 1] == pytest.approx(np.full(9, _middle(neck)[1] + 280.0), abs=_NEAR_MM)
    assert centres[:, 2] == pytest.approx([item.pose.centre[2] for item in stack])


def test_any_neck_lies_whole_in_one_window() -> None:
    for height_mm in np.arange(285.0, 700.0, 13.0):
        stack = sagittal_stack(height_mm / 2, -height_mm / 2)
        network = _Network(stack, {})
        level_fields(stack, MODEL, network)
        pose = stack[0].pose
        edges = sorted({round(float(pose.to_patient(roi.affine[:, 2])[2]), 3) for roi in network.calls[0]})
        windows = np.array([(edge - 255.0, edge) for edge in edges])
        assert windows.min() <= -height_mm / 2 + 1.5
        assert windows.max() >= height_mm / 2 - 1.5
        for top in np.arange(height_mm / 2 - 1.5, -height_mm / 2 + 130.0, -5.0):
            assert ((windows[:, 0] <= top - 128.0) & (windows[:, 1] >= top)).any()


def test_of_two_necks_that_with_the_better_chain_is_taken() -> None:
    """Below the neck lies a mirror image of it, and below that a copy whose peaks are lower."""
    stack = sagittal_stack(300.0, -300.0)
    neck = straight_neck()
    maps = _moved(neck.maps(), (0.0, 0.0, 200.0))
    for name, (point, height) in ((name, blobs[0]) for name, blobs in neck.maps().items()):
        maps[name].append((point * [1.0, 1.0, -1.0], height))
        maps[name].append((point - [0.0, 0.0, 200.0], 0.8 * height))
    centres = _centres(stack, level_fields(stack, MODEL, _Network(stack, maps)))
    assert centres[:, 2] == pytest.approx(np.full(9, _middle(neck)[2] + 200.0), abs=_NEAR_MM)


def test_the_neck_with_landmarks_is_taken_and_not_the_thorax() -> None:
    """The maps of the discs are higher at those of the thorax, as of a network that never saw one."""
    stack = sagittal_stack(300.0, -300.0)
    neck = straight_neck()
    maps = _moved(neck.maps(height=0.8), (0.0, 0.0, 200.0))
    thorax = straight_neck(20.0)
    for name, ((point, height), *_) in thorax.maps(height=0.95).items():
        if name not in ("C2", "dens"):
            maps[name].append((point - [0.0, 0.0, 100.0], height))
    centres = _centres(stack, level_fields(stack, MODEL, _Network(stack, maps)))
    assert centres[:, 2] == pytest.approx(np.full(9, _middle(neck)[2] + 200.0), abs=_NEAR_MM)


@pytest.mark.parametrize("x", [-13.0, 13.0])
def test_a_cord_beside_the_middle_of_the_stack_is_met(x: float) -> None:
    stack = sagittal_stack(250.0, -250.0, slices=15)
    neck = straight_neck(x=x)
    centres = _centres(
        stack, level_fields(stack, MODEL, _Network(stack, _moved(neck.maps(), (0.0, 0.0, 150.0))))
    )
    assert centres[:, 2] == pytest.approx(np.full(15, _middle(neck)[2] + 150.0), abs=_NEAR_MM)


def test_without_a_neck_the_middle_of_the_image_remains() -> None:
    stack = sagittal_stack(300.0, -300.0)
    centres = _centres(stack, level_fields(stack, MODEL, _Network(stack, {})))
    assert centres == pytest.approx(np.array([item.pose.centre for item in stack]))


def test_a_stack_of_few_slices_is_searched_on_each_once() -> None:
    stack = sagittal_stack(300.0, -300.0, slices=2)
    network = _Network(stack, {})
    level_fields(stack, MODEL, network)
    assert len(network.calls[0]) == 2 * 4
