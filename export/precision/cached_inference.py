"""ONNX Runtime backend for the gate that caches outputs of models it runs repeatedly on the same inputs."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from stenosis_trt.engine.backends.base import Float32Array, Roi
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import ONNX_RUNTIME
from stenosis_trt.engine.backends.stepwise import StepwiseBackend
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedSlice
from stenosis_trt.export.precision.candidates import write_candidate
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16
from stenosis_trt.kernels.decoding import decode_keypoints

_CACHE_BYTES = 512 << 20


class CachedInference:
    """Opens packs and caches outputs of every model that occurs in at least two of them.

    Models that occur once, as most candidates of a search, leave nothing in the cache. Models are identified
    by SHA-256, inputs by their content.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._outputs = _ArrayCache(_CACHE_BYTES)

    def backend(self, pack: Pack) -> StepwiseBackend:
        """Open a pack on the CPU; FP16 tensors are rounded as on a GPU.

        Raises:
            PackError: a model cannot be loaded or run, or differs from its hash in pack.json.
        """
        known = {name for name, model in pack.models.items() if model.sha256 in self._seen}
        self._seen |= {model.sha256 for model in pack.models.values()}
        return _CachingBackend(pack, known, self._outputs)


class _ArrayCache:
    """Least-recently-used cache of arrays with a limit in bytes."""

    def __init__(self, size: int) -> None:
        self._bytes_left = size
        self._arrays: OrderedDict[str, Float32Array] = OrderedDict()

    def get(self, key: str, make: Callable[[], Float32Array]) -> Float32Array:
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = make()
        self._arrays[key] = array
        self._bytes_left -= array.nbytes
        while self._bytes_left < 0:
            self._bytes_left += self._arrays.popitem(last=False)[1].nbytes
        return array


class _CachingBackend(StepwiseBackend):
    """Backend of `CachedInference`. A model whose outputs are cached is opened on the first miss."""

    name = ONNX_RUNTIME
    locates_in_parts = False
    """Variants are for GPUs, which run the levels model on the whole stack."""

    def __init__(self, pack: Pack, known: set[str], answers: _ArrayCache) -> None:
        super().__init__(pack)
        self._known, self._outputs = known, answers
        self._backends: dict[str, CpuBackend] = {}
        for name in pack.models:
            if name not in known:
                self._open(name)

    def preprocess(self, slices: Sequence[LoadedSlice], rois: Sequence[Roi], spec: InputSpec) -> Float32Array:
        """See `StepwiseBackend.preprocess`."""
        any_model = next(iter(self._backends.values()), None) or self._open(next(iter(self.pack.models)))
        return any_model.preprocess(slices, rois, spec)

    def infer(self, model: str, batch: Float32Array) -> Float32Array:
        """See `StepwiseBackend.infer`."""
        if model not in self._known:
            return self._backends[model].infer(model, batch)
        key = f"{self.pack.models[model].sha256} {batch.shape} {hashlib.blake2b(batch.tobytes()).hexdigest()}"
        return self._outputs.get(key, lambda: self._open(model).infer(model, batch))

    def decode(self, heatmaps: Float32Array) -> Float32Array:
        """See `StepwiseBackend.decode`."""
        return decode_keypoints(heatmaps)

    def close(self) -> None:
        """See `StepwiseBackend.close`."""
        for backend in self._backends.values():
            backend.close()
        self._backends.clear()

    def _open(self, name: str) -> CpuBackend:
        if name not in self._backends:
            alone = replace(self.pack, models={name: self.pack.models[name]})
            with TemporaryDirectory(prefix="stenosis-rounded-") as work:
                rounded = emulate_fp16(self.pack.read_model(name))
                candidate = write_candidate(alone, Path(work) / name, "rounded", {name: rounded})
                self._backends[name] = CpuBackend(candidate)
        return self._backends[name]
