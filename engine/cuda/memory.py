"""Memory of the device, and page-locked memory of the machine."""

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
    """Memory of the device; what is in it at first is unknown.

    Attributes:
        nbytes: its size.
        address: where it begins, on the device; a multiple of 256.
    """

    def __init__(self, device: Device, nbytes: int) -> None:
        """Take `nbytes` bytes.

        Raises:
            ValueError: none or fewer.
            CudaError: the driver refused; `out_of_memory` where there are not as many.
        """
        if nbytes < 1:
            raise ValueError(f"A buffer of {nbytes} bytes.")
        with device.creating():
            self._native: Any = device.pycuda.mem_alloc(nbytes)
        self.nbytes, self.address = nbytes, int(self._native)
        super().__init__(device)

    def copy_from(self, array: npt.NDArray[Any], stream: Stream, offset: int = 0) -> None:
        """Copy an array here, `offset` bytes from the beginning, in the order of `stream`.

        A page-locked array may not be changed until that is done; of any other, the content is taken at once.

        Raises:
            ValueError: the array is not contiguous, or does not fit.
            CudaError: the driver refused.
        """
        self._check(array, offset, stream)
        with pycuda_errors:
            self.device.pycuda.memcpy_htod_async(self.address + offset, array, stream.native)
        stream.record_use(self, array)

    def copy_to(self, array: npt.NDArray[Any], stream: Stream, offset: int = 0) -> None:
        """Fill an array from here, `offset` bytes from the beginning, in the order of `stream`.

        A page-locked array is filled once that is done; for any other, the call waits for it.

        Raises:
            ValueError: the array is not contiguous or cannot be written, or there is not as much here.
            CudaError: the driver refused.
        """
        self._check(array, offset, stream)
        if not array.flags.writeable:
            raise ValueError("The array cannot be written.")
        with pycuda_errors:
            self.device.pycuda.memcpy_dtoh_async(array, self.address + offset, stream.native)
        stream.record_use(self, array)

    def fill(self, byte: int, stream: Stream) -> None:
        """Set every byte to `byte`, in the order of `stream`."""
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
            raise ValueError(f"{array.nbytes} bytes from {offset} on, in a buffer of {self.nbytes}.")

    def _release(self) -> None:
        self._native.free()


class HostArray(Resource):
    """A NumPy array in page-locked memory, which is copied faster and while the program goes on.

    Its memory is given back with the last view of it: by `close`, unless the program has kept a view.

    Attributes:
        address: where kernels find it, if it is mapped; else None.
    """

    def __init__(
        self, device: Device, shape: int | tuple[int, ...], dtype: npt.DTypeLike, mapped: bool = False
    ) -> None:
        """Make an array of unknown content.

        Args:
            device: which copies from and to it.
            shape, dtype: as of NumPy's arrays.
            mapped: whether kernels may read and write it where it is, without a copy. That is worth it where
                device and machine share their memory.

        Raises:
            ValueError: there is nothing in an array of that shape.
            CudaError: the driver refused.
        """
        if np.prod(shape) < 1:
            raise ValueError(f"There is nothing in an array of shape {shape}.")
        with device.creating():
            array = device.pycuda.pagelocked_empty(shape, dtype, mem_flags=_DEVICE_MAP if mapped else 0)
            self.address: int | None = int(array.base.get_device_pointer()) if mapped else None
        device.hold()
        weakref.finalize(array, _free, array.base, device)
        self._array: npt.NDArray[Any] | None = array
        super().__init__(device)

    @property
    def array(self) -> npt.NDArray[Any]:
        """The array, of the shape and dtype asked for."""
        self.check_open()
        assert self._array is not None
        return self._array

    def _release(self) -> None:
        self._array = None


class RegisteredMemory(Resource):
    """Memory that the program has already, page-locked while this is open: copied from faster and while the
    program goes on, and read by kernels where it is.

    PyCUDA's own way (2026.1) does not get along with NumPy 2.

    Attributes:
        address: where kernels find it.
    """

    def __init__(self, device: Device, array: npt.NDArray[np.uint8]) -> None:
        """Page-lock a contiguous array, which stays alive as long as this.

        Raises:
            CudaError: the driver refused.
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
            # Whoever used the device has been told.
            if not error.device_lost:
                raise


def _free(allocation: Any, device: Device) -> None:
    """What is done when the last view of a page-locked array goes."""
    with device.current():
        allocation.free()
    device.drop()
