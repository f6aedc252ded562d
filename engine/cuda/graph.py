"""CUDA graphs: work captured once, and given to a stream by a single call. PyCUDA does not have them."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stenosis_trt.engine.cuda.device import Resource, Stream
from stenosis_trt.engine.cuda.driver import CudaError, call_driver

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class Graph(Resource):
    """Captured work. It keeps alive what the work refers to, and is closed before that is.

    Buffers and page-locked arrays are captured by their addresses: each launch works on what is in them then.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        """Capture what `enqueue` gives to `stream`, instead of doing it.

        Args:
            stream: on which it is captured; TensorRT is given its `handle`.
            enqueue: called once, on this thread. It may launch, and copy from and to page-locked arrays, but
                not allocate, wait, or copy other arrays. None of it is done yet when it returns.

        Raises:
            CudaError: the driver refused to capture it. The stream can be used as before.
        """
        with stream.device.current():
            with stream.recording_uses() as uses:
                graph = _captured(stream, enqueue)
            self._handle = _instantiated(graph, stream)
        self._uses = tuple({id(used): used for used in uses}.values())
        super().__init__(stream.device)

    def launch(self, stream: Stream) -> None:
        """Give the captured work to `stream`, inside `with device.current():`.

        Raises:
            CudaError: the graph, or something that its work refers to, is closed; or the driver refused.
        """
        self.check_open()
        for used in self._uses:
            if getattr(used, "closed", False):
                raise CudaError(f"A {type(used).__name__} of this graph's is closed.", "Capture it anew.")
        call_driver("cuGraphLaunch", self._handle, stream.handle)

    def _release(self) -> None:
        self._uses = ()
        try:
            call_driver("cuGraphExecDestroy", self._handle)
        except CudaError as error:
            # Whoever used the device has been told.
            if not error.device_lost:
                raise


def _captured(stream: Stream, enqueue: Callable[[], None]) -> int:
    """Handle of the graph of what `enqueue` gives to `stream`."""
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
    """End a capture of which nothing is wanted, because of an error that is on its way: no second one is."""
    graph = ctypes.c_void_p()
    try:
        call_driver("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
    except CudaError:
        return
    if graph.value is not None:
        call_driver("cuGraphDestroy", graph.value)


def _instantiated(graph: int, stream: Stream) -> int:
    """Handle of what can be launched, already on the device. The graph itself is given back."""
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
    """Collecting garbage might give memory of the device back, which spoils a capture."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
