"""Runs a model on the CPU by OpenVINO. The only importer of `openvino` in `engine`."""

from __future__ import annotations

from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import openvino

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.cpu.candidates import Execution
from stenosis_trt.engine.backends.cpu.runtime import ModelRuntimeError, quoted
from stenosis_trt.engine.backends.model_checks import check_tensor, model_error
from stenosis_trt.engine.packs.models import ModelSpec

_DEVICE = "CPU"


class OpenVinoModel:
    """A model that OpenVINO runs. See `ModelRuntime`.

    Args:
        model: its specification.
        data: its ONNX file.
        execution: streams, and threads of each.
        floats: "f32" or "bf16": type that floating-point layers are computed in. Tensors stay float32.

    Raises:
        PackError: it cannot be loaded, or its tensors differ from the specification.
    """

    def __init__(self, model: ModelSpec, data: bytes, execution: Execution, floats: str) -> None:
        settings = {
            "NUM_STREAMS": execution.streams,
            "INFERENCE_NUM_THREADS": execution.streams * execution.threads,
            "INFERENCE_PRECISION_HINT": floats,
            # Processes that read files use the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            read = _core().read_model(model=data)
        except RuntimeError as error:
            raise model_error(model, f"OpenVINO cannot load it ({quoted(error)})") from error
        if len(read.inputs) != 1 or len(read.outputs) != 1:
            found = f"{len(read.inputs)} inputs and {len(read.outputs)} outputs"
            raise model_error(model, f"it has {found} instead of one each")
        for name, wanted, tensor in (
            ("input", model.input_shape, read.inputs[0]),
            ("output", model.output_shape, read.outputs[0]),
        ):
            shape = [None if size.is_dynamic else size.get_length() for size in tensor.partial_shape]
            check_tensor(model, name, wanted, shape, tensor.element_type == openvino.Type.f32)
        try:
            self._compiled = _core().compile_model(read, _DEVICE, settings)
        except RuntimeError as error:
            raise model_error(model, f"OpenVINO cannot load it ({quoted(error)})") from error
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def run(self, batch: Float32Array) -> Float32Array:
        """See `ModelRuntime.run`."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            request.infer([batch], share_inputs=True)
            # The request reuses the memory of its output.
            output: Float32Array = np.array(request.get_output_tensor(0).data, dtype=np.float32)
        except RuntimeError as error:
            raise ModelRuntimeError(f"OpenVINO cannot run it ({quoted(error)})") from error
        self._idle.put(request)
        return output

    def close(self) -> None:
        """See `ModelRuntime.close`."""
        self._idle = SimpleQueue()
        del self._compiled


def computes_bfloat16() -> bool:
    """True if OpenVINO computes bfloat16 with instructions of this processor, rather than not at all."""
    return "BF16" in _core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


@lru_cache(maxsize=1)
def _core() -> Any:
    return openvino.Core()
