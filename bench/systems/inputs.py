"""The inputs that the networks of a pack are run on for one study."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array, Pending, Roi
from stenosis_trt.engine.backends.host_inputs import network_inputs
from stenosis_trt.engine.backends.stepwise import Inference, StepwiseBackend
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedStudy

MODELS = ("levels", "grader", "cord")
"""The networks in the order in which the pipeline runs them."""


@dataclass(frozen=True, eq=False)
class StudyInputs:
    """The inputs of the networks for one study.

    Attributes:
        batches: float32 (N, C, H, W) for each of `MODELS` that ran: all inputs of the study. A model that
            the study had no regions for is missing.
    """

    batches: Mapping[str, Float32Array] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Number of inputs of all networks."""
        return sum(map(len, self.batches.values()))


def recorded_inputs(backend: StepwiseBackend, grade: Callable[[], object]) -> StudyInputs:
    """Return what is submitted to the networks of a backend during `grade`."""
    with _recorded_calls(backend) as recorded:
        grade()
    for name in ("levels", "grader"):
        if name not in recorded:
            raise RuntimeError(f"The backend graded a study without running {name}.")
    return StudyInputs({name: np.concatenate(recorded[name]) for name in MODELS if name in recorded})


def computed_inputs(study: LoadedStudy, pack: Pack, rois: Mapping[str, Sequence[Roi]]) -> StudyInputs:
    """Return the inputs for the regions that were requested of each model, computed on the host."""
    batches = {}
    for name in MODELS:
        if rois.get(name):
            slices = study.axial if name == "cord" else study.sagittal
            batches[name] = network_inputs(slices, rois[name], pack.models[name].input)
    return StudyInputs(batches)


@contextmanager
def _recorded_calls(backend: StepwiseBackend) -> Iterator[dict[str, list[Float32Array]]]:
    """Record what is submitted to each model, in the order of the calls."""
    recorded: dict[str, list[Float32Array]] = {}
    inference, lock = backend.inference, threading.Lock()

    def recording(model: str, count: int) -> Inference:
        found = inference(model, count)

        def submit(batch: Float32Array) -> Pending[Float32Array]:
            with lock:
                recorded.setdefault(model, []).append(batch.copy())
            return found.submit(batch)

        return replace(found, submit=submit)

    # On the instance: the method of the class is found again when it is deleted.
    vars(backend)["inference"] = recording
    try:
        yield recorded
    finally:
        del vars(backend)["inference"]
