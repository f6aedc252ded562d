"""The GPU through PyCUDA, of which this is the only importer, when a device is opened and not before.

    with Device() as device, device.current():
        stream, module = Stream(device), Module(device, cubin)
        pixels, scaled = HostArray(device, (512, 512), np.float32), DeviceBuffer(device, 512 * 512 * 4)
        scaled.copy_from(pixels.array, stream)
        module.launch("scale", (1024, 1, 1), (256, 1, 1), (scaled, np.float32(2.0)), stream)
        scaled.copy_to(pixels.array, stream)
        stream.synchronize()

`cuda_memory`, `cuda_module` and `cuda_graph` have the rest. Everything is closed once: by `close`, by `with`,
or at the latest with the device. What is given to a stream, or waits for one, is called inside
`with device.current():`, on whatever thread; things can be made and closed anywhere.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from stenosis_trt.engine.cuda.driver import CudaError, call_driver, error_from_message

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: independent of what other libraries do on the default stream."""
_WITHOUT_TIMING = 2
"""CU_EVENT_DISABLE_TIMING."""
_STREAM_PRIORITY, _STREAM_ATTRIBUTE_BYTES = 8, 64
"""CU_STREAM_ATTRIBUTE_PRIORITY, and the size of CUstreamAttrValue, which begins with the priority."""

_R = TypeVar("_R", bound="Resource")


class Device:
    """One GPU, by its primary context, which TensorRT and other libraries of the process use too.

    Attributes:
        name: as the driver gives it.
        compute_capability: (major, minor).
        driver_version: newest CUDA that the driver offers, 13000 for 13.0.
        integrated: whether it shares the machine's memory, as on a Jetson.
        multiprocessors: how many it has.
        pycuda: PyCUDA's `driver` module.
    """

    def __init__(self, ordinal: int = 0) -> None:
        """Take hold of the `ordinal`-th GPU that this process is given.

        Raises:
            CudaError: PyCUDA, the driver or the GPU is not there, and what to install.
        """
        self.pycuda: Any = _pycuda()
        with pycuda_errors:
            gpu, attributes = self.pycuda.Device(ordinal), self.pycuda.device_attribute
            self.name = str(gpu.name())
            self.compute_capability: tuple[int, int] = gpu.compute_capability()
            self.driver_version = int(self.pycuda.get_driver_version())
            self.integrated = bool(gpu.get_attribute(attributes.INTEGRATED))
            self.multiprocessors = int(gpu.get_attribute(attributes.MULTIPROCESSOR_COUNT))
            self._context = gpu.retain_primary_context()
        self._closed = False
        self._lock = threading.Lock()
        self._holders = 1
        self._current = 0
        self._capturing_threads: set[int] = set()
        self._numbers = itertools.count()
        self._resources: weakref.WeakValueDictionary[int, Resource] = weakref.WeakValueDictionary()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the calling thread's device for the length of a `with` block. Blocks may be nested."""
        with self._lock:
            if not self._holders:
                raise CudaError("The device is closed.", "Open it anew.")
            self._current += 1
        try:
            with pycuda_errors:
                self._context.push()
            try:
                yield
            finally:
                self._context.pop()
        finally:
            with self._lock:
                self._current -= 1

    def memory(self) -> tuple[int, int]:
        """Bytes of device memory: (free, total)."""
        with self.current(), pycuda_errors:
            free, total = self.pycuda.mem_get_info()
        return int(free), int(total)

    def synchronize(self) -> None:
        """Wait for all work that was given to the device."""
        with self.current(), pycuda_errors:
            self._context.synchronize()

    @contextmanager
    def creating(self) -> Iterator[None]:
        """In which something of this device's is made.

        Raises:
            CudaError: the device is closed, the calling thread captures, or the driver refused.
        """
        if self._closed:
            raise CudaError("The device is closed.", "Open it anew.")
        self.check_not_capturing()
        with self.current(), pycuda_errors:
            yield

    def register(self, resource: Resource) -> None:
        """Close `resource` with the device, if it still is open then."""
        self._resources[next(self._numbers)] = resource

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """In which the calling thread captures: `check_not_capturing` refuses."""
        self._capturing_threads.add(threading.get_ident())
        try:
            yield
        finally:
            self._capturing_threads.remove(threading.get_ident())

    def check_not_capturing(self) -> None:
        """Raise CudaError if the calling thread captures: to make or close something would spoil that."""
        if threading.get_ident() in self._capturing_threads:
            raise CudaError("Nothing can be made or closed while work is captured.", "Do it before or after.")

    def close(self) -> None:
        """Close what is still open, latest first, and let go of the context. Does nothing the second time.

        Page-locked memory that the program still has views of stays, and the context with it, until the last
        view goes.

        Raises:
            CudaError: the device is current on some thread, or the calling one captures.
        """
        if self._closed:
            return
        if self._current:
            raise CudaError("The device is closed inside `with device.current():`.", "Close it after.")
        for _, resource in sorted(self._resources.items(), reverse=True):
            resource.close()
        self._closed = True
        self.drop()

    def hold(self) -> None:
        """Keep the context beyond `close`, until `drop`."""
        with self._lock:
            self._holders += 1

    def drop(self) -> None:
        """Undo a `hold`, or the device's own. The last one gives the context back."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        # PyCUDA leaves a context that it gives back on the driver's stack, and on any thread but its first
        # gives it back only if it is current. So it is: for PyCUDA, but for the driver no more.
        self._context.push()
        call_driver("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        self._context.detach()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Resource:
    """Something of a device's that is closed once.

    Attributes:
        device: whose it is.
        closed: whether it has been closed.
    """

    def __init__(self, device: Device) -> None:
        """Called by each kind once it has what is to be given back."""
        self.device = device
        self.closed = False
        device.register(self)

    def close(self) -> None:
        """Give it back. Does nothing the second time.

        Raises:
            CudaError: the calling thread captures.
        """
        if self.closed:
            return
        self.device.check_not_capturing()
        self.closed = True
        with self.device.current():
            self._release()

    def check_open(self) -> None:
        """Raise CudaError if it is closed."""
        if self.closed:
            raise CudaError(f"This {type(self).__name__} is closed.", "Make a new one.")

    def _release(self) -> None:
        raise NotImplementedError

    def __enter__(self: _R) -> _R:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            warnings.warn(f"A {type(self).__name__} was not closed.", ResourceWarning, 2, source=self)
            self.close()


class Stream(Resource):
    """Work of the device that is done in the order in which it is given.

    Attributes:
        native: PyCUDA's.
        handle: CUstream, as TensorRT takes it.
    """

    def __init__(self, device: Device, high_priority: bool = False) -> None:
        """With `high_priority`, its kernels go before those of other streams.

        Raises:
            CudaError: the driver refused.
        """
        with device.creating():
            self.native: Any = device.pycuda.Stream(_NON_BLOCKING)
            self.handle = int(self.native.handle)
            if high_priority:
                least, greatest = ctypes.c_int(), ctypes.c_int()
                call_driver("cuCtxGetStreamPriorityRange", ctypes.byref(least), ctypes.byref(greatest))
                value = ctypes.create_string_buffer(bytes(greatest), _STREAM_ATTRIBUTE_BYTES)
                call_driver("cuStreamSetAttribute", self.handle, _STREAM_PRIORITY, value)
        self._uses: list[object] | None = None
        super().__init__(device)

    @property
    def done(self) -> bool:
        """Whether all that was given has been done."""
        self.check_open()
        with pycuda_errors:
            return bool(self.native.is_done())

    def synchronize(self) -> None:
        """Wait until all that was given has been done. If something went wrong with it, raise CudaError."""
        self.check_open()
        with pycuda_errors:
            self.native.synchronize()

    def wait_for(self, event: Event) -> None:
        """Do what is given from here on only after what was given before `event` was recorded."""
        self.check_open()
        event.check_open()
        with pycuda_errors:
            self.native.wait_for_event(event.native)
        self.record_use(event)

    @contextmanager
    def recording_uses(self) -> Iterator[list[object]]:
        """The list, as it fills, of what the work given in a `with` block refers to."""
        self._uses = uses = list[object]()
        try:
            yield uses
        finally:
            self._uses = None

    def record_use(self, *uses: object) -> None:
        """Called with what the work just given refers to."""
        if self._uses is not None:
            self._uses.extend(uses)

    def _release(self) -> None:
        self.native = None


class Event(Resource):
    """A point in the work of a stream.

    Attributes:
        native: PyCUDA's.
    """

    def __init__(self, device: Device, timing: bool = True) -> None:
        """Without `timing` it costs less, and has no time.

        Raises:
            CudaError: the driver refused.
        """
        with device.creating():
            self.native: Any = device.pycuda.Event(0 if timing else _WITHOUT_TIMING)
        super().__init__(device)

    @property
    def done(self) -> bool:
        """Whether what was given before it was recorded has been done."""
        self.check_open()
        with pycuda_errors:
            return bool(self.native.query())

    def record(self, stream: Stream) -> None:
        """Mark the point that `stream` has been given work up to."""
        self.check_open()
        stream.check_open()
        with pycuda_errors:
            self.native.record(stream.native)
        stream.record_use(self)

    def synchronize(self) -> None:
        """Wait until what was given before it was recorded has been done."""
        self.check_open()
        with pycuda_errors:
            self.native.synchronize()

    def elapsed_ms(self, since: Event) -> float:
        """Milliseconds from `since` to this; both have to be done.

        Raises:
            CudaError: one of them is not done, was not recorded, or was made without timing.
        """
        self.check_open()
        since.check_open()
        with pycuda_errors:
            return float(self.native.time_since(since.native))

    def _release(self) -> None:
        self.native = None


class _PycudaErrors:
    """`with` block in which PyCUDA's errors become CudaError."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, _pycuda().Error):
            raise error_from_message(str(error)) from error


pycuda_errors = _PycudaErrors()


@functools.cache
def _pycuda() -> Any:
    """PyCUDA's driver module, initialised.

    Raises:
        CudaError: it is not installed, it finds no driver, or the driver gives no GPU.
    """
    try:
        import pycuda.driver as pycuda
    except ModuleNotFoundError as error:
        raise CudaError(
            f"PyCUDA is not installed ({error}).",
            "With the CUDA toolkit and a C++ compiler on the machine: pip install 'stenosis-trt[gpu]'",
        ) from error
    except ImportError as error:
        if "libcuda" in str(error):
            raise CudaError(
                f"NVIDIA's driver was not found ({error}).",
                "Install it; in a container, start that with --gpus all (on a Jetson --runtime nvidia).",
            ) from error
        raise CudaError(
            f"PyCUDA does not fit this machine ({error}).",
            "Build it anew: pip install --force-reinstall --no-cache-dir --no-deps pycuda",
        ) from error
    try:
        pycuda.init()
    except pycuda.Error as error:
        raise error_from_message(str(error)) from error
    return pycuda
