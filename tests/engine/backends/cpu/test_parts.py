"""A batch is cut into parts that run at the same time: the results do not depend on how."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gpu_backend import grading
from made_study import made_study, sparse
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.base import Roi
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import Arithmetic, Execution, ModelChoice, default_choice
from stenosis_trt.engine.backends.model_checks import ModelOutputError
from stenosis_trt.engine.packs.crop import slice_roi
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack, open_pack
from stenosis_trt.engine.records import LoadedSlice


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_tiny_pack(tmp_path_factory.mktemp("parts") / "pack")


def _rois(slices: Sequence[LoadedSlice], spec: InputSpec) -> list[Roi]:
    """A region in the middle of each slice."""
    return [
        Roi((k,) * spec.channels, slice_roi(item.pose, item.pose.centre, spec))
        for k, item in enumerate(slices)
    ]


def _backend(pack: Pack, *execution: int) -> CpuBackend:
    spread = Execution(*execution)
    return CpuBackend(pack, choices={name: ModelChoice(Arithmetic(), spread, spread) for name in pack.models})


def test_the_result_of_a_study_does_not_depend_on_parts_and_streams(pack: Pack) -> None:
    study = made_study()
    across = _rois(study.axial, pack.models["cord"].input)
    along = _rois(study.sagittal, pack.models["levels"].input)
    results = []
    for execution in ((1, 1, 100), (2, 1, 1), (3, 2, 2), (1, 2, 5)):
        with closing(_backend(pack, *execution)) as backend:
            loaded = backend.load(study)
            pending = loaded.grade(grading(study, pack) * 5), loaded.measure(across), loaded.locate(along)
            grades, cords, peaks = (item.result() for item in pending)
        results.append((grades.probabilities, grades.contrast, cords.keypoints.points, peaks.heights))
    assert [len(array) for array in results[0]] == [5, 5, 30, 9]
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            assert np.array_equal(found, expected)


def test_the_reference_packs_cord_answers_bit_for_bit_the_same_however_it_is_spread() -> None:
    pack = open_pack()
    cord = replace(pack, models={"cord": pack.models["cord"]})
    batch = np.random.default_rng(0).standard_normal((7, 1, 128, 128), dtype=np.float32)
    answers = []
    for execution in ((1, 2, 16), (2, 1, 2), (1, 1, 1)):
        with closing(_backend(cord, *execution)) as backend:
            answers.append(backend.infer("cord", batch))
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


@pytest.fixture
def two_streams(pack: Pack) -> Iterator[CpuBackend]:
    with closing(_backend(pack, 2, 1, 3)) as backend:
        yield backend


def test_as_many_parts_run_at_the_same_time_as_there_are_streams(two_streams: CpuBackend) -> None:
    meeting = threading.Barrier(2, timeout=20)
    opened = two_streams._opened[("grader", 2, 1)]
    run = opened.run

    def wait_for_the_other(batch: np.ndarray) -> np.ndarray:
        meeting.wait()
        return run(batch)

    opened.run = wait_for_the_other  # type: ignore[method-assign]
    assert two_streams.infer("grader", np.zeros((6, 3, 64, 64), np.float32)).shape == (6, 4)


def test_parts_are_spread_evenly_and_never_larger_than_wanted(two_streams: CpuBackend) -> None:
    assert [two_streams.inference("cord", count).part for count in (1, 2, 4, 5, 30)] == [1, 1, 2, 3, 3]


def test_few_inputs_use_all_threads_at_once() -> None:
    for threads in (1, 2, 4, 16):
        chosen = default_choice("fp32", threads)
        assert chosen.execution(1) == Execution(1, threads, 4)
        assert chosen.execution(30).streams <= threads
    assert default_choice("fp32", 2).execution(30) == Execution(2, 1, 4)


def test_an_invalid_output_of_one_part_is_raised_when_the_result_is_waited_for(tmp_path: Path) -> None:
    broken = write_tiny_pack(tmp_path / "pack", invalid="levels")
    study = made_study(fill=sparse)
    with closing(_backend(broken, 2, 1, 1)) as backend:
        pending = backend.load(study).locate(_rois(study.sagittal, broken.models["levels"].input))
        with pytest.raises(ModelOutputError, match="not finite"):
            pending.result()
