"""In which order the GPU backend gives work to the device, and that it gives everything back; on stand-ins.

The driver's stand-in does what a stream is given as late as it may: what is not waited for is not done.
"""

from __future__ import annotations

import gc
import resource
from contextlib import closing

import numpy as np
from fake_gpu import assert_nothing_is_left, count, on_the_fake_gpu
from gpu_backend import grading, tiny_backend
from made_study import hills, made_study

from stenosis_trt.engine.backends.gpu.noise import copy_into_memory
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory

_STUDIES = 1000


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_the_next_study_is_copied_while_one_is_computed_and_neither_waits_for_the_other() -> None:
    with tiny_backend((2,)) as gpu, PixelMemory(16 << 20) as memory:
        gpu.set_reading_memory(memory)
        first, second = made_study(), copy_into_memory(memory, made_study(fill=hills))
        with closing(gpu.load(first)) as there:
            grades = there.grade(grading(first, gpu.pack))
            gpu.prefetch(second)
            # The numbers of the first are waited for, and the copy of the second is not.
            assert grades.result().probabilities.shape == (1, 4)
            with gpu.device.current():
                assert not gpu.arena.stream.done
            gpu.arena.release(gpu.arena.load(second))
            gpu.prefetch(second)
        # Nothing waits for the copy but the slot, before it is read into anew.
        memory.slots[0].reset()
        memory.array[: 8 << 20] = 255
        with closing(gpu.load(second)) as there:
            found = there.grade(grading(second, gpu.pack)).result()
        with closing(gpu.load(made_study(fill=hills))) as there:
            expected = there.grade(grading(second, gpu.pack)).result()
        assert np.array_equal(found.probabilities, expected.probabilities)


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_answers_that_nobody_waits_for_do_not_spoil_those_that_come_after() -> None:
    with tiny_backend((2,)) as gpu:
        study = made_study(fill=hills)
        rois = grading(study, gpu.pack)
        with closing(gpu.load(study)) as there:
            expected = there.grade(rois).result().probabilities
            there.grade(rois * 2)
            asked = there.grade(rois * 5)
            there.grade(rois)
        assert np.array_equal(asked.result().probabilities, np.repeat(expected, 5, axis=0))


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90")
def test_a_thousand_studies_take_no_more_than_one() -> None:
    with tiny_backend((1,)) as gpu:
        study = made_study(fill=hills)
        rois = grading(study, gpu.pack)
        kinds = ("device_memory", "host_memory", "streams", "events", "graphs", "graph_execs")

        def grade() -> None:
            with closing(gpu.load(study)) as there:
                there.grade(rois).result()

        for _ in range(20):
            grade()
        gc.collect()
        before = {kind: count(kind) for kind in kinds}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(_STUDIES):
            grade()
        assert {kind: count(kind) for kind in kinds} == before
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        assert grown_kib < 8 << 10, "8 bytes a study would not be noticed; 8 KiB would"
    assert_nothing_is_left()
