"""CPU backend: NumPy reference of the kernels, and a runtime for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array, Roi
from stenosis_trt.engine.backends.cpu.candidates import (
    ONNX_RUNTIME,
    OPENVINO,
    Execution,
    ModelChoice,
    default_choices,
)
from stenosis_trt.engine.backends.cpu.runtime import ModelRuntime, ModelRuntimeError
from stenosis_trt.engine.backends.host_inputs import network_inputs
from stenosis_trt.engine.backends.model_checks import ModelOutputError, check_values, model_error, noise_batch
from stenosis_trt.engine.backends.stepwise import Inference, StepwiseBackend
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedSlice
from stenosis_trt.engine.support.hardware import usable_cores
from stenosis_trt.kernels.binaries import cache_folder
from stenosis_trt.kernels.decoding import decode_keypoints


class CpuBackend(StepwiseBackend):
    """Runs a pack's ONNX models on the CPU.

    A batch is cut into parts, and as many parts as there are streams run at the same time, while the caller
    preprocesses the next ones. The constructor opens every model, checks it against its specification and
    runs it on noise, so that an unusable pack is found before the first study.

    Args:
        pack: the models, each in the precision of its file that is to be run.
        threads: cores to use; None for all that are available to this process.
        choices: how each model is run; None for `default_choices`.
        keep_compiled: keep what OpenVINO compiled in the user's cache, which opens it faster the next time.

    Attributes:
        name: "openvino" if any model is run by it, else "onnxruntime".

    Raises:
        PackError: a model cannot be loaded or run, or differs from pack.json.
    """

    def __init__(
        self,
        pack: Pack,
        threads: int | None = None,
        choices: Mapping[str, ModelChoice] | None = None,
        keep_compiled: bool = False,
    ) -> None:
        super().__init__(pack)
        # Nobody signs the cache.
        self._cache = cache_folder() / OPENVINO if keep_compiled and pack.trust is None else None
        self._choices = choices or default_choices(pack, threads or usable_cores())
        runtimes = {choice.arithmetic.runtime for choice in self._choices.values()}
        self.name = OPENVINO if OPENVINO in runtimes else ONNX_RUNTIME
        streams = max(
            execution.streams for item in self._choices.values() for execution in (item.single, item.several)
        )
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="inference")
        self._opened: dict[tuple[str, int, int], ModelRuntime] = {}
        try:
            # The largest model takes longest: the others are opened beside it.
            opening = [
                (name, execution, self._pool.submit(self._open, name, execution))
                for name, execution in ((name, self._choices[name].several) for name in pack.models)
            ]
            for name, execution, opened in opening:
                self._opened[_key(name, execution)] = opened.result()
        except BaseException:
            self.close()
            raise

    @property
    def choices(self) -> Mapping[str, ModelChoice]:
        """How each model is run."""
        return self._choices

    def preprocess(self, slices: Sequence[LoadedSlice], rois: Sequence[Roi], spec: InputSpec) -> Float32Array:
        """See `StepwiseBackend.preprocess`."""
        return network_inputs(slices, rois, spec)

    def inference(self, model: str, count: int) -> Inference:
        """See `StepwiseBackend.inference`."""
        execution = self._choices[model].execution(count)
        key = _key(model, execution)
        if key not in self._opened:
            # Few inputs are rare: their way to run is opened when it is needed.
            self._opened[key] = self._open(model, execution)
        evenly = -(-count // execution.streams)
        return Inference(max(1, min(execution.part, evenly)), partial(self._submit, model, self._opened[key]))

    def infer(self, model: str, batch: Float32Array) -> Float32Array:
        """See `StepwiseBackend.infer`.

        Raises:
            ModelOutputError: the output differs from the specification of the model.
        """
        inference = self.inference(model, len(batch))
        parts = [batch[first : first + inference.part] for first in range(0, len(batch), inference.part)]
        return np.concatenate([pending.result() for pending in [*map(inference.submit, parts)]])

    def decode(self, heatmaps: Float32Array) -> Float32Array:
        """See `StepwiseBackend.decode`."""
        return decode_keypoints(heatmaps)

    def close(self) -> None:
        """See `Backend.close`."""
        self._pool.shutdown(cancel_futures=True)
        for runtime in self._opened.values():
            runtime.close()
        self._opened.clear()

    def _submit(self, model: str, runtime: ModelRuntime, batch: Float32Array) -> Future[Float32Array]:
        return self._pool.submit(self._run, model, runtime, batch)

    def _run(self, model: str, runtime: ModelRuntime, batch: Float32Array) -> Float32Array:
        spec = self.pack.models[model]
        try:
            output = runtime.run(batch)
        except ModelRuntimeError as error:
            raise ModelOutputError(spec, str(error)) from error
        check_values(spec, batch, output)
        return output

    def _open(self, name: str, execution: Execution) -> ModelRuntime:
        """Open a model and run it on noise."""
        model = self.pack.models[name]
        opened = self._load(name, execution)
        try:
            self._run(name, opened, noise_batch(model))
        except ModelOutputError as error:
            # Invalid output for noise is a fault of the model, not of a study.
            raise model_error(model, error.fault) from error
        return opened

    def _load(self, name: str, execution: Execution) -> ModelRuntime:
        arithmetic, model = self._choices[name].arithmetic, self.pack.models[name]
        read = partial(self.pack.read_model, name)
        if arithmetic.runtime == OPENVINO:
            from stenosis_trt.engine.backends.cpu.openvino import OpenVinoModel

            return OpenVinoModel(model, read, execution, arithmetic.floats, self._cache)
        from stenosis_trt.engine.backends.cpu.onnxruntime import OnnxRuntimeModel

        return OnnxRuntimeModel(model, read(), execution.threads)


def _key(model: str, execution: Execution) -> tuple[str, int, int]:
    return model, execution.streams, execution.threads
