"""Times of the steps of a backend, some of which overlap."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.roofline.stages import covered, timed_steps
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.stepwise import Inference, StepwiseBackend

_SECONDS = 0.05


class _SlowBackend(StepwiseBackend):
    """Its networks run in another thread, and take a while."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        super().__init__(write_tiny_pack(folder))
        self._pool = pool

    def preprocess(self, slices: object, rois: object, spec: object) -> Float32Array:
        time.sleep(_SECONDS)
        return np.zeros((1, 1, 4, 4), np.float32)

    def infer(self, model: str, batch: Float32Array) -> Float32Array:
        time.sleep(2 * _SECONDS)
        return batch

    def inference(self, model: str, count: int) -> Inference:
        return Inference(count, lambda batch: self._pool.submit(self.infer, model, batch))

    def decode(self, heatmaps: Float32Array) -> Float32Array:
        return heatmaps

    def close(self) -> None:
        pass


def test_overlapping_intervals_count_once() -> None:
    assert covered([]) == 0.0
    assert covered([(0.0, 2.0), (1.0, 3.0), (1.5, 1.6), (5.0, 6.0)]) == pytest.approx(4.0)


def test_a_network_that_runs_beside_preprocessing_is_timed_from_its_start_to_its_end(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        backend = _SlowBackend(tmp_path / "tiny", pool)
        with timed_steps(backend) as clock:
            running = backend.inference("levels", 1).submit(np.zeros((1, 1, 4, 4), np.float32))
            backend.preprocess((), (), None)
            backend.decode(running.result())
        assert not {"preprocess", "inference", "decode", "decode_peaks"} & set(vars(backend))
    times = clock.take()
    assert set(times.wall) == set(times.shares) == {"levels", "preprocessing", "decoding"}
    assert times.wall["levels"] == times.shares["levels"] >= 2 * _SECONDS
    # Preprocessing lies within the time of the network, and takes none of its own.
    assert times.wall["preprocessing"] >= _SECONDS
    assert times.shares["preprocessing"] < _SECONDS / 2
    assert clock.take().wall == {}


def test_a_network_that_answers_at_once_is_timed_too(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        backend = _SlowBackend(tmp_path / "tiny", pool)
        vars(backend)["inference"] = lambda model, count: StepwiseBackend.inference(backend, model, count)
        with timed_steps(backend) as clock:
            backend.inference("cord", 1).submit(np.zeros((1, 1, 4, 4), np.float32))
        assert clock.take().wall["cord"] >= 2 * _SECONDS
