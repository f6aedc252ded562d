"""Device memory and page-locked host memory."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.cuda.device import Device, Resource, Stream, pycuda_errors
from stenosis_trt.engine.cuda.driver import CudaError, call_driver

_DEVICE_MAP = 2
"""CU_MEMHOSTALLOC_DEVICEMAP."""
_REGISTER_MAPPED = 2
"""CU_MEMHOSTREGISTER_DEVICEMAP."""


class DeviceBuffer(Resource):
    """Device memory, uninitialised.

    Attributes:
        nbytes: size in bytes.
        address: device address, a multiple of 256.
    """

    def __init__(self, device: Device, nbytes: int) -> None:
        """Allocate `nbytes` bytes.

        Raises:
            ValueError: `nbytes` is less than 1.
            CudaError: the allocation failed; `out_of_memory` is True if memory is short.
        """
        if nbytes < 1:
            raise ValueError(f"A buffer cannot have {nbytes} bytes.")
        with device.creating():
            self._native: Any = device.pycuda.mem_alloc(nbytes)
        self.nbytes, self.address = nbytes, int(self._native)
        super().__init__(device)

    def copy_from(self, array: npt.NDArray[Any], stream: Stream, offset: int = 0) -> None:
        """Copy an array to the buffer at `offset` bytes, asynchronously on `stream`.

        A page-locked array must not be modified until the copy is finished; any other array is read at once.

        Raises:
            ValueError: the array is not contiguous, or does not fit.
            CudaError: a driver call failed.
        """
        self._check(array, offset, stream)
        with pycuda_errors:
            self.device.pycuda.memcpy_htod_async(self.address + offset, array, stream.native)
        stream.record_use(self, array)

    def copy_to(self, array: npt.NDArray[Any], stream: Stream, offset: int = 0) -> None:
        """Fill an array from the buffer at `offset` bytes, asynchronously on `stream`.

        The call waits for the copy unless the array is page-locked.

        Raises:
            ValueError: the array is not contiguous or not writeable, or exceeds the buffer.
            CudaError: a driver call failed.
        """
        self._check(array, offset, stream)
        if not array.flags.writeable:
            raise ValueError("The array is not writeable.")
        with pycuda_errors:
            self.device.pycuda.memcpy_dtoh_async(array, self.address + offset, stream.native)
        stream.record_use(self, array)

    def fill(self, byte: int, stream: Stream) -> None:
        """Set every byte to `byte`, asynchronously on `stream`."""
        self.check_open()
        stream.check_open()
        with pycuda_errors:
            self.device.pycuda.memset_d8_async(self.address, byte, self.nbytes, stream.native)
        stream.record_use(self)

    def _check(self, array: npt.NDArray[Any], offset: int, stream: Stream) -> None:
        self.check_open()
        stream.check_open()
        if not array.flags.forc:
            raise ValueError("The array is not contiguous.")
        if offset < 0 or offset + array.nbytes > self.nbytes:
            raise ValueError(
                f"{array.nbytes} bytes at offset {offset} exceed a buffer of {self.nbytes} bytes."
            )

    def _release(self) -> None:
        self._native.free()


class HostArray(Resource):
    """NumPy array in page-locked memory, which can be copied asynchronously.

    Its memory is freed by `close`, or with the last remaining view of the array.

    Attributes:
        address: device address if it is mapped, else None.
    """

    def __init__(
        self, device: Device, shape: int | tuple[int, ...], dtype: npt.DTypeLike, mapped: bool = False
    ) -> None:
        """Allocate an uninitialised array.

        Args:
            device: device that copies from and to it.
            shape, dtype: as for `numpy.empty`.
            mapped: map it into the address space of the device, so that kernels access it without a copy.
                Fast if device and host share memory.

        Raises:
            ValueError: the array has no elements.
            CudaError: a driver call failed.
        """
        if np.prod(shape) < 1:
            raise ValueError(f"There is nothing in an array of shape {shape}.")
        with device.creating():
            array = device.pycuda.pagelocked_empty(shape, dtype, mem_flags=_DEVICE_MAP if mapped else 0)
            self.address: int | None = int(array.base.get_device_pointer()) if mapped else None
        device.retain()
        weakref.finalize(array, _free, array.base, device)
        self._array: npt.NDArray[Any] | None = array
        super().__init__(device)

    @property
    def array(self) -> npt.NDArray[Any]:
        """The array."""
        self.check_open()
        assert self._array is not None
        return self._array

    def _release(self) -> None:
        self._array = None


class RegisteredMemory(Resource):
    """Page-locks an existing array while open: it can be copied asynchronously and read by kernels in place.

    Calls the driver because PyCUDA's `register_host_memory` (2026.1) is incompatible with NumPy 2.

    Attributes:
        address: device address of the array.
    """

    def __init__(self, device: Device, array: npt.NDArray[np.uint8]) -> None:
        """Page-lock a contiguous array and keep a reference to it.

        Raises:
            CudaError: a driver call failed.
        """
        start = array.__array_interface__["data"][0]
        address = ctypes.c_ulonglong()
        with device.creating():
            call_driver("cuMemHostRegister_v2", start, array.nbytes, _REGISTER_MAPPED)
            try:
                call_driver("cuMemHostGetDevicePointer_v2", ctypes.byref(address), start, 0)
            except CudaError:
                call_driver("cuMemHostUnregister", start)
                raise
        self.address, self._start, self._array = address.value, start, array
        super().__init__(device)

    def _release(self) -> None:
        try:
            call_driver("cuMemHostUnregister", self._start)
        except CudaError as error:
            # The loss of the device was raised where it was used.
            if not error.device_lost:
                raise


def _free(allocation: Any, device: Device) -> None:
    """Finaliser of a page-locked array: runs when its last view is deleted."""
    with device.current():
        allocation.free()
    device.release()
