"""Which field of each sagittal slice the levels model looks at.

That is the middle of the image, where the image fits the field. An image up to `LARGER` times as large is
sampled more coarsely, so that it fits. Of a larger one, windows of the field's size that overlap by half or
more are run first on three slices near the middle of the stack, in one request. The window whose discs, and
landmarks, make the best chain says where the field of all slices must lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from stenosis_trt.engine.backends.base import Peaks, Roi
from stenosis_trt.engine.geometry import FloatArray, SlicePose
from stenosis_trt.engine.grading.levels import PointFinder
from stenosis_trt.engine.grading.numbering import MINIMUM_LEVELS, NumberedChain, number_discs
from stenosis_trt.engine.packs.crop import canonical_directions, slice_rois
from stenosis_trt.engine.packs.models import InputSpec, ModelSpec
from stenosis_trt.engine.records import LoadedSlice

LARGER = 1.1
"""Size of an image, as a multiple of the field, up to which it is sampled more coarsely and not searched.
Discs then look 9 % smaller; training varies their size by 15 %."""

_ROUNDING = 1e-6
"""Share of the field by which an image may be larger through rounding errors of its spacing."""

_MIDDLE = 0.1
"""Distance of the levels' middle from that of the field, as a share of the field, up to which the field stays
in the middle of the image; beyond, it moves no further than that. Ordinary images have the neck as far from
their middle."""

_NECK_MM = 130.0
"""Windows overlap by at least this length, so that a neck with C2 lies whole in one of them."""

_SIDE_MM = 8.0
"""Distance of the outer two slices from the middle of the stack. A cord that runs up to 14 mm beside the
middle lies within 6 mm of one of the three: there, peaks have 0.6 of their height."""


def level_fields(
    slices: Sequence[LoadedSlice], model: ModelSpec, locate: Callable[[Sequence[Roi]], Peaks]
) -> FloatArray:
    """Return the affine of the levels model's field in each slice.

    Args:
        slices: the N slices, in the order of their positions.
        model: specification of the levels model.
        locate: runs the model on regions and waits for the result. It is called once if the images are larger
            than `LARGER` times the field, otherwise not at all.

    Returns:
        float64 (N, 2, 3): input pixel (x, y) → source pixel (column, row). The field covers the whole image
        up to `LARGER` times its size. Along axes on which the image is larger, it lies so that the middle of
        the levels is near its own.
    """
    poses = [item.pose for item in slices]
    axes, sizes = _image_axes(poses[0], model.input)
    fields = np.array([model.input.width, model.input.height]) * model.input.spacing_mm
    larger = sizes / fields
    coarser = float(np.max(larger, where=larger <= LARGER, initial=1.0))
    spec = replace(model.input, spacing_mm=model.input.spacing_mm * coarser)
    fields *= coarser
    centres = np.array([pose.centre for pose in poses])
    searched = sizes > fields * (1.0 + _ROUNDING)
    if searched.any():
        windows = np.where(searched, fields, sizes)
        chosen = _slices_near_the_middle(poses)
        offsets = [
            across * axes[0] + down * axes[1]
            for across, down in product(*map(_window_offsets, sizes, windows))
        ]
        middle = _middle_of_levels(
            [slices[k] for k in chosen], chosen, offsets, replace(model, input=spec), locate
        )
        if middle is not None:
            centres += _moves(middle - centres, axes[searched], fields[searched])
    return slice_rois(poses, centres, spec)


def _moves(away: FloatArray, axes: FloatArray, fields: FloatArray) -> FloatArray:
    """Return how far the fields move, LPS, mm, (N, 3).

    Args:
        away: from the middle of each image to that of the levels, LPS, mm, (N, 3).
        axes, fields: directions along which the image is searched (K, 3), and the field's size along each.
    """
    along = away @ axes.T
    stays = _MIDDLE * fields
    return np.asarray((along - np.clip(along, -stays, stays)) @ axes)


def _image_axes(pose: SlicePose, spec: InputSpec) -> tuple[FloatArray, FloatArray]:
    """Return the axes x and y of the field in patient coordinates (2, 3), and the image's size along each in
    mm (2,)."""
    x, y = canonical_directions([pose], spec.plane)
    axes = np.concatenate([x, y])
    along_rows = np.abs(axes @ pose.row_direction) * pose.columns * pose.column_spacing
    along_columns = np.abs(axes @ pose.column_direction) * pose.rows * pose.row_spacing
    return axes, along_rows + along_columns


def _window_offsets(size: float, field: float) -> FloatArray:
    """Return the middles of windows that cover an axis of the image, from the image's middle, in mm.

    Args:
        size: of the image in mm.
        field: size of a window; there is one of the size of the image.
    """
    step = max(min(field / 2, field - _NECK_MM), field / 4)
    count = int(np.ceil(max(size - field, 0.0) / step)) + 1
    return np.linspace(-0.5, 0.5, count) * (size - field) if count > 1 else np.zeros(1)


def _slices_near_the_middle(poses: Sequence[SlicePose]) -> list[int]:
    """Return the slices nearest to the middle of the stack and to `_SIDE_MM` beside it, each once."""
    places = np.array([float(pose.centre @ poses[0].normal) for pose in poses])
    middle = (places[0] + places[-1]) / 2
    wanted = middle + np.array([-_SIDE_MM, 0.0, _SIDE_MM])
    return sorted({int(np.abs(places - place).argmin()) for place in wanted})


def _middle_of_levels(
    slices: Sequence[LoadedSlice],
    indices: Sequence[int],
    offsets: Sequence[FloatArray],
    model: ModelSpec,
    locate: Callable[[Sequence[Roi]], Peaks],
) -> FloatArray | None:
    """Return the middle of the levels of the window with the best chain, LPS, mm; None if there is none.

    Args:
        slices: the slices to run.
        indices: their index in the stack.
        offsets: from the middle of each slice to the middle of each window, (3,).
        model, locate: see `level_fields`.
    """
    spec = model.input
    poses = [item.pose for item in slices]
    middles = np.array([pose.centre for pose in poses])
    rois = [
        Roi((index,) * spec.channels, affine)
        for offset in offsets
        for index, affine in zip(indices, slice_rois(poses, middles + offset, spec), strict=True)
    ]
    peaks = locate(rois)
    best: NumberedChain | None = None
    for first in range(0, len(rois), len(slices)):
        part = slice(first, first + len(slices))
        window = Peaks(peaks.points[part], peaks.heights[part], peaks.support[part])
        numbered = number_discs(PointFinder(slices, window, model, any_slice=True))
        if len(numbered.level_points) >= MINIMUM_LEVELS and (best is None or numbered.score > best.score):
            best = numbered
    return None if best is None else np.mean(best.level_points, axis=0)
