"""CPU backend: NumPy reference of the kernels, and ONNX Runtime for the models."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from stenosis_trt.engine.backends.base import Float32Array, Roi
from stenosis_trt.engine.backends.host_inputs import network_inputs
from stenosis_trt.engine.backends.model_checks import (
    ModelOutputError,
    check_tensor,
    check_values,
    model_error,
    noise_batch,
)
from stenosis_trt.engine.backends.stepwise import StepwiseBackend
from stenosis_trt.engine.packs.models import InputSpec, ModelSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedSlice
from stenosis_trt.kernels.reference import decode_keypoints

_MAX_BATCH = 16
"""Largest batch for ONNX Runtime: larger ones increase the peak memory but not the speed."""

_ERRORS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NotImplemented,
    state.RuntimeException,
)
"""Exceptions of ONNX Runtime for a file that is not a model, or that it cannot run."""
_LONGEST = 200
"""Characters of its messages that are quoted: some contain the graph."""
_SILENT = 4
"""Minimum severity (fatal) that ONNX Runtime logs to standard error: failures are also raised."""


class OnnxRuntimeBackend(StepwiseBackend):
    """Runs a pack's ONNX models on the CPU.

    The constructor opens every model, checks it against its specification and runs it on noise, so that an
    unusable pack is found before the first study.

    Args:
        pack: the models.
        threads: threads per operator; None for all cores available to this process.

    Raises:
        PackError: a model cannot be loaded or run, or differs from pack.json.
    """

    name = "onnxruntime"

    def __init__(self, pack: Pack, threads: int | None = None) -> None:
        super().__init__(pack)
        self._threads = threads if threads is not None else len(os.sched_getaffinity(0))
        self._sessions = {model.name: self._open(model) for model in pack.models.values()}
        for model in pack.models.values():
            self._try(model)

    def preprocess(self, slices: Sequence[LoadedSlice], rois: Sequence[Roi], spec: InputSpec) -> Float32Array:
        """See `StepwiseBackend.preprocess`."""
        return network_inputs(slices, rois, spec)

    def infer(self, model: str, batch: Float32Array) -> Float32Array:
        """See `StepwiseBackend.infer`.

        Raises:
            ModelOutputError: the output differs from the specification of the model.
        """
        session = self._sessions[model]
        name = session.get_inputs()[0].name
        parts = [
            session.run(None, {name: batch[first : first + _MAX_BATCH]})[0]
            for first in range(0, len(batch), _MAX_BATCH)
        ]
        output = np.concatenate(parts).astype(np.float32, copy=False)
        check_values(self.pack.models[model], batch, output)
        return output

    def decode(self, heatmaps: Float32Array) -> Float32Array:
        """See `StepwiseBackend.decode`."""
        return decode_keypoints(heatmaps)

    def close(self) -> None:
        """See `Backend.close`."""
        self._sessions.clear()

    def _open(self, model: ModelSpec) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        # Otherwise idle threads spin and take the cores from the reader.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Run quantised models as they are written. The Q/DQ rewrite of ONNX Runtime 1.32 in half precision
        # changes heatmaps by up to 0.17, and is no faster.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            session = onnxruntime.InferenceSession(
                self.pack.read_model(model.name), options, providers=["CPUExecutionProvider"]
            )
        except _ERRORS as error:
            raise model_error(model, f"ONNX Runtime cannot load it ({_line(error)})") from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            found = f"{len(inputs)} inputs and {len(outputs)} outputs"
            raise model_error(model, f"it has {found} instead of one each")
        for name, wanted, tensor in (
            ("input", model.input_shape, inputs[0]),
            ("output", model.output_shape, outputs[0]),
        ):
            check_tensor(model, name, wanted, tensor.shape, tensor.type == "tensor(float)")
        return session

    def _try(self, model: ModelSpec) -> None:
        try:
            self.infer(model.name, noise_batch(model))
        except _ERRORS as error:
            raise model_error(model, f"ONNX Runtime cannot run it ({_line(error)})") from error
        except ModelOutputError as error:
            # Invalid output for noise is a fault of the model, not of a study.
            raise model_error(model, error.fault) from error


def _line(error: Exception) -> str:
    """The message on one line, truncated."""
    return " ".join(str(error).split())[:_LONGEST]
