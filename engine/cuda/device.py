"""Devices, streams and events. The only module that imports PyCUDA, when a device is opened.

    with Device() as device, device.current():
        stream, module = Stream(device), Module(device, cubin)
        pixels, scaled = HostArray(device, (512, 512), np.float32), DeviceBuffer(device, 512 * 512 * 4)
        scaled.copy_from(pixels.array, stream)
        module.launch("scale", (1024, 1, 1), (256, 1, 1), (scaled, np.float32(2.0)), stream)
        scaled.copy_to(pixels.array, stream)
        stream.synchronize()

See `memory`, `module` and `graph` for the other resources. Resources are closed by `close`, by `with`, or at
the latest with their device. Calls that enqueue work or wait for a stream must run inside
`with device.current():`, on any thread; resources can be created and closed anywhere.
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
from typing import Any

from stenosis_trt.engine.cuda.driver import CudaError, call_driver, error_from_message
from stenosis_trt.engine.support.closeable import Closeable

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: no implicit synchronisation with the default stream."""
_WITHOUT_TIMING = 2
"""CU_EVENT_DISABLE_TIMING."""
_STREAM_PRIORITY, _STREAM_ATTRIBUTE_BYTES = 8, 64
"""CU_STREAM_ATTRIBUTE_PRIORITY, and the size of CUstreamAttrValue, whose first field is the priority."""


class Device(Closeable):
    """One GPU, used through its primary context, which TensorRT and other libraries share.

    Attributes:
        name: name that the driver reports.
        compute_capability: (major, minor).
        driver_version: CUDA version of the driver, 13000 for 13.0.
        integrated: True if it shares the memory of the host, as on a Jetson.
        multiprocessors: number of multiprocessors.
        pycuda: PyCUDA's `driver` module.
    """

    def __init__(self, ordinal: int = 0) -> None:
        """Open the `ordinal`-th GPU that is visible to this process.

        Raises:
            CudaError: PyCUDA, the driver or the GPU is missing; the advice says what to install.
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
        """Context manager that makes this the device of the calling thread. Can be nested."""
        with self._lock:
            if not self._holders:
                raise CudaError("The device is closed.", "Open it again.")
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
        """Return the bytes of device memory, (free, total)."""
        with self.current(), pycuda_errors:
            free, total = self.pycuda.mem_get_info()
        return int(free), int(total)

    def synchronize(self) -> None:
        """Wait for all enqueued work of the device."""
        with self.current(), pycuda_errors:
            self._context.synchronize()

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Context manager in which a resource of this device is created.

        Raises:
            CudaError: the device is closed, the calling thread is capturing, or a driver call failed.
        """
        if self._closed:
            raise CudaError("The device is closed.", "Open it again.")
        self.check_not_capturing()
        with self.current(), pycuda_errors:
            yield

    def register(self, resource: Resource) -> None:
        """Close `resource` together with the device if it is still open then."""
        self._resources[next(self._numbers)] = resource

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Context manager in which the calling thread counts as capturing."""
        self._capturing_threads.add(threading.get_ident())
        try:
            yield
        finally:
            self._capturing_threads.remove(threading.get_ident())

    def check_not_capturing(self) -> None:
        """Raise CudaError if the calling thread is capturing: creating or closing would invalidate that."""
        if threading.get_ident() in self._capturing_threads:
            raise CudaError(
                "Resources cannot be created or closed during a capture.",
                "Do it before or after the capture.",
            )

    def close(self) -> None:
        """Close all open resources, latest first, and release the context. Idempotent.

        Page-locked memory with remaining views keeps the context until the last view is deleted.

        Raises:
            CudaError: the device is current on some thread, or the calling thread is capturing.
        """
        if self._closed:
            return
        if self._current:
            raise CudaError("The device is closed inside `with device.current():`.", "Close it after.")
        for _, resource in sorted(self._resources.items(), reverse=True):
            resource.close()
        self._closed = True
        self.release()

    def retain(self) -> None:
        """Keep the context beyond `close`, until `release`."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Undo one `retain`, or the initial one. The last call releases the context."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        # PyCUDA detaches a context on other threads than its first only if it is current, and then leaves it
        # on the driver's stack. So push it with PyCUDA, and pop it with the driver behind PyCUDA's back.
        self._context.push()
        call_driver("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        self._context.detach()


class Resource(Closeable):
    """Base class of device resources with an idempotent `close()`.

    Attributes:
        device: device that owns it.
        closed: True once it has been closed.
    """

    def __init__(self, device: Device) -> None:
        """Register with the device. Subclasses call it once they have acquired the resource."""
        self.device = device
        self.closed = False
        device.register(self)

    def close(self) -> None:
        """Release the resource. Idempotent.

        Raises:
            CudaError: the calling thread is capturing.
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

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            warnings.warn(f"A {type(self).__name__} was not closed.", ResourceWarning, 2, source=self)
            self.close()


class Stream(Resource):
    """CUDA stream: work that the device executes in order.

    Attributes:
        native: PyCUDA's stream.
        handle: CUstream as an integer, for TensorRT.
    """

    def __init__(self, device: Device, high_priority: bool = False) -> None:
        """Create a stream. With `high_priority`, its kernels are scheduled before those of other streams.

        Raises:
            CudaError: a driver call failed.
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
        """True if all enqueued work is finished."""
        self.check_open()
        with pycuda_errors:
            return bool(self.native.is_done())

    def synchronize(self) -> None:
        """Wait for all enqueued work. Raises CudaError if any of it failed."""
        self.check_open()
        with pycuda_errors:
            self.native.synchronize()

    def wait_for(self, event: Event) -> None:
        """Make work that is enqueued from now on wait for `event`."""
        self.check_open()
        event.check_open()
        with pycuda_errors:
            self.native.wait_for_event(event.native)
        self.record_use(event)

    @contextmanager
    def recording_uses(self) -> Iterator[list[object]]:
        """Context manager that yields a list of the objects that the enqueued work uses."""
        self._uses = uses = list[object]()
        try:
            yield uses
        finally:
            self._uses = None

    def record_use(self, *uses: object) -> None:
        """Record the objects that the work just enqueued uses."""
        if self._uses is not None:
            self._uses.extend(uses)

    def _release(self) -> None:
        self.native = None


class Event(Resource):
    """CUDA event: a point in the work of a stream.

    Attributes:
        native: PyCUDA's event.
    """

    def __init__(self, device: Device, timing: bool = True) -> None:
        """Create an event. Without `timing` it is cheaper, and `elapsed_ms` fails.

        Raises:
            CudaError: a driver call failed.
        """
        with device.creating():
            self.native: Any = device.pycuda.Event(0 if timing else _WITHOUT_TIMING)
        super().__init__(device)

    @property
    def done(self) -> bool:
        """True if the work before the recorded point is finished."""
        self.check_open()
        with pycuda_errors:
            return bool(self.native.query())

    def record(self, stream: Stream) -> None:
        """Record the current end of the work of `stream`."""
        self.check_open()
        stream.check_open()
        with pycuda_errors:
            self.native.record(stream.native)
        stream.record_use(self)

    def synchronize(self) -> None:
        """Wait for the work before the recorded point."""
        self.check_open()
        with pycuda_errors:
            self.native.synchronize()

    def elapsed_ms(self, since: Event) -> float:
        """Milliseconds from the event `since` to this one.

        Raises:
            CudaError: one of them is unfinished, not recorded, or created without timing.
        """
        self.check_open()
        since.check_open()
        with pycuda_errors:
            return float(self.native.time_since(since.native))

    def _release(self) -> None:
        self.native = None


class _PycudaErrors:
    """Context manager that converts PyCUDA's errors to CudaError."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, _pycuda().Error):
            raise error_from_message(str(error)) from error


pycuda_errors = _PycudaErrors()


@functools.cache
def _pycuda() -> Any:
    """Import and initialise PyCUDA's driver module.

    Raises:
        CudaError: it is not installed, there is no driver, or the driver has no GPU.
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
                "Install it; start a container with --gpus all (on a Jetson --runtime nvidia).",
            ) from error
        raise CudaError(
            f"PyCUDA does not fit this machine ({error}).",
            "Reinstall it: pip install --force-reinstall --no-cache-dir --no-deps pycuda",
        ) from error
    try:
        pycuda.init()
    except pycuda.Error as error:
        raise error_from_message(str(error)) from error
    return pycuda
