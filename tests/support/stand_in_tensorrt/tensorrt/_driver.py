"""What the stand-in asks of the stand-in driver. As TensorRT, it uses the calling thread's CUDA context."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

ILLEGAL_ADDRESS = 700
_OUT_OF_MEMORY = 2
HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _cuda() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


class DeviceError(Exception):
    """The driver refused, in words like TensorRT's."""


class DeviceMemory:
    """Memory of the device that goes with this object."""

    def __init__(self, nbytes: int) -> None:
        self._address = ctypes.c_uint64()
        self._free: Callable[..., int] = _cuda().cuMemFree_v2
        code = _cuda().cuMemAlloc_v2(ctypes.byref(self._address), ctypes.c_size_t(nbytes))
        if code == _OUT_OF_MEMORY:
            raise DeviceError(f"OutOfMemory (requested size was {nbytes} bytes)")
        if code:
            raise DeviceError(f"Cuda Runtime ({error_text(code)})")

    def __del__(self) -> None:
        if self._address.value:
            self._free(self._address)


def error_text(code: int) -> str:
    """The driver's text of its error."""
    text = ctypes.c_char_p()
    _cuda().cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"").decode()


def device_count() -> int:
    """GPUs that there are."""
    count = ctypes.c_int()
    return 0 if _cuda().cuInit(0) or _cuda().cuDeviceGetCount(ctypes.byref(count)) else count.value


def is_live(address: int, nbytes: int) -> bool:
    """Whether these bytes lie in memory of the device, or page-locked memory, that was not given back."""
    return bool(_cuda().fake_cuda_is_live(ctypes.c_void_p(address), ctypes.c_size_t(nbytes)))


def captures(stream: int) -> bool:
    """Whether the stream captures. Raises DeviceError: the driver does not answer."""
    status = ctypes.c_int()
    code = _cuda().cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
    if code:
        raise DeviceError(f"Cuda Runtime ({error_text(code)})")
    return bool(status.value)


def spoil_capture(stream: int) -> None:
    """Spoil what the stream captures, by waiting for it."""
    _cuda().cuStreamSynchronize(ctypes.c_void_p(stream))


def launch(stream: int, function: ctypes._CFuncPtr, number: int) -> int:
    """Give `function(number)` to the stream; answers the driver's error, or 0."""
    code: int = _cuda().cuLaunchHostFunc(ctypes.c_void_p(stream), function, ctypes.c_void_p(number))
    return code


def lose_device() -> None:
    """As after an access to memory that is not there."""
    _cuda().fake_cuda_lose(ILLEGAL_ADDRESS)
