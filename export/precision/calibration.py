"""Calibration inputs: network inputs recorded while studies are graded, cached by content.

The ONNX Runtime backend records them during `grade_study`, so regions and preprocessing are the product's.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array, Pending
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.model_checks import ModelOutputError
from stenosis_trt.engine.backends.stepwise import Inference
from stenosis_trt.engine.errors import CannotGrade
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.export.errors import StudiesError
from stenosis_trt.export.precision.studies import StudyCollection, content_hash, loaded_studies
from stenosis_trt.kernels.binaries import cache_folder

INPUTS_PER_MODEL = 64


@dataclass(frozen=True)
class CalibrationSet:
    """Recorded inputs of each network.

    Attributes:
        inputs: float32 (N, C, H, W) per model.
        source: description of the studies.
        key: hash of everything the inputs depend on: studies, models, specifications, versions.
    """

    inputs: Mapping[str, Float32Array]
    source: str
    key: str


class _ReservoirSample:
    """Uniform sample of at most `size` of the inputs offered (reservoir sampling), float32."""

    def __init__(self, size: int) -> None:
        self._size, self._seen = size, 0
        self._random = np.random.default_rng(0)
        self.kept: list[Float32Array] = []

    def offer(self, batch: Float32Array) -> None:
        for image in batch:
            self._seen += 1
            if len(self.kept) < self._size:
                self.kept.append(image.copy())
                continue
            place = int(self._random.integers(self._seen))
            if place < self._size:
                self.kept[place] = image.copy()


class RecordingBackend(CpuBackend):
    """ONNX Runtime backend that records a sample of each network's inputs.

    The levels model is run on the whole stack, as on a GPU: what it meets there is to be calibrated.
    """

    locates_in_parts = False

    def __init__(self, pack: Pack, per_model: int) -> None:
        super().__init__(pack)
        self.samples = {name: _ReservoirSample(per_model) for name in pack.models}

    def inference(self, model: str, count: int) -> Inference:
        """See `StepwiseBackend.inference`."""
        inner = super().inference(model, count)

        def submit(batch: Float32Array) -> Pending[Float32Array]:
            self.samples[model].offer(batch)
            return inner.submit(batch)

        return Inference(inner.part, submit)


def calibration_set(
    pack: Pack, studies: StudyCollection, per_model: int = INPUTS_PER_MODEL, cache: Path | None = None
) -> CalibrationSet:
    """Return inputs of a pack's networks on some studies, from the cache if they were recorded before.

    Args:
        pack: its own models locate the levels and thereby the regions.
        studies: the studies to record on.
        per_model: number of inputs per network.
        cache: folder of the cache; None for the user's. It contains pixels of the studies and no headers.

    Raises:
        StudiesError: no study can be used, or a network received no input.
        PackError: the pack's models cannot be used.
    """
    key = _key(pack, content_hash(studies.folder), per_model)
    path = (cache or cache_folder() / "calibration") / f"{key}.npz"
    inputs = _load_cached(path, pack)
    if inputs is None:
        inputs = record_inputs(pack, loaded_studies(studies, "Taking calibration inputs"), per_model)
        _store(path, inputs)
    return CalibrationSet(inputs, studies.source, key)


def record_inputs(pack: Pack, studies: Iterable[LoadedStudy], per_model: int) -> dict[str, Float32Array]:
    """Grade the studies on the CPU and return each network's inputs, (N ≤ per_model, C, H, W).

    Raises:
        StudiesError: a network received no input.
    """
    with closing(RecordingBackend(pack, per_model)) as backend:
        for study in studies:
            # Studies without a cervical spine are useful negatives for the levels model. Inputs recorded
            # before a model returned invalid values are kept.
            with suppress(CannotGrade, ModelOutputError):
                grade_study(study, pack, backend)
    for name, sample in backend.samples.items():
        if not sample.kept:
            raise StudiesError(
                f"The studies contain no input of the model {name}.",
                "Give studies with a sagittal T2 and an axial T2 series of the cervical spine.",
            )
    return {name: np.stack(sample.kept) for name, sample in backend.samples.items()}


def _key(pack: Pack, studies: str, per_model: int) -> str:
    depends_on = {
        "studies": studies,
        # The output matters too: only levels above a confidence get a region.
        "models": {
            name: [model.sha256, asdict(model.input), model.output.to_dict()]
            for name, model in pack.models.items()
        },
        "per_model": per_model,
        "versions": {name: package_version(name) for name in ("stenosis-trt", "numpy", "onnxruntime")},
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def _load_cached(path: Path, pack: Pack) -> dict[str, Float32Array] | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: np.asarray(content[name], dtype=np.float32) for name in pack.models}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # Absent or damaged: record again.
        return None


def _store(path: Path, inputs: Mapping[str, Float32Array]) -> None:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **inputs)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_bytes_atomically(path, stream.getvalue())
