"""ctypes binding of the CUDA driver: its errors, and the functions that PyCUDA lacks."""

from __future__ import annotations

import ctypes
import functools

from stenosis_trt.engine.errors import DeviceError

_LIBRARY = "libcuda.so.1"
_PREFIX = "CUDA_ERROR_"
_MOST_CODES = 1000
"""The largest error code is 999, CUDA_ERROR_UNKNOWN."""

_handle, _handle_out = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
_int_out = ctypes.POINTER(ctypes.c_int)
_SIGNATURES: dict[str, list[type]] = {
    "cuStreamBeginCapture_v2": [_handle, ctypes.c_int],
    "cuStreamEndCapture": [_handle, _handle_out],
    "cuGraphInstantiateWithFlags": [_handle_out, _handle, ctypes.c_ulonglong],
    "cuGraphUpload": [_handle, _handle],
    "cuGraphLaunch": [_handle, _handle],
    "cuGraphDestroy": [_handle],
    "cuGraphExecDestroy": [_handle],
    "cuCtxPopCurrent_v2": [_handle_out],
    "cuCtxGetStreamPriorityRange": [_int_out, _int_out],
    "cuStreamSetAttribute": [_handle, ctypes.c_int, ctypes.c_void_p],
    "cuMemHostRegister_v2": [_handle, ctypes.c_size_t, ctypes.c_uint],
    "cuMemHostUnregister": [_handle],
    "cuMemHostGetDevicePointer_v2": [ctypes.POINTER(ctypes.c_ulonglong), _handle, ctypes.c_uint],
}

_LOST = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        "ECC_UNCORRECTABLE",
        "NVLINK_UNCORRECTABLE",
        "CONTAINED",
        "EXTERNAL_DEVICE",
        "HARDWARE_STACK_ERROR",
        "ILLEGAL_ADDRESS",
        "ILLEGAL_INSTRUCTION",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "MISALIGNED_ADDRESS",
        "LAUNCH_FAILED",
        "LAUNCH_TIMEOUT",
        "ASSERT",
        "TENSOR_MEMORY_LEAK",
        "MPS_CLIENT_TERMINATED",
        "CONTEXT_IS_DESTROYED",
        "UNKNOWN",
    )
)
"""Errors after which the process cannot use the device any more, by cuda.h."""

_ADVICE = {
    "OUT_OF_MEMORY": "End other programs on the GPU (nvidia-smi lists them), or grade smaller batches.",
    "NO_DEVICE": "Check that there is an NVIDIA GPU that is visible to this process "
    "(CUDA_VISIBLE_DEVICES, the container's --gpus).",
    "INVALID_DEVICE": "Choose one that nvidia-smi lists; the first is 0.",
    "DEVICE_UNAVAILABLE": "Another process uses the GPU exclusively: end it, or allow sharing "
    "(nvidia-smi --compute-mode=0).",
    "INVALID_CONTEXT": "Call it inside `with device.current():`.",
    "NOT_FOUND": "The loaded module and the program differ in version: reinstall both.",
    **dict.fromkeys(
        ("INVALID_IMAGE", "NO_BINARY_FOR_GPU", "INVALID_PTX", "UNSUPPORTED_PTX_VERSION", "INVALID_SOURCE"),
        "It was built for another GPU or a newer driver: update NVIDIA's driver, or rebuild it.",
    ),
    **dict.fromkeys(
        ("STUB_LIBRARY", "SYSTEM_DRIVER_MISMATCH", "SYSTEM_NOT_READY", "COMPAT_NOT_SUPPORTED_ON_DEVICE"),
        "Reinstall NVIDIA's driver and restart; nvidia-smi must work first.",
    ),
}
_ADVICE_LOST = (
    "This process cannot use the GPU any more: restart it. "
    "If it happens again, look at nvidia-smi and for Xid in the kernel's log."
)
_ADVICE_CAPTURE = (
    "Allocate, wait and copy pageable memory before or after a capture, or launch without a graph."
)
_ADVICE_OTHER = "Report it together with the command."


class CudaError(DeviceError):
    """A failure of CUDA.

    Attributes:
        reason: what went wrong.
        advice: what to install or to do.
        code: name of the driver's error such as "CUDA_ERROR_OUT_OF_MEMORY"; "" if it is none.
    """

    def __init__(self, reason: str, advice: str, code: str = "") -> None:
        super().__init__(reason, advice)
        self.code = code

    @property
    def out_of_memory(self) -> bool:
        """True if memory was short; existing resources still work."""
        return self.code == _PREFIX + "OUT_OF_MEMORY"

    @property
    def device_lost(self) -> bool:
        """True if this process cannot use the GPU any more."""
        return self.code in _LOST


def call_driver(name: str, *arguments: object) -> None:
    """Call a function of the driver.

    Args:
        name: a function declared in `_SIGNATURES`.
        arguments: as in cuda.h; handles as integers.

    Raises:
        CudaError: the function returned an error.
    """
    code = _function(name)(*arguments)
    if code:
        raise _error(name, _name(code), _text(code))


def error_from_message(message: str) -> CudaError:
    """Convert a message of PyCUDA, such as "cuMemAlloc failed: out of memory - details".

    The message has the driver's description of the error but not its name, which is looked up.
    """
    routine, _, text = message.partition(" failed: ")
    for known, name in _names_by_text().items():
        if text == known or text.startswith(f"{known} - "):
            return _error(routine, name, text)
    return CudaError(f"PyCUDA: {message.rstrip('.')}.", _ADVICE_OTHER)


def _error(routine: str, name: str, text: str) -> CudaError:
    kind = name.removeprefix(_PREFIX)
    if name in _LOST:
        advice = _ADVICE_LOST
    elif "CAPTURE" in kind:
        advice = _ADVICE_CAPTURE
    else:
        advice = _ADVICE.get(kind, _ADVICE_OTHER)
    return CudaError(f"{routine} failed with {name}: {text.strip().rstrip('.')}.", advice, name)


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(_LIBRARY)


@functools.cache
def _function(name: str) -> ctypes._NamedFuncPointer:
    function = _library()[name]
    function.argtypes, function.restype = _SIGNATURES[name], ctypes.c_int
    return function


def _name(code: int) -> str:
    return _describe("cuGetErrorName", code) or f"{_PREFIX}{code}"


def _text(code: int) -> str:
    return _describe("cuGetErrorString", code) or "unknown error"


def _describe(routine: str, code: int) -> str:
    text = ctypes.c_char_p()
    failed = _library()[routine](ctypes.c_int(code), ctypes.byref(text))
    return "" if failed or not text.value else text.value.decode(errors="replace")


@functools.cache
def _names_by_text() -> dict[str, str]:
    """Names of the driver's errors by description, longest description first."""
    texts = {
        text: _name(code) for code in range(1, _MOST_CODES) if (text := _describe("cuGetErrorString", code))
    }
    return dict(sorted(texts.items(), key=lambda item: -len(item[0])))
