"""nvcc, the compiler of a CUDA toolkit, as one process for one cubin. It needs a host compiler beside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stenosis_trt.kernels.nvrtc import CompiledImage, toolkit_folders
from stenosis_trt.kernels.sources import MAIN, Sources

_SECONDS = 600
_FLAG_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
"""Would change what comes out without showing in the flags that a cached image is known by."""


class NvccError(RuntimeError):
    """nvcc does not run, or does not compile the sources; then the message ends with what it said."""


class Nvcc:
    """One nvcc.

    Attributes:
        name: with its exact version, such as "nvcc 12.6.85".
        version: (major, minor).
    """

    def __init__(self, path: str) -> None:
        """Ask an nvcc for its version.

        Raises:
            NvccError: it does not run, or does not answer as nvcc does.
        """
        self._path = path
        answer = self._run(["--version"], Path.cwd())
        found = re.search(r"\bV((\d+)\.(\d+)\.\d+)", answer.stdout)
        if not found:
            raise NvccError(f"{path} does not tell its version as nvcc does: repair the CUDA toolkit")
        self.name = f"nvcc {found[1]}"
        self.version = int(found[2]), int(found[3])

    def compile(self, source: Sources, architecture: str, flags: Sequence[str]) -> CompiledImage:
        """Compile to a cubin ("sm_87").

        Raises:
            NvccError: it does not compile; the message ends with nvcc's.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, text in {MAIN: source.main, **source.headers}.items():
                (folder / file).write_bytes(text.encode())
            target = ["--cubin", f"--gpu-architecture={architecture}", "--output-file", "out"]
            answer = self._run([*target, *flags, MAIN], folder)
            log = (answer.stdout + answer.stderr).strip()
            made = folder / "out"
            if answer.returncode or not made.is_file():
                raise NvccError(f"{self.name} does not compile {MAIN} for {architecture}:\n{log}")
            return CompiledImage(made.read_bytes(), log)

    def _run(self, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in _FLAG_VARIABLES}
        try:
            return subprocess.run(
                [self._path, *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NvccError(f"{self._path} does not run ({error}): repair the CUDA toolkit") from error


def find_nvcc() -> str | None:
    """nvcc's path on this machine: of the toolkits that `toolkit_folders` knows, else of PATH; or None."""
    folders = os.pathsep.join(str(folder / "bin") for folder in toolkit_folders())
    return (shutil.which("nvcc", path=folders) if folders else None) or shutil.which("nvcc")
