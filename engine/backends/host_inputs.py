"""Network inputs computed on the host, from the slices of a study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array, Roi
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.records import LoadedSlice
from stenosis_trt.kernels.host import preprocess_regions
from stenosis_trt.kernels.reference import RegionSource


def network_inputs(slices: Sequence[LoadedSlice], rois: Sequence[Roi], spec: InputSpec) -> Float32Array:
    """Window, resample and normalise regions.

    Args:
        slices: the slices that `Roi.slices` are indices of.
        rois: N regions.
        spec: input specification of the model.

    Returns:
        float32 (N, C, H, W).
    """
    sources = {
        k: RegionSource(slices[k].stored, slices[k].frame.slope, slices[k].frame.intercept)
        for k in {index for roi in rois for index in roi.slices}
    }
    return preprocess_regions(
        [[sources[k] for k in roi.slices] for roi in rois],
        np.array([roi.affine for roi in rois], dtype=np.float64).reshape(-1, 2, 3),
        spec.size,
        spec.window_percentiles,
        (spec.mean, spec.std),
    )
