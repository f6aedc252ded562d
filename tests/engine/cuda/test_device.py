"""The GPU through PyCUDA: on a stand-in for NVIDIA's driver, each test in a process of its own; and on a GPU.

The stand-in (`fake_driver`) does what a stream is given as late as it may: who forgets to wait gets nothing.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FAKE_DRIVER, assert_nothing_is_left, count, driver, environment, in_a_process

from stenosis_trt.engine.cuda.device import Device, Event, Resource, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.graph import Graph
from stenosis_trt.engine.cuda.memory import DeviceBuffer, HostArray
from stenosis_trt.engine.cuda.module import Module, pack_arguments
from stenosis_trt.engine.support.hardware import query_nvidia_driver

_IMAGE = b"\x7fELF: the stand-in takes its kernels from FAKE_CUDA_KERNELS\0"
_CUDA_H = Path("/usr/local/cuda/include/cuda.h")
_STRUCTURE = np.dtype([("low", np.uint8), ("high", np.float64)], align=True)

_KERNELS = r"""
#include <cstring>
template <typename T> static T at(const char *parameters, int offset) {
    T value;
    std::memcpy(&value, parameters + offset, sizeof value);
    return value;
}
struct Structure { unsigned char low; double high; };

extern "C" int launch_scale(const char *p, unsigned gx, unsigned, unsigned, unsigned bx, unsigned, unsigned) {
    float *values = at<float *>(p, 0), factor = at<float>(p, 8);
    int count = at<int>(p, 12);
    for (unsigned i = 0; i < gx * bx; ++i)
        if (i < (unsigned)count) values[i] *= factor;
    return 0;
}

// (signed char, double, short, const float *, Structure, bool, double *), as a compiler lays it out.
extern "C" int launch_mixed(const char *p, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned) {
    Structure structure = at<Structure>(p, 32);
    const double values[] = {(double)at<signed char>(p, 0), at<double>(p, 8), (double)at<short>(p, 16),
                             (double)*at<const float *>(p, 24), (double)structure.low, structure.high,
                             (double)at<bool>(p, 48)};
    std::memcpy(at<double *>(p, 56), values, sizeof values);
    return 0;
}

extern "C" int launch_crash(const char *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned) {
    return 7;
}
"""

# __global__ void scale(float *values, float factor, int count): PTX that any GPU since Turing takes.
_PTX = b"""
.version 6.3
.target sm_75
.address_size 64
.visible .entry scale(.param .u64 values, .param .f32 factor, .param .u32 count) {
    .reg .pred %outside;
    .reg .b32 %index, %size, %block, %count;
    .reg .b64 %base, %offset;
    .reg .f32 %value, %factor;
    ld.param.u64 %base, [values];
    ld.param.f32 %factor, [factor];
    ld.param.u32 %count, [count];
    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mov.u32 %index, %tid.x;
    mad.lo.s32 %index, %block, %size, %index;
    setp.ge.s32 %outside, %index, %count;
    @%outside bra done;
    cvta.to.global.u64 %base, %base;
    mul.wide.s32 %offset, %index, 4;
    add.s64 %base, %base, %offset;
    ld.global.f32 %value, [%base];
    mul.f32 %value, %value, %factor;
    st.global.f32 [%base], %value;
done:
    ret;
}
"""

Test = Callable[[], None]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the stand-in driver's kernels."""
    driver()
    folder = tmp_path_factory.mktemp("kernels")
    source = folder / "kernels.cpp"
    source.write_text(_KERNELS)
    subprocess.run(["c++", "-shared", "-fPIC", "-O1", "-o", folder / "kernels.so", source], check=True)
    return folder / "kernels.so"


def on_the_stand_in(**settings: str) -> Callable[[Test], Callable[[Path], None]]:
    """Runs a test in a process in which the stand-in is the driver, with these settings of it."""

    def decorate(test: Test) -> Callable[[Path], None]:
        def run(kernels: Path) -> None:
            there = environment(FAKE_CUDA_KERNELS=str(kernels), **settings)
            in_a_process(Path(__file__), f"{test.__name__}.there()", there)

        functools.update_wrapper(run, test)
        run.__signature__ = inspect.Signature(
            [inspect.Parameter("kernels", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        )
        run.there = test
        return run

    return decorate


def _floats(count: int, start: float = 0.0) -> np.ndarray:
    return np.arange(count, dtype=np.float32) + np.float32(start)


def _scale(module: Module, values: object, factor: float, count: int, stream: Stream) -> None:
    arguments = (values, np.float32(factor), np.int32(count))
    module.launch("scale", (-(-count // 256), 1, 1), (256, 1, 1), arguments, stream)


@on_the_stand_in(FAKE_CUDA_CAPABILITY="87", FAKE_CUDA_INTEGRATED="1", FAKE_CUDA_VERSION="12060")
def test_a_device_tells_what_it_is() -> None:
    with Device() as device:
        assert device.name == "stand-in for a GPU"
        assert (device.compute_capability, device.driver_version) == ((8, 7), 12060)
        assert (device.integrated, device.multiprocessors) == (True, 8)
        buffer = DeviceBuffer(device, 1 << 20)
        assert device.memory() == ((1 << 32) - (1 << 20), 1 << 32)
        buffer.close()
    assert_nothing_is_left()


@on_the_stand_in()
def test_copies_go_both_ways_and_to_an_offset() -> None:
    with Device() as device, device.current():
        stream, buffer = Stream(device), DeviceBuffer(device, 40)
        buffer.fill(0, stream)
        buffer.copy_from(_floats(4, 1), stream, offset=8)
        back, half = np.empty(10, np.float32), np.empty(2, np.float16)
        buffer.copy_to(back, stream)
        assert back.tolist() == [0, 0, 1, 2, 3, 4, 0, 0, 0, 0]
        buffer.copy_from(np.array([1, 2], np.float16), stream, offset=36)
        buffer.copy_to(half, stream, offset=36)
        assert half.tolist() == [1, 2]


@on_the_stand_in()
def test_page_locked_arrays_are_copied_when_the_stream_comes_to_it_and_others_at_once() -> None:
    with Device() as device, device.current():
        stream, buffer, pinned = Stream(device), DeviceBuffer(device, 16), HostArray(device, 4, np.float32)
        back = HostArray(device, 4, np.float32)
        plain = _floats(4)
        buffer.copy_from(plain, stream)
        plain[:] = -1
        back.array[:] = -2
        buffer.copy_to(back.array, stream)
        assert back.array.tolist() == [-2] * 4
        assert not stream.done
        stream.synchronize()
        assert back.array.tolist() == [0, 1, 2, 3]
        pinned.array[:] = 5
        buffer.copy_from(pinned.array, stream)
        pinned.array[:] = 6
        buffer.copy_to(back.array, stream)
        stream.synchronize()
        assert back.array.tolist() == [6] * 4


@on_the_stand_in()
def test_what_cannot_be_copied_is_refused() -> None:
    with Device() as device, device.current():
        stream, buffer = Stream(device), DeviceBuffer(device, 16)
        with pytest.raises(ValueError, match="20 bytes at offset 0 exceed a buffer of 16"):
            buffer.copy_from(_floats(5), stream)
        with pytest.raises(ValueError, match="16 bytes at offset 4"):
            buffer.copy_to(_floats(4), stream, offset=4)
        with pytest.raises(ValueError, match="not contiguous"):
            buffer.copy_from(_floats(8)[::2], stream)
        constant = _floats(4)
        constant.flags.writeable = False
        with pytest.raises(ValueError, match="is not writeable"):
            buffer.copy_to(constant, stream)
        for nothing in (0, -1):
            with pytest.raises(ValueError, match="bytes"):
                DeviceBuffer(device, nothing)
        with pytest.raises(ValueError, match="nothing"):
            HostArray(device, (3, 0), np.float32)


@on_the_stand_in()
def test_kernels_run_in_the_order_of_their_stream() -> None:
    with Device() as device, device.current():
        stream, module, buffer = Stream(device), Module(device, _IMAGE), DeviceBuffer(device, 4000)
        values = _floats(1000)
        buffer.copy_from(values, stream)
        _scale(module, buffer, 2.0, 1000, stream)
        _scale(module, buffer.address, 5.0, 500, stream)
        assert count("launches") == 0
        result = np.empty_like(values)
        buffer.copy_to(result, stream)
        assert np.array_equal(result, values * np.where(np.arange(1000) < 500, 10, 2).astype(np.float32))
        assert count("launches") == 2


@on_the_stand_in()
def test_arguments_of_all_types_arrive() -> None:
    with Device() as device, device.current():
        stream, module = Stream(device), Module(device, _IMAGE)
        given, result = HostArray(device, 1, np.float32, mapped=True), DeviceBuffer(device, 56)
        given.array[0] = 1.5
        structure = np.array((200, -0.125), _STRUCTURE)[()]
        arguments = (
            *(np.int8(-3), np.float64(2.25), np.int16(-30000), given),
            *(structure, np.bool_(True), result),
        )
        module.launch("mixed", (1, 1, 1), (1, 1, 1), arguments, stream)
        values = np.empty(7)
        result.copy_to(values, stream)
        assert values.tolist() == [-3, 2.25, -30000, 1.5, 200, -0.125, 1]


@on_the_stand_in()
def test_a_kernel_that_is_not_there_is_named_as_such() -> None:
    with Device() as device, device.current():
        module = Module(device, _IMAGE)
        assert module.kernel_attributes("scale").registers == 32
        assert module.kernel_attributes("scale").max_threads == 1024
        with pytest.raises(CudaError, match="named symbol not found") as caught:
            module.launch("shrink", (1, 1, 1), (1, 1, 1), (), Stream(device))
        assert caught.value.code == "CUDA_ERROR_NOT_FOUND"


@on_the_stand_in()
def test_a_binary_that_the_driver_does_not_take_is_refused_with_its_log() -> None:
    with Device() as device:
        with pytest.raises(CudaError, match="neither PTX, nor a cubin or fatbin") as caught:
            Module(device, b"MZ: not a kernel")
        assert caught.value.code == "CUDA_ERROR_INVALID_IMAGE"
        assert "update NVIDIA's driver" in caught.value.advice


@on_the_stand_in()
def test_a_launch_beyond_the_limits_of_the_device_is_refused_at_once() -> None:
    with Device() as device, device.current():
        module, stream = Module(device, _IMAGE), Stream(device)
        with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_VALUE"):
            module.launch("scale", (1, 1, 1), (1025, 1, 1), (), stream)
        stream.synchronize()


@on_the_stand_in()
def test_events_mark_points_and_tell_the_time_between_them() -> None:
    with Device() as device, device.current():
        stream, buffer = Stream(device), DeviceBuffer(device, 4)
        start, end = Event(device), Event(device)
        with pytest.raises(CudaError):
            end.elapsed_ms(start)
        start.record(stream)
        buffer.fill(0, stream)
        end.record(stream)
        with pytest.raises(CudaError, match="CUDA_ERROR_NOT_READY"):
            end.elapsed_ms(start)
        assert not end.done
        end.synchronize()
        assert end.done
        assert 0 <= end.elapsed_ms(start) < 1000


@on_the_stand_in()
def test_a_stream_waits_for_the_event_of_another() -> None:
    with Device() as device, device.current():
        first, second, event = Stream(device), Stream(device), Event(device, timing=False)
        buffer, back = DeviceBuffer(device, 16), HostArray(device, 4, np.float32)
        module = Module(device, _IMAGE)
        buffer.copy_from(_floats(4), first)
        event.record(first)
        _scale(module, buffer, 10.0, 4, first)
        second.wait_for(event)
        buffer.copy_to(back.array, second)
        second.synchronize()
        assert back.array.tolist() == [0, 1, 2, 3]


@on_the_stand_in()
def test_a_stream_can_have_the_highest_priority() -> None:
    with Device() as device, device.current():
        for stream, expected in ((Stream(device), 0), (Stream(device, high_priority=True), -5)):
            priority = ctypes.c_int(99)
            driver = ctypes.CDLL("libcuda.so.1")
            assert driver.cuStreamGetPriority(ctypes.c_void_p(stream.handle), ctypes.byref(priority)) == 0
            assert priority.value == expected


@on_the_stand_in()
def test_mapped_arrays_are_used_where_they_are() -> None:
    with Device() as device, device.current():
        stream, module = Stream(device), Module(device, _IMAGE)
        mapped, pinned = HostArray(device, (2, 3), np.float32, mapped=True), HostArray(device, 6, np.float32)
        mapped.array[:] = 3
        _scale(module, mapped, 2.0, 6, stream)
        stream.synchronize()
        assert mapped.array.tolist() == [[6, 6, 6], [6, 6, 6]]
        assert pinned.address is None
        with pytest.raises(TypeError, match="Argument 0"):
            _scale(module, pinned, 2.0, 6, stream)


@on_the_stand_in()
def test_page_locked_memory_lives_as_long_as_the_last_view_of_it() -> None:
    device = Device()
    first, second = HostArray(device, 8, np.uint16), HostArray(device, (4, 4), np.uint16)
    view = second.array[1:, ::2]
    view[:] = 7
    first.close()
    assert count("host_memory") == 1
    device.close()
    assert (count("host_memory"), count("contexts")) == (1, 1)
    assert view.tolist() == [[7, 7]] * 3
    del view
    assert_nothing_is_left()


@on_the_stand_in()
def test_a_graph_works_each_time_on_what_is_there_then() -> None:
    with Device() as device, device.current():
        stream, other, module = Stream(device), Stream(device), Module(device, _IMAGE)
        given, result = HostArray(device, 300, np.float32), HostArray(device, 300, np.float32)
        buffer = DeviceBuffer(device, 1200)

        def enqueue() -> None:
            buffer.fill(0xFF, stream)
            buffer.copy_from(given.array, stream)
            _scale(module, buffer, 3.0, 300, stream)
            buffer.copy_to(result.array, stream)

        enqueue()
        stream.synchronize()
        graph = Graph(stream, enqueue)
        assert count("launches") == 1
        for start in (1.0, 20.0, -5.0):
            given.array[:] = _floats(300, start)
            result.array[:] = 0
            graph.launch(other)
            assert not result.array.any()
            other.synchronize()
            assert np.array_equal(result.array, _floats(300, start) * np.float32(3))
        assert (count("launches"), count("graphs"), count("graph_execs")) == (4, 0, 1)
    assert_nothing_is_left()


@on_the_stand_in()
def test_a_graph_keeps_arrays_alive_and_refuses_when_a_buffer_is_closed() -> None:
    with Device() as device, device.current():
        stream, buffer = Stream(device), DeviceBuffer(device, 16)
        given, result = HostArray(device, 4, np.float32), HostArray(device, 4, np.float32)
        given.array[:] = 4

        def enqueue() -> None:
            buffer.copy_from(given.array, stream)
            buffer.copy_to(result.array, stream)

        graph = Graph(stream, enqueue)
        given.close()
        assert count("host_memory") == 2
        graph.launch(stream)
        stream.synchronize()
        assert result.array.tolist() == [4] * 4
        buffer.close()
        with pytest.raises(CudaError, match="A DeviceBuffer that this graph uses is closed"):
            graph.launch(stream)
        graph.close()
        assert count("host_memory") == 1


def _spoil_by_an_own_error(device: Device, stream: Stream, buffer: DeviceBuffer) -> None:
    buffer.fill(1, stream)
    raise KeyError("the caller's own")


def _spoil_by_allocating(device: Device, stream: Stream, buffer: DeviceBuffer) -> None:
    DeviceBuffer(device, 16)


def _spoil_by_closing(device: Device, stream: Stream, buffer: DeviceBuffer) -> None:
    buffer.close()


def _spoil_by_waiting(device: Device, stream: Stream, buffer: DeviceBuffer) -> None:
    stream.synchronize()


def _spoil_by_a_pageable_copy(device: Device, stream: Stream, buffer: DeviceBuffer) -> None:
    buffer.copy_from(np.zeros(4, np.float32), stream)


def _spoil_behind_its_back(device: Device, stream: Stream, buffer: DeviceBuffer) -> None:
    ctypes.CDLL("libcuda.so.1").cuStreamSynchronize(ctypes.c_void_p(stream.handle))


def _nothing_wrong(device: Device, stream: Stream, buffer: DeviceBuffer) -> None:
    buffer.fill(1, stream)


_SPOILERS: tuple[tuple[Callable[[Device, Stream, DeviceBuffer], None], str, type[Exception], str], ...] = (
    (_spoil_by_an_own_error, "", KeyError, "the caller's own"),
    (_spoil_by_allocating, "", CudaError, "Resources cannot be created or closed"),
    (_spoil_by_closing, "", CudaError, "Resources cannot be created or closed"),
    (_spoil_by_waiting, "", CudaError, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    (_spoil_by_a_pageable_copy, "", CudaError, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    (_spoil_behind_its_back, "", CudaError, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
    (_nothing_wrong, "cuStreamBeginCapture_v2=900", CudaError, "or launch without a graph"),
    (_nothing_wrong, "cuStreamEndCapture=901", CudaError, "cuStreamEndCapture failed"),
    (_nothing_wrong, "cuGraphInstantiateWithFlags=801", CudaError, "CUDA_ERROR_NOT_SUPPORTED"),
    (_nothing_wrong, "cuGraphUpload=2", CudaError, "CUDA_ERROR_OUT_OF_MEMORY"),
)


@on_the_stand_in()
def test_a_capture_that_fails_leaves_nothing_behind_and_the_stream_usable() -> None:
    for spoil, failure, kind, message in _SPOILERS:
        with Device() as device, device.current():
            stream, buffer = Stream(device), DeviceBuffer(device, 16)
            os.environ["FAKE_CUDA_FAIL"] = failure
            with pytest.raises(kind, match=message):
                Graph(stream, functools.partial(spoil, device, stream, buffer))
            os.environ["FAKE_CUDA_FAIL"] = ""
            assert (count("graphs"), count("graph_execs")) == (0, 0)
            assert gc.isenabled()
            result = np.empty(16, np.uint8)
            buffer.fill(9, stream)
            buffer.copy_to(result, stream)
            assert result.tolist() == [9] * 16
            with Graph(stream, functools.partial(buffer.fill, 3, stream)) as graph:
                graph.launch(stream)
                buffer.copy_to(result, stream)
            assert result.tolist() == [3] * 16
        assert_nothing_is_left()


@on_the_stand_in(FAKE_CUDA_FAIL="cuInit=100")
def test_without_a_gpu_the_error_says_so_and_what_to_check() -> None:
    with pytest.raises(CudaError, match="no CUDA-capable device is detected") as caught:
        Device()
    assert caught.value.code == "CUDA_ERROR_NO_DEVICE"
    assert "CUDA_VISIBLE_DEVICES" in caught.value.advice
    os.environ["FAKE_CUDA_FAIL"] = ""
    with Device() as device:
        assert device.name


@on_the_stand_in()
def test_a_gpu_that_is_not_there_is_not_opened() -> None:
    with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_DEVICE"):
        Device(1)
    assert_nothing_is_left()


@on_the_stand_in(FAKE_CUDA_FAIL="cuDevicePrimaryCtxRetain=46")
def test_a_gpu_that_somebody_holds_for_himself_is_said_to_be() -> None:
    with pytest.raises(CudaError, match="Another process uses the GPU"):
        Device()


def test_without_pycuda_the_error_says_how_to_install_it() -> None:
    in_a_process(Path(__file__), "_check_without_pycuda()", os.environ)


def _check_without_pycuda() -> None:
    sys.modules["pycuda"] = None
    with pytest.raises(CudaError, match="PyCUDA is not installed") as caught:
        Device()
    assert "pip install 'stenosis-trt[gpu]'" in caught.value.advice


def test_without_a_driver_the_error_says_to_install_it() -> None:
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("PyCUDA is not installed: .ci/pycuda.sh VENV installs it without a GPU")
    if query_nvidia_driver().cuda_version is not None:
        pytest.skip("this machine has NVIDIA's driver")
    with pytest.raises(CudaError, match="NVIDIA's driver was not found") as caught:
        Device()
    assert "--gpus all" in caught.value.advice


@on_the_stand_in(FAKE_CUDA_MEMORY="1000000")
def test_running_out_of_memory_is_an_error_after_which_it_goes_on() -> None:
    with Device() as device:
        held = DeviceBuffer(device, 600_000)
        with pytest.raises(CudaError, match="CUDA_ERROR_OUT_OF_MEMORY: out of memory") as caught:
            DeviceBuffer(device, 600_000)
        assert caught.value.out_of_memory
        assert not caught.value.device_lost
        assert "smaller batches" in caught.value.advice
        held.close()
        DeviceBuffer(device, 600_000).close()
    assert_nothing_is_left()


@on_the_stand_in()
def test_a_kernel_that_crashes_loses_the_device_and_all_can_still_be_closed() -> None:
    with Device() as device, device.current():
        stream, module, buffer = Stream(device), Module(device, _IMAGE), DeviceBuffer(device, 4)
        graph = Graph(stream, functools.partial(buffer.fill, 0, stream))
        module.launch("crash", (1, 1, 1), (1, 1, 1), (), stream)
        for attempt in (stream.synchronize, device.memory, lambda: graph.launch(stream)):
            with pytest.raises(CudaError, match="CUDA_ERROR_LAUNCH_FAILED") as caught:
                attempt()
            assert caught.value.device_lost
            assert "restart it" in caught.value.advice
    assert_nothing_is_left()


@on_the_stand_in()
def test_a_launch_may_be_refused() -> None:
    with Device() as device, device.current():
        module, stream = Module(device, _IMAGE), Stream(device)
        os.environ["FAKE_CUDA_FAIL"] = "cuLaunchKernel=701"
        with pytest.raises(CudaError, match="CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"):
            module.launch("scale", (1, 1, 1), (1, 1, 1), (), stream)


@on_the_stand_in()
def test_everything_can_be_closed_twice_and_not_used_after() -> None:
    device = Device()
    with device.current():
        stream, event, module = Stream(device), Event(device), Module(device, _IMAGE)
        buffer, pinned = DeviceBuffer(device, 4), HostArray(device, 1, np.float32)
        graph = Graph(stream, functools.partial(buffer.fill, 0, stream))
        with pytest.raises(CudaError, match="closed inside"):
            device.close()
    resources: tuple[Resource, ...] = (graph, pinned, buffer, module, event, stream)
    for resource in resources:
        resource.close()
        assert resource.closed
        resource.close()
    with device.current():
        other = Stream(device)
        for use in (
            stream.synchronize,
            lambda: graph.launch(other),
            lambda: pinned.array,
            lambda: event.record(other),
            lambda: buffer.fill(0, other),
            lambda: module.kernel_attributes("scale"),
            lambda: pack_arguments((buffer,)),
        ):
            with pytest.raises(CudaError, match="is closed"):
                use()
    device.close()
    device.close()
    for make in (lambda: Stream(device), device.memory):
        with pytest.raises(CudaError, match="The device is closed"):
            make()
    assert_nothing_is_left()


@on_the_stand_in()
def test_what_was_not_closed_is_closed_with_the_device_or_with_a_warning() -> None:
    with Device() as device:
        kept = [DeviceBuffer(device, 16), HostArray(device, 16, np.uint8), Stream(device)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            DeviceBuffer(device, 16)
        assert [str(warning.message) for warning in caught] == ["A DeviceBuffer was not closed."]
        assert count("device_memory") == 1
    assert all(resource.closed for resource in kept)
    assert_nothing_is_left()


@on_the_stand_in()
def test_a_device_can_be_used_and_closed_on_another_thread() -> None:
    device = Device()
    stream, buffer = Stream(device), DeviceBuffer(device, 16)
    result = np.empty(4, np.float32)
    outside = []

    def use() -> None:
        try:
            stream.synchronize()
        except CudaError as error:
            outside.append(error)
        with device.current(), device.current():
            buffer.copy_from(_floats(4), stream)
            buffer.copy_to(result, stream)
        stream.close()
        buffer.close()
        device.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert [error.code for error in outside] == ["CUDA_ERROR_INVALID_CONTEXT"]
    assert "with device.current()" in outside[0].advice
    assert result.tolist() == [0, 1, 2, 3]
    assert_nothing_is_left()


@on_the_stand_in()
def test_the_stand_in_calls_host_functions_in_their_turn_and_lets_them_not_call_it() -> None:
    driver, numbers, answers = ctypes.CDLL("libcuda.so.1"), [], []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def note(number: int) -> None:
        numbers.append(number)
        answers.append(driver.cuMemAlloc_v2(ctypes.byref(ctypes.c_uint64()), ctypes.c_size_t(16)))
        answers.append(driver.cuMemFree_v2(ctypes.c_uint64(0)))

    with Device() as device, device.current():
        stream, buffer, back = Stream(device), DeviceBuffer(device, 16), HostArray(device, 16, np.uint8)

        def enqueue(number: int) -> None:
            buffer.fill(number, stream)
            assert driver.cuLaunchHostFunc(ctypes.c_void_p(stream.handle), note, ctypes.c_void_p(number)) == 0
            buffer.copy_to(back.array, stream)

        enqueue(1)
        graph = Graph(stream, functools.partial(enqueue, 2))
        assert numbers == []
        stream.synchronize()
        assert (numbers, back.array[0]) == ([1], 1)
        for _ in range(2):
            graph.launch(stream)
        stream.synchronize()
        assert (numbers, back.array[0]) == ([1, 2, 2], 2)
        assert set(answers) == {800}


@on_the_stand_in()
def test_the_stand_in_waits_for_a_host_function_in_python_without_keeping_python_from_it() -> None:
    driver, begun, done = ctypes.CDLL("libcuda.so.1"), threading.Event(), []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def slow(number: int) -> None:
        begun.set()
        for _ in range(20):
            time.sleep(0.01)
        done.append(number)

    with Device() as device, device.current():
        stream = Stream(device)
        driver.cuLaunchHostFunc(ctypes.c_void_p(stream.handle), slow, ctypes.c_void_p(1))

        def wait() -> None:
            with device.current():
                stream.synchronize()

        thread = threading.Thread(target=wait)
        thread.start()
        begun.wait()
        # PyCUDA allocates without giving up Python's lock.
        DeviceBuffer(device, 16).close()
        assert done == [1]
        thread.join()


@on_the_stand_in()
def test_the_stand_in_page_locks_memory_that_is_there_already() -> None:
    driver, values = ctypes.CDLL("libcuda.so.1"), _floats(1000)

    def lock(array: np.ndarray) -> int:
        return int(
            driver.cuMemHostRegister_v2(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), 0)
        )

    def unlock(array: np.ndarray) -> int:
        return int(driver.cuMemHostUnregister(ctypes.c_void_p(array.ctypes.data)))

    with Device() as device, device.current():
        stream, buffer, back = Stream(device), DeviceBuffer(device, 4000), HostArray(device, 1000, np.float32)
        assert lock(values) == 0
        assert (lock(values[500:]), unlock(values[1:]), lock(values[:0])) == (712, 713, 1)
        assert count("host_memory") == 2
        buffer.copy_from(values, stream)
        values[:] = 5
        buffer.copy_to(back.array, stream)
        stream.synchronize()
        assert back.array.tolist() == [5] * 1000
        assert (unlock(values), unlock(values)) == (0, 713)
        assert values[0] == 5
        buffer.copy_from(values, stream)
        values[:] = 6
        buffer.copy_to(back.array, stream)
        stream.synchronize()
        assert back.array.tolist() == [5] * 1000
    del back
    assert_nothing_is_left()


@on_the_stand_in()
def test_two_hundred_rounds_leave_nothing_behind() -> None:
    for round_ in range(200):
        with Device() as device, device.current():
            stream, module, event = Stream(device), Module(device, _IMAGE), Event(device)
            buffer = DeviceBuffer(device, 400)
            given, mapped = (
                HostArray(device, 100, np.float32),
                HostArray(device, 100, np.float32, mapped=True),
            )

            def enqueue(given=given, mapped=mapped, buffer=buffer, module=module, stream=stream) -> None:
                buffer.copy_from(given.array, stream)
                _scale(module, buffer, 2.0, 100, stream)
                buffer.copy_to(mapped.array, stream)

            graph = Graph(stream, enqueue)
            given.array[:] = round_
            graph.launch(stream)
            event.record(stream)
            event.synchronize()
            assert (mapped.array == 2 * round_).all()
            if round_ % 2:
                for resource in (graph, mapped, given, buffer, event, module, stream):
                    resource.close()
        assert_nothing_is_left()


def test_arguments_are_laid_out_as_in_c() -> None:
    # Zeroed first: what lies between fields is otherwise whatever was in memory.
    record = np.zeros(1, _STRUCTURE)
    record[0] = (1, 2.0)
    structure = record[0]
    packed = pack_arguments((np.uint8(1), np.float32(1.0), np.int16(2), 3, structure, np.float16(1.0)))
    assert packed == (
        b"\x01\0\0\0" + b"\0\0\x80\x3f" + b"\x02\0\0\0\0\0\0\0" + b"\x03\0\0\0\0\0\0\0"
        b"\x01\0\0\0\0\0\0\0" + b"\0\0\0\0\0\0\0\x40" + b"\0\x3c"
    )


@pytest.mark.parametrize(
    "argument", [1.0, True, None, "x", np.zeros(2), np.array((1, 2), "u1,f8")[()], np.str_("x")], ids=repr
)
def test_an_argument_whose_type_is_left_open_is_refused(argument: object) -> None:
    with pytest.raises(TypeError, match="Argument 1 of a kernel"):
        pack_arguments((np.int32(1), argument))


def test_the_stand_in_agrees_with_the_cuda_header() -> None:
    if shutil.which("cc") is None or not _CUDA_H.is_file():
        pytest.skip(f"needs a C compiler and {_CUDA_H}")
    sources = [FAKE_DRIVER / name for name in ("fake_cuda.c", "memory.c", "work.c", "streams.c")]
    options = [
        "-std=gnu11",
        "-fsyntax-only",
        "-Wall",
        "-Werror",
        "-DCHECK_AGAINST_CUDA_H",
        "-isystem",
        _CUDA_H.parent,
    ]
    subprocess.run(["cc", *options, *sources], check=True)


@pytest.fixture
def gpu() -> None:
    """Skips, and says why, where there is no GPU that PyCUDA could use."""
    driver = query_nvidia_driver()
    if not driver.gpus:
        pytest.skip(f"needs an NVIDIA GPU: {driver.unavailable_reason}")
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("needs PyCUDA: pip install 'stenosis-trt[gpu]'")


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_copies_and_ptx_give_what_numpy_gives() -> None:
    with Device() as device, device.current():
        stream, module, buffer = (
            Stream(device, high_priority=True),
            Module(device, _PTX),
            DeviceBuffer(device, 4_000_000),
        )
        pinned, start, end = HostArray(device, 1_000_000, np.float32), Event(device), Event(device)
        values = _floats(1_000_000)
        pinned.array[:] = values
        start.record(stream)
        buffer.copy_from(pinned.array, stream)
        _scale(module, buffer, 3.0, 999_999, stream)
        buffer.copy_to(pinned.array, stream)
        end.record(stream)
        stream.synchronize()
        assert np.array_equal(pinned.array[:-1], values[:-1] * np.float32(3))
        assert pinned.array[-1] == values[-1]
        assert 0 < end.elapsed_ms(start) < 1000
        assert 0 < module.kernel_attributes("scale").registers < 32


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_a_stream_takes_the_highest_priority() -> None:
    with Device() as device, device.current():
        driver = ctypes.CDLL("libcuda.so.1")
        least, greatest, priority = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(99)
        assert driver.cuCtxGetStreamPriorityRange(ctypes.byref(least), ctypes.byref(greatest)) == 0
        stream = Stream(device, high_priority=True)
        assert driver.cuStreamGetPriority(ctypes.c_void_p(stream.handle), ctypes.byref(priority)) == 0
        assert priority.value == greatest.value


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_a_graph_works_each_time_on_what_is_there_then() -> None:
    with Device() as device, device.current():
        stream, module, buffer = Stream(device), Module(device, _PTX), DeviceBuffer(device, 1200)
        given, mapped = HostArray(device, 300, np.float32), HostArray(device, 300, np.float32, mapped=True)

        def enqueue() -> None:
            buffer.copy_from(given.array, stream)
            _scale(module, buffer, 3.0, 300, stream)
            buffer.copy_to(mapped.array, stream)
            _scale(module, mapped, 2.0, 300, stream)

        enqueue()
        stream.synchronize()
        with Graph(stream, enqueue) as graph:
            for start in (1.0, 20.0, -5.0):
                given.array[:] = _floats(300, start)
                graph.launch(stream)
                stream.synchronize()
                assert np.array_equal(mapped.array, _floats(300, start) * np.float32(6))


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_a_capture_that_fails_leaves_the_stream_usable() -> None:
    with Device() as device, device.current():
        stream, buffer = Stream(device), DeviceBuffer(device, 16)
        with pytest.raises(CudaError, match="CUDA_ERROR_STREAM_CAPTURE"):
            Graph(stream, stream.synchronize)
        with Graph(stream, functools.partial(buffer.fill, 3, stream)) as graph:
            graph.launch(stream)
            result = np.empty(16, np.uint8)
            buffer.copy_to(result, stream)
        stream.synchronize()
        assert result.tolist() == [3] * 16


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_memory_that_is_given_back_is_free_again() -> None:
    with Device() as device:
        with device.current():
            Stream(device).close()
        before, total = device.memory()
        with pytest.raises(CudaError) as caught:
            DeviceBuffer(device, total + 1)
        assert caught.value.out_of_memory
        for _ in range(5):
            DeviceBuffer(device, before // 2).close()
        assert abs(device.memory()[0] - before) < 64 << 20
