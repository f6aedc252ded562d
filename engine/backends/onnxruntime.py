"""The CPU backend: the kernels' NumPy reference, and ONNX Runtime for the models."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from stenosis_trt.engine.backends.base import Float32Array, Roi
from stenosis_trt.engine.pack import InputSpec, Pack, PackError
from stenosis_trt.engine.records import LoadedSlice
from stenosis_trt.kernels.reference import RegionSource, decode_keypoints, preprocess_region, region_window

_MAX_BATCH = 16
"""Inputs given to ONNX Runtime at once: activations of more would raise the peak of memory, not the speed."""


_LOAD_ERRORS = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.NotImplemented)
"""What ONNX Runtime raises on a file that is no model, or none that it can run."""


class OnnxRuntimeBackend:
    """Runs a pack's ONNX models on the CPU.

    Args:
        pack: the models; each is read and its session made on first use.
        threads: threads within an operator; None takes all cores this process may use.
    """

    name = "onnxruntime"

    def __init__(self, pack: Pack, threads: int | None = None) -> None:
        self._pack = pack
        self._threads = threads if threads is not None else len(os.sched_getaffinity(0))
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def preprocess(self, slices: Sequence[LoadedSlice], rois: Sequence[Roi], spec: InputSpec) -> Float32Array:
        """See `Backend.preprocess`."""
        batch = np.empty((len(rois), spec.channels, spec.height, spec.width), dtype=np.float32)
        for index, roi in enumerate(rois):
            sources = [
                RegionSource(slices[k].stored, slices[k].frame.slope, slices[k].frame.intercept)
                for k in roi.slices
            ]
            window = region_window(sources, roi.affine, spec.size, spec.window_percentiles)
            batch[index] = preprocess_region(sources, roi.affine, spec.size, window, (spec.mean, spec.std))
        return batch

    def infer(self, model: str, batch: Float32Array) -> Float32Array:
        """See `Backend.infer`."""
        session = self._session(model)
        name = session.get_inputs()[0].name
        parts = [
            session.run(None, {name: batch[first : first + _MAX_BATCH]})[0]
            for first in range(0, len(batch), _MAX_BATCH)
        ]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def decode(self, heatmaps: Float32Array) -> Float32Array:
        """See `Backend.decode`."""
        return decode_keypoints(heatmaps)

    def close(self) -> None:
        """See `Backend.close`."""
        self._sessions.clear()

    def _session(self, model: str) -> onnxruntime.InferenceSession:
        if model not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
            # Between studies the threads would otherwise spin and keep the reader from the cores.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                self._sessions[model] = onnxruntime.InferenceSession(
                    self._pack.read_model(model), options, providers=["CPUExecutionProvider"]
                )
            except _LOAD_ERRORS as error:
                raise PackError(
                    f"ONNX Runtime cannot load {self._pack.models[model].file}: {error}",
                    "Get the pack again from its maker, or export the model again.",
                ) from error
        return self._sessions[model]
