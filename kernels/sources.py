"""The CUDA sources as one translation unit, their hash, and the flags that every compiler gets.

The hash stands in the manifest of the shipped binaries and in the keys of the cache: code that was compiled
from other sources is never launched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "cuda"
"""Where the sources lie, in the checkout and in the installed package."""

MAIN = "kernels.cu"
"""The translation unit; it includes the headers (`*.cuh`) beside it by their bare names."""

FLAGS = ("--std=c++17", "--fmad=false")
"""Flags of every compilation, spelt so that nvcc and NVRTC both take them.

Products and sums are fused only where the source says `fmaf`: the CPU build of the tests then does the same
arithmetic as the device.
"""


@dataclass(frozen=True)
class Sources:
    """One translation unit: the text of the main file and of the headers, by the names they include."""

    main: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """Hash over names and contents in the order of the names, as hexadecimal digits."""
        digest = hashlib.sha256()
        for name, text in sorted({MAIN: self.main, **self.headers}.items()):
            for part in (name.encode(), text.encode()):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
        return digest.hexdigest()


def load_sources(folder: Path = FOLDER) -> Sources:
    """The sources of a folder, as installed.

    Raises:
        FileNotFoundError: the main file is not there; the message says how to mend it.
    """
    main = folder / MAIN
    if not main.is_file():
        raise FileNotFoundError(f"the CUDA source {main} is missing: reinstall stenosis-trt")
    headers = {path.name: _text(path) for path in sorted(folder.glob("*.cuh"))}
    return Sources(_text(main), headers)


def _text(path: Path) -> str:
    # Bytes as they are: newline translation would give one file two hashes.
    return path.read_bytes().decode("utf-8")
