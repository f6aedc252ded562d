"""run.json: what produced a set of results, and what it cost."""

from __future__ import annotations

import platform
import resource
import statistics
from collections import defaultdict
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from stenosis_trt.engine.pack import Pack

_PACKAGES = (
    "stenosis-trt",
    "numpy",
    "scipy",
    "pydicom",
    "onnxruntime",
    "python-gdcm",
    "pylibjpeg",
    "pyjpegls",
)


def versions() -> dict[str, str]:
    """Versions of Python and of every package that can change a result."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in _PACKAGES}}


def package_version(name: str) -> str:
    """Version of an installed distribution, or "not installed"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def cpu_model() -> str:
    """The processor's name, as the kernel gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def made_with(pack: Pack, backend: str, precision: str, keep_identifiers: bool) -> dict[str, Any]:
    """Everything that decides results; two runs that agree in it give the same."""
    return {
        "pack": pack.sha256,
        "version": versions()["stenosis-trt"],
        "backend": backend,
        "precision": precision,
        "identifiers": keep_identifiers,
    }


class Costs:
    """Seconds by stage over all studies."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count one study's stages."""
        for stage, value in seconds.items():
            self._seconds[stage].append(value)

    def summary(self) -> dict[str, dict[str, float]]:
        """Sum, median and maximum of each stage, in seconds."""
        return {
            stage: {
                "sum": round(sum(values), 4),
                "median": round(statistics.median(values), 4),
                "maximum": round(max(values), 4),
            }
            for stage, values in self._seconds.items()
        }


def peak_memory_bytes() -> dict[str, int]:
    """Largest resident memory so far of this process and of the largest of its ended children."""
    return {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "largest_child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


def machine(cores: int) -> dict[str, Any]:
    """What the run was on; no name of the host."""
    return {"cpu": cpu_model(), "cores": cores, "system": platform.system(), "machine": platform.machine()}
