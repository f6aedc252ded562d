"""ctypes binding of NVRTC, NVIDIA's run-time compiler: find libraries and compile the kernels.

NVRTC needs neither a GPU nor a driver nor a host compiler. Several versions can be used in one process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.kernels.sources import MAIN, Sources

_LIBRARY = "libnvrtc.so.[0-9]*"
_TOOLKIT_VARIABLES = ("CUDA_HOME", "CUDA_PATH")
_TOOLKIT_FOLDER = "/usr/local/cuda"
"""Where the installers of CUDA and JetPack put or link the toolkit."""


class NvrtcError(RuntimeError):
    """NVRTC cannot be loaded, or one of its functions failed."""


class CompilationError(NvrtcError):
    """The sources do not compile. `log` is the log of the compiler."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(f"{message}\n{log}" if log else message)
        self.log = log


@dataclass(frozen=True)
class CompiledImage:
    """Output of a compilation: a cubin, or PTX without its final NUL; and the log (warnings, ptxas -v)."""

    data: bytes
    log: str


class Nvrtc:
    """One NVRTC library.

    Attributes:
        path: file of the library, or a name that the system's loader finds.
        name: "NVRTC" and its version.
        version: version of its CUDA toolkit, (major, minor).
        architectures: supported compute capabilities such as (8, 7), ascending.
    """

    def __init__(self, path: Path | str) -> None:
        """Load a library.

        Raises:
            NvrtcError: the library cannot be loaded or is not NVRTC.
        """
        self.path = str(path)
        try:
            self._library = ctypes.CDLL(self.path)
            self.version = self._version()
            self.name = "NVRTC {}.{}".format(*self.version)
            # 13.x looks up its builtins by name only, and finds them only if they are already loaded.
            builtins = Path(self.path).with_name("libnvrtc-builtins.so.{}.{}".format(*self.version))
            if builtins.is_file():
                ctypes.CDLL(str(builtins))
            self.architectures = self._architectures()
        except (OSError, AttributeError) as error:
            raise NvrtcError(
                f"{self.path} cannot be used as NVRTC ({error}): reinstall nvidia-cuda-nvrtc, "
                "or use another library"
            ) from error

    def compile(self, sources: Sources, architecture: str, flags: Sequence[str]) -> CompiledImage:
        """Compile to a cubin (architecture "sm_87") or to PTX ("compute_75").

        Raises:
            CompilationError: the sources do not compile; the message ends with the log of the compiler.
            NvrtcError: a function of NVRTC failed.
        """
        program = ctypes.c_void_p()
        names = list(sources.headers)
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            sources.main.encode(),
            MAIN.encode(),
            len(names),
            _strings(sources.headers[name] for name in names),
            _strings(names),
        )
        try:
            options = _strings([f"--gpu-architecture={architecture}", *flags])
            status = self._library.nvrtcCompileProgram(program, len(options), options)
            log = self._text(program, "ProgramLog").rstrip(b"\0").decode("utf-8", errors="replace").strip()
            if status:
                raise CompilationError(
                    f"{MAIN} does not compile for {architecture} with {self.name} ({self._reason(status)}):",
                    log,
                )
            if architecture.startswith("sm_"):
                return CompiledImage(self._text(program, "CUBIN"), log)
            return CompiledImage(self._text(program, "PTX").rstrip(b"\0"), log)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _version(self) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def _architectures(self) -> tuple[tuple[int, int], ...]:
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", numbers)
        return tuple(sorted(divmod(number, 10) for number in numbers))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise NvrtcError(f"{name} of {self.path} failed: {self._reason(status)}")

    def _reason(self, status: int) -> str:
        function = self._library.nvrtcGetErrorString
        function.restype = ctypes.c_char_p
        return str(function(status).decode())


def find_nvrtc() -> list[str]:
    """Find NVRTC libraries without loading them: in pip wheels, CUDA toolkits and the system's library path.

    Returns:
        Files, or a name for the system's loader; each library once.
    """
    places = [
        *((Path(entry), ("nvidia/*/lib",)) for entry in sys.path if entry),
        *((folder, ("lib64", "targets/*/lib", "lib")) for folder in toolkit_folders()),
    ]
    found: dict[Path, str] = {}
    for folder, patterns in places:
        for pattern in patterns:
            for path in sorted(folder.glob(f"{pattern}/{_LIBRARY}")):
                found.setdefault(path.resolve(), str(path))
    system = ctypes.util.find_library("nvrtc")
    return [*found.values(), *([system] if system else [])]


def toolkit_folders() -> list[Path]:
    """Folders of CUDA toolkits: those named by CUDA_HOME and CUDA_PATH, then the default one."""
    named = [os.environ[variable] for variable in _TOOLKIT_VARIABLES if os.environ.get(variable)]
    return [folder for folder in map(Path, [*named, _TOOLKIT_FOLDER]) if folder.is_dir()]


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    """Convert to a C array of `const char*`."""
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)
