"""A study of noise, to run every model before the first study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.backends.base import ReadingMemory, Roi
from stenosis_trt.engine.backends.gpu.inputs import PlacedSlice
from stenosis_trt.engine.backends.gpu.mirrored_arrays import align_up
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.packs.crop import slice_roi
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import FrameHeader, LoadedSlice, LoadedStudy, SeriesHeader, StudyHeader

_SLICES = 2


def central_roi(slices: Sequence[PlacedSlice], spec: InputSpec) -> Roi:
    """Region at the centre of the first slice, with the other slices as neighbours."""
    pose = slices[0].slice.pose
    indices = tuple(k % len(slices) for k in range(spec.channels))
    if spec.channel_source == "slice":
        indices = (0,) * spec.channels
    return Roi(indices, slice_roi(pose, pose.centre, spec))


def copy_into_memory(memory: ReadingMemory, study: LoadedStudy) -> LoadedStudy:
    """Copy of a study whose pixels lie at the start of the memory, which must be large enough."""
    first = 0

    def moved(slices: tuple[LoadedSlice, ...]) -> tuple[LoadedSlice, ...]:
        nonlocal first
        result = []
        for item in slices:
            room = memory.array[first : first + item.stored.nbytes]
            stored: npt.NDArray[np.uint16] = room.view(np.uint16).reshape(item.stored.shape)
            stored[:] = item.stored
            result.append(replace(item, stored=stored))
            first += align_up(item.stored.nbytes)
        return tuple(result)

    return replace(study, sagittal=moved(study.sagittal), axial=moved(study.axial))


def noise_study(pack: Pack) -> LoadedStudy:
    """Create a study of noise in the size of the model inputs, with axis-aligned slices."""
    random = np.random.default_rng(0)
    axes = {"sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)), "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))}

    def slices(plane: str) -> tuple[LoadedSlice, ...]:
        specs = [model.input for model in pack.models.values() if model.input.plane == plane]
        side_mm = max(max(spec.size) * spec.spacing_mm for spec in specs)
        spacing = min(spec.spacing_mm for spec in specs)
        pixels = int(np.ceil(side_mm / spacing))
        pose = SlicePose((0.0, 0.0, 0.0), *axes[plane], spacing, spacing, pixels, pixels)
        frame = FrameHeader(Path("noise"), 0, "", pose)
        return tuple(
            LoadedSlice(frame, pose, random.integers(0, 1000, (pixels, pixels), dtype=np.uint16))
            for _ in range(_SLICES)
        )

    series = SeriesHeader("", "", "MR", ())
    return LoadedStudy(
        header=StudyHeader("", "", ()),
        sagittal_series=series,
        sagittal=slices("sagittal"),
        axial_series=series,
        axial=slices("axial"),
        same_frame_of_reference=True,
    )
