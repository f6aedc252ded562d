"""The CUDA sources as one translation unit, their hash, and the compiler flags.

The hash is part of the manifest of the shipped binaries and of the cache keys, so that code compiled from
other sources is never launched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "cuda"
"""Folder of the sources, in the checkout and in the installed package."""

MAIN = "kernels.cu"
"""The translation unit; it includes the headers (`*.cuh`) beside it by their bare names."""

FLAGS = ("--std=c++17", "--fmad=false", "--ptxas-options=-v")
"""NVRTC flags of every compilation.

Products and sums are fused only by explicit `fmaf`, so that the CPU build of the tests computes what the
device computes. With `-v`, ptxas reports the registers and stack of each kernel in the log.
"""


@dataclass(frozen=True)
class Sources:
    """One translation unit: text of the main file, and of the headers by include name."""

    main: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over names and contents in order of names, hexadecimal."""
        digest = hashlib.sha256()
        for name, text in sorted({MAIN: self.main, **self.headers}.items()):
            for part in (name.encode(), text.encode()):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
        return digest.hexdigest()


def load_sources(folder: Path = FOLDER) -> Sources:
    """Load the sources from a folder.

    Raises:
        FileNotFoundError: the main file is missing; the message says what to do.
    """
    main = folder / MAIN
    if not main.is_file():
        raise FileNotFoundError(f"the CUDA source {main} is missing: reinstall stenosis-trt")
    headers = {path.name: _text(path) for path in sorted(folder.glob("*.cuh"))}
    return Sources(_text(main), headers)


def _text(path: Path) -> str:
    # As bytes: newline translation would give the same file two hashes.
    return path.read_bytes().decode("utf-8")
