"""CUDA graphs: work that is captured once and launched by one call. PyCUDA lacks them."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stenosis_trt.engine.cuda.device import Resource, Stream
from stenosis_trt.engine.cuda.driver import CudaError, call_driver

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class Graph(Resource):
    """Captured work. It keeps the resources that the work uses alive, and must be closed before them.

    Buffers and page-locked arrays are captured by address: each launch uses their content at that time.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        """Capture the work that `enqueue` gives to `stream`, without executing it.

        Args:
            stream: stream to capture on.
            enqueue: called once on this thread. It may launch kernels and copy from and to page-locked
                arrays, but not allocate, wait, or copy other arrays.

        Raises:
            CudaError: the driver cannot capture it. The stream remains usable.
        """
        with stream.device.current():
            with stream.recording_uses() as uses:
                graph = _captured(stream, enqueue)
            self._handle = _instantiated(graph, stream)
        self._uses = tuple({id(used): used for used in uses}.values())
        super().__init__(stream.device)

    def launch(self, stream: Stream) -> None:
        """Launch the captured work on `stream`, inside `with device.current():`.

        Raises:
            CudaError: the graph or a resource that it uses is closed, or the launch failed.
        """
        self.check_open()
        for used in self._uses:
            if getattr(used, "closed", False):
                raise CudaError(
                    f"A {type(used).__name__} that this graph uses is closed.", "Capture it again."
                )
        call_driver("cuGraphLaunch", self._handle, stream.handle)

    def _release(self) -> None:
        self._uses = ()
        try:
            call_driver("cuGraphExecDestroy", self._handle)
        except CudaError as error:
            # The loss of the device was raised where it was used.
            if not error.device_lost:
                raise


def _captured(stream: Stream, enqueue: Callable[[], None]) -> int:
    """Capture the work of `enqueue` and return the handle of the graph."""
    with stream.device.capturing(), _no_collection():
        call_driver("cuStreamBeginCapture_v2", stream.handle, _THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            _abandon(stream)
            raise
        graph = ctypes.c_void_p()
        call_driver("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
    assert graph.value is not None
    return graph.value


def _abandon(stream: Stream) -> None:
    """End a failed capture. Errors are suppressed: the one that ended it is already being raised."""
    graph = ctypes.c_void_p()
    try:
        call_driver("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
    except CudaError:
        return
    if graph.value is not None:
        call_driver("cuGraphDestroy", graph.value)


def _instantiated(graph: int, stream: Stream) -> int:
    """Instantiate a graph, upload it to the device and destroy the graph. Returns the executable handle."""
    executable = ctypes.c_void_p()
    try:
        call_driver("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
    finally:
        call_driver("cuGraphDestroy", graph)
    assert executable.value is not None
    try:
        call_driver("cuGraphUpload", executable.value, stream.handle)
    except CudaError:
        call_driver("cuGraphExecDestroy", executable.value)
        raise
    return executable.value


@contextmanager
def _no_collection() -> Iterator[None]:
    """Context manager without garbage collection, which might free device memory and invalidate a capture."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
