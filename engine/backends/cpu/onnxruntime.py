"""Runs a model on the CPU by ONNX Runtime. The only importer of `onnxruntime` in `engine`."""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.cpu.runtime import ModelRuntimeError, quoted
from stenosis_trt.engine.backends.model_checks import check_tensor, model_error
from stenosis_trt.engine.packs.models import ModelSpec

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
_SILENT = 4
"""Minimum severity (fatal) that ONNX Runtime logs to standard error: failures are also raised."""


class OnnxRuntimeModel:
    """A model that ONNX Runtime runs. See `ModelRuntime`.

    Args:
        model: its specification.
        data: its ONNX file.
        threads: threads per operator.

    Raises:
        PackError: it cannot be loaded, or its tensors differ from the specification.
    """

    def __init__(self, model: ModelSpec, data: bytes, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        # Otherwise idle threads spin and take the cores from the reader.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Run quantised models as they are written. The Q/DQ rewrite of ONNX Runtime 1.32 in half precision
        # changes heatmaps by up to 0.17, and is no faster.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise model_error(model, f"ONNX Runtime cannot load it ({quoted(error)})") from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            found = f"{len(inputs)} inputs and {len(outputs)} outputs"
            raise model_error(model, f"it has {found} instead of one each")
        for name, wanted, tensor in (
            ("input", model.input_shape, inputs[0]),
            ("output", model.output_shape, outputs[0]),
        ):
            check_tensor(model, name, wanted, tensor.shape, tensor.type == "tensor(float)")
        self._session, self._input = session, inputs[0].name

    def run(self, batch: Float32Array) -> Float32Array:
        """See `ModelRuntime.run`."""
        try:
            (output,) = self._session.run(None, {self._input: batch})
        except _ERRORS as error:
            raise ModelRuntimeError(f"ONNX Runtime cannot run it ({quoted(error)})") from error
        return np.asarray(output, dtype=np.float32)

    def close(self) -> None:
        """See `ModelRuntime.close`."""
        del self._session
