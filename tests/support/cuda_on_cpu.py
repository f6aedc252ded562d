"""Runs unmodified CUDA C++ on the CPU: g++ compiles it behind `host/cuda_on_cpu.h`, a fiber runs a thread.

`CpuKernels` launches kernels on NumPy arrays in this process. A sanitizer has to be there from the start of a
process, so `run_sanitised` writes launches to a file and a program of its own repeats them.

It shows what a kernel computes and whether its accesses and barriers are sound, not how fast a GPU is. Races
between blocks stay unseen: blocks run one after the other.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from shared_products import shared_product

import stenosis_trt.kernels
from stenosis_trt.kernels.table import KERNELS

HOST = Path(__file__).resolve().parents[1] / "kernels" / "host"
KERNELS_CU = Path(stenosis_trt.kernels.__path__[0]) / "cuda" / "kernels.cu"
"""The project's kernels."""

Shape = tuple[int, int, int]


class Build(Enum):
    """How the kernels are compiled: as a library for this process, or as a program with a sanitizer in it."""

    PLAIN = "plain"
    ASAN = "asan"
    TSAN = "tsan"


_FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    # Two libraries in one process must not share the static variables of their templates.
    "-fno-gnu-unique",
    # Kernels read 16-bit pixels as vectors; CUDA compilers allow that.
    "-fno-strict-aliasing",
    # As on the device, products and sums are fused only where the source says fmaf.
    "-ffp-contract=off",
    "-Wno-unknown-pragmas",
)
_SANITISED = ("-O1", "-g1", "-fno-omit-frame-pointer", "-DCUDA_ON_CPU_SANITISED")
_OPTIMISATION = {
    Build.PLAIN: ("-O2",),
    Build.ASAN: (*_SANITISED, "-DCUDA_ON_CPU_ASAN"),
    Build.TSAN: (*_SANITISED, "-DCUDA_ON_CPU_TSAN"),
}
_INSTRUMENTATION = {
    Build.PLAIN: (),
    Build.ASAN: ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
    Build.TSAN: ("-fsanitize=thread",),
}
_SANITISER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
_UNUSABLE_RECORDING = 2
"""Exit code of `host/replay.cpp` where it could not launch at all."""


class CompileError(Exception):
    """g++ is missing, or refused the sources; the message is what it said."""


class FaultKind(IntEnum):
    """Why a launch failed: `cuda_on_cpu::Code` of `host/cuda_on_cpu.h`."""

    DIVERGENT_BARRIER = 1
    DIVERGENT_WARP_OPERATION = 2
    INVALID_LAUNCH = 3


class KernelFault(Exception):
    """A launch that a GPU would refuse, or whose result it would not define."""

    def __init__(self, kernel: str, kind: FaultKind, text: str) -> None:
        super().__init__(f"{kernel}: {kind.name.lower().replace('_', ' ')}: {text}")
        self.kernel = kernel
        self.kind = kind


@dataclass(frozen=True, eq=False)
class Launch:
    """One kernel launch.

    Attributes:
        grid, block: (x, y, z).
        arguments: NumPy arrays, C-contiguous (the kernel gets a pointer and works in place); ctypes values,
            structures or NumPy scalars (by value); None (a null pointer).
        seed: order of blocks and of the threads in them; 0 is as numbered, all others are shuffled. It also
            picks what unwritten shared memory holds: NaN, a large or a small number in successive seeds.
    """

    kernel: str
    grid: Shape
    block: Shape
    arguments: Sequence[Any]
    seed: int = 0


@dataclass(frozen=True)
class SanitiserReport:
    """Whether launches ran without a finding, and all that was printed."""

    ok: bool
    text: str


def compile_kernels(source: Path, kernels: Sequence[str], cache: Path, build: Build = Build.PLAIN) -> Path:
    """Compiles the kernels of one translation unit, unless `cache` has them already.

    Args:
        source: the `.cu` file.
        kernels: names of its `extern "C" __global__` functions.
        cache: folder for what is compiled; made if it is not there.

    Returns:
        PLAIN: a shared library with `launch_<kernel>` for each kernel (see `host/cuda_on_cpu.h`).
        Otherwise a program for `run_sanitised`.

    Raises:
        CompileError: see there.
    """
    cache.mkdir(parents=True, exist_ok=True)
    exports = "".join(f"CUDA_ON_CPU_EXPORT({kernel})\n" for kernel in kernels)
    entry = f'#include "{source.resolve()}"\n{exports}'
    suffix = ".so" if build is Build.PLAIN else ""
    product = cache / f"{source.stem}-{build.value}-{_fingerprint(entry, build)}{suffix}"
    if not product.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            unfinished = _compile(entry, Path(scratch), build)
            # Whole or not at all, for test processes that share the cache.
            os.replace(unfinished, product)
    return product


def project_kernels(build: Build = Build.PLAIN) -> Path:
    """Compile the project's kernels, once for all processes; see `compile_kernels`."""
    made = shared_product(
        f"kernels_{build.value}",
        lambda folder: compile_kernels(KERNELS_CU, list(KERNELS), folder, build),
        _gxx("--version"),
    )
    (product,) = made.iterdir()
    return product


def _kernel_flags(build: Build) -> list[str]:
    flags = [*_FLAGS, *_OPTIMISATION[build], *_INSTRUMENTATION[build]]
    return [*flags, "-include", str(HOST / "cuda_on_cpu.h"), "-x", "c++", "-"]


def _host_flags(build: Build) -> list[str]:
    return [*_FLAGS, *_OPTIMISATION[build]]


def _fingerprint(entry: str, build: Build) -> str:
    """Hash of the compiler, its flags and every line that it will read."""
    flags = [*_kernel_flags(build), *_host_flags(build)]
    host = [path.read_text() for path in sorted(HOST.iterdir()) if path.suffix in {".h", ".cpp"}]
    kernels = _gxx("-E", *_kernel_flags(build), source=entry)
    parts = [_gxx("--version"), *flags, *host, kernels]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compile(entry: str, scratch: Path, build: Build) -> Path:
    """Only the kernels are instrumented: the scheduler does what sanitizers take for errors."""
    kernels, product = scratch / "kernels.o", scratch / "product"
    _gxx("-c", "-o", str(kernels), *_kernel_flags(build), source=entry)
    link = ["-shared"] if build is Build.PLAIN else ["-rdynamic", *_INSTRUMENTATION[build]]
    units = ["cuda_on_cpu.cpp"] if build is Build.PLAIN else ["cuda_on_cpu.cpp", "replay.cpp"]
    objects = [str(kernels)]
    for unit in units:
        objects.append(str(scratch / f"{unit}.o"))
        _gxx("-c", "-o", objects[-1], *_host_flags(build), str(HOST / unit))
    _gxx(*link, "-o", str(product), *objects, "-ldl")
    return product


def _gxx(*arguments: str, source: str = "") -> str:
    """What g++ prints; `source` is its standard input."""
    if shutil.which("g++") is None:
        raise CompileError("g++ is missing: install it (Debian: apt-get install g++)")
    done = subprocess.run(["g++", *arguments], input=source, capture_output=True, text=True)
    if done.returncode != 0:
        raise CompileError(done.stderr)
    return done.stdout


class CpuKernels:
    """Kernels of a PLAIN build, loaded into this process."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.cuda_on_cpu_fault.restype = ctypes.c_char_p

    def launch(self, kernel: str, grid: Shape, block: Shape, *arguments: Any, seed: int = 0) -> None:
        """Runs one kernel to its end; arguments as in `Launch`.

        Raises:
            AttributeError: the library has no such kernel.
            KernelFault: it named what was wrong; arrays hold what was written until then.
        """
        parameters = _Parameters(arguments)
        buffer = bytearray(parameters.buffer)
        for offset, number in parameters.pointers:
            struct.pack_into("P", buffer, offset, parameters.arrays[number].ctypes.data)
        launch = self._library["launch_" + kernel]
        self._library.cuda_on_cpu_set_seed(ctypes.c_uint(seed))
        code = launch(bytes(buffer), *map(ctypes.c_uint, (*grid, *block)))
        if code != 0:
            raise KernelFault(kernel, FaultKind(code), self._library.cuda_on_cpu_fault().decode())


class _Parameters:
    """Arguments as cuLaunchKernel's buffer: each at its natural alignment, pointers to be filled in later.

    Attributes:
        buffer: the bytes, with null pointers.
        arrays: each array once, however often it is passed.
        pointers: (offset in the buffer, index of the array) of each pointer.
    """

    def __init__(self, arguments: Sequence[Any]) -> None:
        self.buffer = bytearray()
        self.arrays: list[np.ndarray] = []
        self.pointers: list[tuple[int, int]] = []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                self._append_array(argument)
            elif isinstance(argument, np.generic):
                self._append(argument.tobytes(), argument.dtype.alignment)
            elif argument is None:
                self._append(struct.pack("P", 0), struct.calcsize("P"))
            elif isinstance(argument, (ctypes._SimpleCData, ctypes.Structure)):
                self._append(bytes(argument), ctypes.alignment(argument))
            else:
                raise TypeError(
                    f"{argument!r} has no size to rely on: pass a NumPy array or scalar, or a ctypes value"
                )

    def _append(self, content: bytes, alignment: int) -> int:
        self.buffer += bytes(-len(self.buffer) % alignment)
        self.buffer += content
        return len(self.buffer) - len(content)

    def _append_array(self, array: np.ndarray) -> None:
        if not array.flags.c_contiguous:
            raise ValueError(
                f"an array of shape {array.shape} is not C-contiguous: pass np.ascontiguousarray of it"
            )
        number = next((i for i, known in enumerate(self.arrays) if known is array), len(self.arrays))
        if number == len(self.arrays):
            self.arrays.append(array)
        self.pointers.append((self._append(struct.pack("P", 0), struct.calcsize("P")), number))


def run_sanitised(program: Path, launches: Sequence[Launch]) -> SanitiserReport:
    """Repeats launches, one after the other, in a program that `compile_kernels` made with a sanitizer.

    Each launch gets copies of its arrays, in memory of exactly their size; results do not come back. The
    first finding ends the run, and what would be a KernelFault is one too.

    Raises:
        RuntimeError: the program could not launch: no such kernel.
    """
    with tempfile.TemporaryDirectory() as scratch:
        recording = Path(scratch) / "launches"
        recording.write_bytes(struct.pack("I", len(launches)) + b"".join(map(_record, launches)))
        done = subprocess.run(
            [program, recording],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **_SANITISER_OPTIONS},
        )
    if done.returncode == _UNUSABLE_RECORDING:
        raise RuntimeError(done.stdout)
    ended = f"ended by signal {-done.returncode}\n" if done.returncode < 0 else ""
    return SanitiserReport(done.returncode == 0, done.stdout + ended)


def _record(launch: Launch) -> bytes:
    """One launch as `host/replay.cpp` reads it."""
    parameters = _Parameters(launch.arguments)
    parts = [
        _counted(launch.kernel.encode()),
        struct.pack("7I", *launch.grid, *launch.block, launch.seed),
        _counted(bytes(parameters.buffer)),
        struct.pack("I", len(parameters.arrays)),
    ]
    for array in parameters.arrays:
        parts += [struct.pack("Q", array.nbytes), array.tobytes()]
    parts.append(struct.pack("I", len(parameters.pointers)))
    parts += [struct.pack("2I", offset, number) for offset, number in parameters.pointers]
    return b"".join(parts)


def _counted(content: bytes) -> bytes:
    return struct.pack("I", len(content)) + content
