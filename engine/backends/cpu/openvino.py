"""Runs a model on the CPU by OpenVINO."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.cpu.candidates import Execution
from stenosis_trt.engine.backends.cpu.runtime import ModelRuntimeError, quoted
from stenosis_trt.engine.backends.model_checks import check_tensor, model_error
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically
from stenosis_trt.engine.support.hardware import arithmetic_features, processor_name
from stenosis_trt.engine.support.openvino_library import import_openvino

_DEVICE = "CPU"
_DIGEST_BYTES = hashlib.sha256().digest_size


class OpenVinoModel:
    """A model that OpenVINO runs. See `ModelRuntime`.

    Args:
        model: its specification.
        read: reads its ONNX file; called only if the compiled model is not in the cache.
        execution: streams, and threads of each.
        floats: "f32" or "bf16": type that floating-point layers are computed in. Tensors stay float32.
        cache: folder of compiled models; None to compile each time.

    Raises:
        PackError: it cannot be loaded, or its tensors differ from the specification.
    """

    def __init__(
        self,
        model: ModelSpec,
        read: Callable[[], bytes],
        execution: Execution,
        floats: str,
        cache: Path | None = None,
    ) -> None:
        settings = {
            "NUM_STREAMS": execution.streams,
            "INFERENCE_NUM_THREADS": execution.streams * execution.threads,
            "INFERENCE_PRECISION_HINT": floats,
            # Processes that read files use the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        place = None if cache is None else cache / _cache_name(model, settings)
        self._compiled: Any = _cached(place, settings) if place is not None else None
        if self._compiled is None:
            try:
                self._compiled = _core().compile_model(_core().read_model(model=read()), _DEVICE, settings)
            except RuntimeError as error:
                raise model_error(model, f"OpenVINO cannot load it ({quoted(error)})") from error
            if place is not None:
                _store(place, self._compiled)
        inputs, outputs = self._compiled.inputs, self._compiled.outputs
        if len(inputs) != 1 or len(outputs) != 1:
            found = f"{len(inputs)} inputs and {len(outputs)} outputs"
            raise model_error(model, f"it has {found} instead of one each")
        for name, wanted, tensor in (
            ("input", model.input_shape, inputs[0]),
            ("output", model.output_shape, outputs[0]),
        ):
            shape = [None if size.is_dynamic else size.get_length() for size in tensor.partial_shape]
            check_tensor(model, name, wanted, shape, tensor.element_type == import_openvino().Type.f32)
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


@lru_cache(maxsize=1)
def _core() -> Any:
    return import_openvino().Core()


def _cache_name(model: ModelSpec, settings: Mapping[str, object]) -> str:
    """File name of a compiled model: hashes of its ONNX file, and of what it was compiled for."""
    made_for = (
        import_openvino().get_version(),
        processor_name(),
        arithmetic_features(),
        sorted(settings.items()),
    )
    return f"{model.sha256[:32]}-{hashlib.sha256(repr(made_for).encode()).hexdigest()[:16]}.blob"


def _cached(place: Path, settings: Mapping[str, object]) -> Any:
    """Load a compiled model; None if it is not there, damaged, or OpenVINO refuses it."""
    try:
        with place.open("rb") as stream:
            digest, data = stream.read(_DIGEST_BYTES), stream.read()
    except OSError:
        return None
    if hashlib.sha256(data).digest() != digest:
        return None
    try:
        return _core().import_model(data, _DEVICE, settings)
    except RuntimeError:
        return None


def _store(place: Path, compiled: Any) -> None:
    """Keep a compiled model with its hash."""
    data = compiled.export_model().getvalue()
    # Without the cache the model is compiled each time.
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_bytes_atomically(place, hashlib.sha256(data).digest() + data)
