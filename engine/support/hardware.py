"""Description of this machine: processor, memory, NVIDIA driver and GPUs.

It imports nothing heavy, calls the driver through ctypes and creates no CUDA context.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_ARITHMETIC_FEATURES = frozenset(
    {
        *("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "avx_vnni"),
        *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
        *("asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2", "svebf16", "svei8mm"),
    }
)
"""Flags of x86 and features of Arm that decide how fast networks run, as Linux names them."""
_BFLOAT16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
_INT8_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "svei8mm"})

_BOARD = Path("/proc/device-tree/model")
_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_DRIVER = "libcuda.so.1"

# CUdevice_attribute of cuda.h.
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """One GPU. `compute_capability` as (major, minor)."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True)
class NvidiaDriver:
    """The NVIDIA driver and its GPUs.

    Attributes:
        cuda_version: newest CUDA version that the driver supports, (major, minor); None without a driver.
        gpus: the GPUs visible to this process.
        unavailable_reason: why no GPU can be used; "" if one can.
    """

    cuda_version: tuple[int, int] | None
    gpus: tuple[Gpu, ...]
    unavailable_reason: str


def processor_name() -> str:
    """Return the processor's name from /proc/cpuinfo, else the name of the board or architecture."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return board_name() or platform.processor() or platform.machine()


def arithmetic_features(file: Path = _CPUINFO) -> tuple[str, ...]:
    """Return the instruction sets of the processor that decide how fast networks run, sorted.

    Args:
        file: text of Linux on the processor; () if it does not exist.
    """
    if not file.is_file():
        return ()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, values = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return tuple(sorted(_ARITHMETIC_FEATURES.intersection(values.split())))
    return ()


def has_bfloat16(features: tuple[str, ...]) -> bool:
    """True if a processor with these `arithmetic_features` has instructions for bfloat16."""
    return not _BFLOAT16_FEATURES.isdisjoint(features)


def has_int8_dot_product(features: tuple[str, ...]) -> bool:
    """True if a processor with these `arithmetic_features` has instructions for dot products of INT8."""
    return not _INT8_FEATURES.isdisjoint(features)


def board_name() -> str:
    """Return the board's name from the device tree, as on a Jetson; "" without one."""
    return _BOARD.read_text(encoding="utf-8", errors="replace").strip("\0\n ") if _BOARD.is_file() else ""


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Return the size of the machine's main memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def jetson_release(file: Path = _TEGRA_RELEASE) -> str:
    """Return the release of Jetson Linux, such as "36.4.3"; "" on any other machine.

    The first line of the file is `# R36 (release), REVISION: 4.3, GCID: …`.
    """
    if not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else "of an unknown release"


def query_nvidia_driver(library: str = _DRIVER) -> NvidiaDriver:
    """Query the NVIDIA driver for its CUDA version and GPUs."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return NvidiaDriver(None, (), "no NVIDIA driver was found")
    version = ctypes.c_int()
    code = cuda.cuDriverGetVersion(ctypes.byref(version))
    if code:
        return NvidiaDriver(None, (), f"the NVIDIA driver does not answer ({_error_name(cuda, code)})")
    offered = version.value // 1000, version.value % 1000 // 10
    code = cuda.cuInit(0)
    count = ctypes.c_int()
    code = code or cuda.cuDeviceGetCount(ctypes.byref(count))
    if code:
        return NvidiaDriver(offered, (), f"the NVIDIA driver gives no GPU ({_error_name(cuda, code)})")
    gpus = tuple(_gpu(cuda, index) for index in range(count.value))
    return NvidiaDriver(offered, gpus, "" if gpus else "the NVIDIA driver gives no GPU")


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    code = (
        cuda.cuDeviceGet(ctypes.byref(device), index)
        or cuda.cuDeviceGetName(name, _NAME_BYTES, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
        or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    )
    if code:
        return Gpu(f"GPU {index}, which does not answer ({_error_name(cuda, code)})", (0, 0), 0)
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), memory.value)


def _error_name(cuda: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    cuda.cuGetErrorName(code, ctypes.byref(name))
    return name.value.decode() if name.value else f"error {code}"
