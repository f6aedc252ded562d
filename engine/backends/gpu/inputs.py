"""Describe regions of slices for the kernels, padded to a batch size of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.backends.base import Roi
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.packs.models import InputSpec, ModelSpec
from stenosis_trt.engine.records import LoadedSlice
from stenosis_trt.kernels.descriptors import (
    describe_frames,
    describe_planes,
    preprocess_kernel,
    statistics_work,
)
from stenosis_trt.kernels.layouts import DIRECTION, WINDOW
from stenosis_trt.kernels.reference import RegionSource, region_window
from stenosis_trt.kernels.region_batch import RegionBatch, SliceLayout, regions_per_input, stored_window


@dataclass(frozen=True)
class PlacedSlice:
    """A slice and the layout of its pixels in the arena."""

    slice: LoadedSlice
    layout: SliceLayout


@dataclass(frozen=True)
class DescribedInputs:
    """Descriptor arrays of a padded batch.

    Attributes:
        count: number of requested inputs; the padding repeats the last one.
        regions, requests: REGION and RANK_REQUEST for the windows; None if `windows` is given.
        windows: WINDOW, computed on the host; None if the device computes them.
        planes: PLANE.
        frames: FRAME for heatmaps; None for classes.
        directions: DIRECTION of the cord for heatmaps; None for classes.
        kernel: name of the resampling kernel without its precision suffix.
    """

    count: int
    regions: np.ndarray | None
    requests: np.ndarray | None
    windows: np.ndarray | None
    planes: np.ndarray
    frames: np.ndarray | None
    directions: np.ndarray | None
    kernel: str


def planes_per_input(spec: InputSpec) -> int:
    """Number of planes, and of regions for the statistics, per input."""
    return regions_per_input(spec.channels, spec.channel_source == "slice")


def describe_inputs(
    slices: Sequence[PlacedSlice], rois: Sequence[Roi], model: ModelSpec, bucket: int, blocks: int
) -> DescribedInputs:
    """Describe 1 to `bucket` regions.

    Args:
        slices: slices that the indices of the regions refer to.
        rois: regions to resample.
        model: model that the inputs are for.
        bucket: batch size to pad to.
        blocks: blocks per region of the statistics.

    Raises:
        ValueError: a region lies too far from its image, see `describe_planes`.
    """
    spec = model.input
    padded = [*rois, *[rois[-1]] * (bucket - len(rois))]
    cuts = RegionBatch(
        [item.layout for item in slices],
        np.array([roi.slices for roi in padded]),
        np.array([roi.affine for roi in padded]),
        spec.size,
        single_slice=spec.channel_source == "slice",
    )
    # The device finds windows only for inputs whose channels share rescale and signedness.
    on_host = not cuts.has_uniform_rescale.all()
    planes = describe_planes(cuts, spec.mean, spec.std, window_per_channel=on_host)
    frames = directions = None
    if model.output.kind == "heatmaps":
        frames = _frames(slices, cuts, model.output.stride)
        directions = np.zeros(len(padded), DIRECTION)
        directions["d"] = [roi.direction for roi in padded]
    kernel = preprocess_kernel(planes, cuts)
    if on_host:
        windows = np.concatenate([_windows(slices, roi, spec) for roi in padded])
        return DescribedInputs(len(rois), None, None, windows, planes, frames, directions, kernel)
    work = statistics_work(cuts, spec.window_percentiles, blocks)
    return DescribedInputs(len(rois), work.regions, work.requests, None, planes, frames, directions, kernel)


def _windows(slices: Sequence[PlacedSlice], roi: Roi, spec: InputSpec) -> np.ndarray:
    """WINDOW of each channel, computed on the host."""
    members = [slices[k] for k in roi.slices]
    sources = [RegionSource(item.slice.stored, item.layout.slope, item.layout.intercept) for item in members]
    window = region_window(sources, roi.affine, spec.size, spec.window_percentiles)
    return np.array([stored_window(item.layout, window) for item in members], dtype=WINDOW)


def _frames(slices: Sequence[PlacedSlice], cuts: RegionBatch, stride: int) -> np.ndarray:
    """FRAME of each input: its heatmaps lie in the slice of the middle channel."""
    middle = cuts.slice_indices[:, cuts.slice_indices.shape[1] // 2]
    poses = np.array([slices[k].slice.pose.pixel_to_patient for k in middle])
    return describe_frames(_heatmap_to_source(cuts.affines, stride), poses)


def _heatmap_to_source(affines: FloatArray, stride: int) -> FloatArray:
    """`roi.to_source` after `roi.heatmap_to_input`, as affines (N, 2, 3)."""
    linear = affines[:, :, :2]
    offset = affines[:, :, 2] + linear.sum(axis=2) * (0.5 * stride - 0.5)
    return np.concatenate([linear * stride, offset[:, :, None]], axis=2)
