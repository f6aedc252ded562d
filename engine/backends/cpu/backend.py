"""CPU backend: NumPy reference of the kernels, and a runtime for each model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array, Roi
from stenosis_trt.engine.backends.cpu.onnxruntime import OnnxRuntimeModel
from stenosis_trt.engine.backends.cpu.runtime import ModelRuntime, ModelRuntimeError
from stenosis_trt.engine.backends.host_inputs import network_inputs
from stenosis_trt.engine.backends.model_checks import ModelOutputError, check_values, model_error, noise_batch
from stenosis_trt.engine.backends.stepwise import StepwiseBackend
from stenosis_trt.engine.packs.models import InputSpec, ModelSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedSlice
from stenosis_trt.engine.support.hardware import usable_cores
from stenosis_trt.kernels.reference import decode_keypoints

_MAX_BATCH = 16
"""Largest batch of a call: larger ones increase the peak memory but not the speed."""


class CpuBackend(StepwiseBackend):
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
        self._threads = threads if threads is not None else usable_cores()
        self._models: dict[str, ModelRuntime] = {
            model.name: OnnxRuntimeModel(model, pack.read_model(model.name), self._threads)
            for model in pack.models.values()
        }
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
        parts = [batch[first : first + _MAX_BATCH] for first in range(0, len(batch), _MAX_BATCH)]
        output = np.concatenate([self._models[model].submit(part).result() for part in parts])
        check_values(self.pack.models[model], batch, output)
        return output

    def decode(self, heatmaps: Float32Array) -> Float32Array:
        """See `StepwiseBackend.decode`."""
        return decode_keypoints(heatmaps)

    def close(self) -> None:
        """See `Backend.close`."""
        for runtime in self._models.values():
            runtime.close()
        self._models.clear()

    def _try(self, model: ModelSpec) -> None:
        try:
            self.infer(model.name, noise_batch(model))
        except ModelRuntimeError as error:
            raise model_error(model, str(error)) from error
        except ModelOutputError as error:
            # Invalid output for noise is a fault of the model, not of a study.
            raise model_error(model, error.fault) from error
