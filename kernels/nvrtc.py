"""NVRTC, NVIDIA's compiler as a library, through ctypes: where it may lie, and compiling with it.

It needs neither a GPU nor a driver nor a host compiler. Several versions work side by side in one process.
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
"""Where CUDA's own installers put, or link, the toolkit; JetPack does too."""


class NvrtcError(RuntimeError):
    """NVRTC cannot be loaded, or did not do what it was asked."""


class CompilationError(NvrtcError):
    """The sources do not compile. `log` is the compiler's."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(f"{message}\n{log}" if log else message)
        self.log = log


@dataclass(frozen=True)
class CompiledImage:
    """What came out: a cubin or PTX without its closing zero, and the compiler's log (warnings, ptxas -v)."""

    data: bytes
    log: str


class Nvrtc:
    """One NVRTC library.

    Attributes:
        path: what was loaded: a file, or a name that the system's loader knows.
        name: "NVRTC" with its version.
        version: of the toolkit it comes from, (major, minor).
        architectures: compute capabilities it compiles for, such as (8, 7), ascending.
    """

    def __init__(self, path: Path | str) -> None:
        """Load a library.

        Raises:
            NvrtcError: it cannot be loaded, or is no NVRTC.
        """
        self.path = str(path)
        try:
            self._library = ctypes.CDLL(self.path)
            self.version = self._version()
            self.name = "NVRTC {}.{}".format(*self.version)
            # 13.x looks its builtins up by name alone and finds them only when they are loaded already.
            builtins = Path(self.path).with_name("libnvrtc-builtins.so.{}.{}".format(*self.version))
            if builtins.is_file():
                ctypes.CDLL(str(builtins))
            self.architectures = self._architectures()
        except (OSError, AttributeError) as error:
            raise NvrtcError(
                f"{self.path} cannot be used as NVRTC ({error}): install nvidia-cuda-nvrtc anew, "
                "or name another library"
            ) from error

    def compile(self, sources: Sources, architecture: str, flags: Sequence[str]) -> CompiledImage:
        """Compile to a cubin ("sm_87") or to PTX ("compute_75").

        Raises:
            CompilationError: the sources do not compile; the message ends with the compiler's log.
            NvrtcError: NVRTC itself failed.
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
    """NVRTC libraries on this machine, each once: of pip's wheels, of CUDA toolkits, of the system.

    Files that are there, or a name for the system's loader; nothing is loaded.
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
    """CUDA toolkits on this machine: those that the environment names, then the usual folder."""
    named = [os.environ[variable] for variable in _TOOLKIT_VARIABLES if os.environ.get(variable)]
    return [folder for folder in map(Path, [*named, _TOOLKIT_FOLDER]) if folder.is_dir()]


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    """A `const char*[]`."""
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)
