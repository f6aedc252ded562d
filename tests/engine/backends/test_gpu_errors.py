"""What the GPU backend leaves behind when something goes wrong: the next study is graded as if nothing had
been. On stand-ins, where work is done as late as it may be."""

from __future__ import annotations

import ctypes
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fake_gpu import count, on_the_fake_gpu
from gpu_backend import grading, plans_for, tiny_backend
from made_study import hills, made_study
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.gpu.noise import copy_into_memory
from stenosis_trt.engine.backends.gpu.options import GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.cuda.device import Device
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy


def _study(seed: int, axial: bool = True) -> LoadedStudy:
    """A study that answers otherwise than one of another seed."""
    return made_study(
        axial, fill=lambda rng, shape: hills(np.random.default_rng((seed, rng.integers(99))), shape)
    )


def _probabilities(gpu: TensorRtBackend, study: LoadedStudy) -> npt.NDArray[np.float32]:
    with closing(gpu.load(study)) as there:
        return there.grade(grading(study, gpu.pack)).result().probabilities


@contextmanager
def _setting(name: str, value: str) -> Iterator[None]:
    """A setting of a stand-in, for a while."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def _in_own_arrays(slices: tuple[LoadedSlice, ...]) -> tuple[LoadedSlice, ...]:
    return tuple(replace(item, stored=item.stored.copy()) for item in slices)


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_study_too_large_for_the_gpus_memory_costs_itself_alone() -> None:
    small, large = _study(1, axial=False), _study(2)
    with tiny_backend((2,), GpuOptions(slot_bytes=2 << 20)) as gpu:
        expected = _probabilities(gpu, small)
        taken = dict(gpu.budget.bytes_by_purpose)
        free, total = gpu.device.memory()
        with _setting("FAKE_CUDA_MEMORY", str(total - free + (1 << 20))):
            with pytest.raises(CudaError) as raised:
                gpu.load(large)
            assert raised.value.out_of_memory
            # Graphs of before would read memory that was given back.
            assert gpu.record()["graphs"] == 0
            assert np.array_equal(_probabilities(gpu, small), expected)
            assert gpu.budget.bytes_by_purpose == taken
        assert _probabilities(gpu, large).shape == (1, 4)
        assert gpu.budget.bytes_by_purpose["pixels of two studies"] > taken["pixels of two studies"]


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_what_was_captured_for_pixels_that_moved_is_given_back() -> None:
    with tiny_backend((2,), GpuOptions(slot_bytes=2 << 20)) as gpu:
        _probabilities(gpu, _study(1, axial=False))
        before = count("graph_execs")
        assert before == 3
        _probabilities(gpu, _study(2))
        assert count("graph_execs") == 1


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_copy_that_fails_half_way_is_no_study_s() -> None:
    announced, failing, other = (_study(seed) for seed in range(3))
    with tiny_backend((2,)) as gpu:
        expected = [_probabilities(gpu, study) for study in (announced, other)]
        gpu.prefetch(announced)
        gpu.prefetch(other)
        copy, copied = gpu.arena._pixels.copy_from, 0

        def until_the_axial(*arguments: object) -> None:
            nonlocal copied
            copied += 1
            if copied > len(failing.sagittal):
                raise CudaError("It was asked to fail.", "")
            copy(*arguments)  # type: ignore[arg-type]

        gpu.arena._pixels.copy_from = until_the_axial  # type: ignore[assignment, method-assign]
        with pytest.raises(CudaError):
            gpu.load(failing)
        gpu.arena._pixels.copy_from = copy  # type: ignore[method-assign]
        with gpu.device.current():
            gpu.arena.stream.synchronize()
        for study, probabilities in zip((announced, other), expected, strict=True):
            assert np.array_equal(_probabilities(gpu, study), probabilities)


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_studies_that_were_announced_and_never_loaded_do_not_keep_others_from_being_copied_ahead() -> None:
    with tiny_backend((2,)) as gpu:
        expected = _probabilities(gpu, _study(4))
        for seed in range(4):
            gpu.prefetch(_study(seed))
        study = _study(4)
        gpu.prefetch(study)
        before = gpu.arena.copies
        assert np.array_equal(_probabilities(gpu, study), expected)
        assert gpu.arena.copies == before


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_slot_is_held_for_a_study_of_which_only_a_part_lies_in_it() -> None:
    with tiny_backend((2,)) as gpu, PixelMemory(16 << 20) as memory:
        gpu.set_reading_memory(memory)
        study = _study(1)
        expected = _probabilities(gpu, study)
        there = copy_into_memory(memory, study)
        there = replace(there, sagittal=(*_in_own_arrays(there.sagittal[:1]), *there.sagittal[1:]))
        gpu.prefetch(there)
        memory.slots[0].reset()
        memory.array[:] = 255
        assert np.array_equal(_probabilities(gpu, there), expected)


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_what_was_given_before_tensorrt_refused_is_over_when_that_is_raised() -> None:
    with tiny_backend((2,), GpuOptions(graphs=False)) as gpu:
        study = _study(1)
        rois = grading(study, gpu.pack)
        expected = _probabilities(gpu, study)
        with closing(gpu.load(study)) as there:
            with _setting("STAND_IN_TENSORRT_FAIL", "enqueue"), pytest.raises(TensorRTError):
                there.grade(rois)
            with gpu.device.current():
                assert gpu.stream.done
            assert np.array_equal(there.grade(rois).result().probabilities, expected)


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_batch_before_one_that_fails_is_waited_for_when_the_study_is_closed() -> None:
    with tiny_backend((2,)) as gpu:
        study = _study(1)
        (roi,) = grading(study, gpu.pack)
        with closing(gpu.load(study)) as there, pytest.raises(IndexError):
            there.grade([roi, roi, replace(roi, slices=(97, 98, 99))])
        with gpu.device.current():
            assert gpu.stream.done


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_backend_is_closed_only_once_nothing_runs_on_it_any_more() -> None:
    with tiny_backend((2,)) as gpu:
        study = _study(1)
        there = gpu.load(study)
        there.grade(grading(study, gpu.pack))
    with Device() as device:
        assert device.memory()[0] > 0, "plans were given back while they ran: the device is lost"


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_lost_gpu_is_told_to_whoever_uses_it_and_not_again_when_it_is_closed() -> None:
    with tiny_backend((2,)) as gpu:
        study = _study(1)
        there = gpu.load(study)
        pending = there.grade(grading(study, gpu.pack))
        ctypes.CDLL("libcuda.so.1").fake_cuda_lose(719)
        with pytest.raises(CudaError) as raised:
            pending.result()
        assert raised.value.device_lost
        there.close()
        with pytest.raises(CudaError):
            gpu.load(study)


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90", FAKE_CUDA_INTEGRATED="1")
def test_nothing_is_kept_warm_while_ways_to_read_are_measured() -> None:
    options = GpuOptions(keep_warm_seconds=0.2)
    with tiny_backend((2,), options) as gpu, PixelMemory(16 << 20) as memory:
        slow = gpu.stage("cord").submit

        def slower(*arguments: object) -> object:
            time.sleep(0.05)
            return slow(*arguments)  # type: ignore[arg-type]

        gpu.stage("cord").submit = slower  # type: ignore[method-assign, assignment]
        before = gpu.record()["kept_warm"]
        gpu.set_reading_memory(memory)
        assert gpu.record()["kept_warm"] == before
        assert gpu.record()["mapped_ms"] > 50


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_plan_that_answers_what_no_model_may_is_refused_as_a_plan_and_not_as_a_pack() -> None:
    """So that `--device auto` tries the model on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        written = write_tiny_pack(Path(folder) / "tiny").path / "pack.json"
        content = json.loads(written.read_text())
        # The model answers with its input: a hundred times what it may.
        content["models"]["levels"]["input"]["std"] = [0.01]
        written.write_text(json.dumps(content))
        pack = Pack.load(written.parent)
        with pytest.raises(TensorRTError, match=r"levels gives invalid values .* has to lie between 0 and 1"):
            TensorRtBackend(pack, plans_for(pack, (2,)))


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_every_item_of_every_batch_of_a_plan_is_checked_when_it_is_opened() -> None:
    """A plan that is wrong for the last item of a batch between others, and one for classes too."""
    for name in ("levels", "grader"):
        with tempfile.TemporaryDirectory() as folder:
            pack = write_tiny_pack(Path(folder) / "tiny", invalid_last=(name, 5))
            with pytest.raises(TensorRTError, match=rf"{name} gives invalid .* batch of 5 .* not finite"):
                TensorRtBackend(pack, plans_for(pack, (2, 5, 8)))


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_gpu_that_cannot_be_kept_warm_any_more_is_noted_and_still_grades() -> None:
    with tiny_backend((2,), GpuOptions(keep_warm_seconds=0.01)) as gpu:
        study = _study(1)
        expected = _probabilities(gpu, study)
        with _setting("FAKE_CUDA_FAIL", "cuGraphLaunch=2"):
            time.sleep(0.3)
        assert len(gpu.notes) == 1
        assert "not kept warm any more" in gpu.notes[0]
        assert "CUDA_ERROR_OUT_OF_MEMORY" in gpu.notes[0]
        assert np.array_equal(_probabilities(gpu, study), expected)


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_memory_that_cannot_be_page_locked_is_copied_from_all_the_same_and_that_is_noted() -> None:
    with tiny_backend((2,)) as gpu, PixelMemory(16 << 20) as memory:
        study = copy_into_memory(memory, _study(1))
        before = count("host_memory")
        with _setting("FAKE_CUDA_FAIL", "cuMemHostGetDevicePointer_v2=801"):
            gpu.set_reading_memory(memory)
        assert count("host_memory") == before
        assert "cannot be page-locked" in gpu.notes[0]
        gpu.prefetch(study)
        found = _probabilities(gpu, study)
        assert np.array_equal(found, _probabilities(gpu, _study(1)))
