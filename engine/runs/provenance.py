"""run.json: what produced a set of results, and what it cost."""

from __future__ import annotations

import platform
import resource
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.hardware import memory_bytes, processor_name, usable_cores
from stenosis_trt.engine.support.versions import package_version

_DECODERS = (
    "pydicom",
    "python-gdcm",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
)
_PACKAGES = ("stenosis-trt", "numpy", "onnxruntime", *_DECODERS)


def package_versions() -> dict[str, str]:
    """Versions of Python and of every package that can change a result."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in _PACKAGES}}


def result_fingerprint(
    pack: Pack, backend: Mapping[str, str], precision: str, keep_identifiers: bool, no_paths: bool
) -> dict[str, Any]:
    """What decides the numbers in the results: runs that agree in it may share an output folder.

    Args:
        pack: the models.
        backend: "backend", its name, and what else of it decides.
        precision, keep_identifiers, no_paths: of the run.
    """
    return {
        "pack": pack.sha256,
        **{name: package_version(name) for name in ("stenosis-trt", "numpy", "onnxruntime")},
        **backend,
        "precision": precision,
        "identifiers": keep_identifiers,
        "paths": not no_paths,
    }


def reading_fingerprint(limits: ReadLimits) -> dict[str, Any]:
    """What decides which files can be read: a study that lost some is read again once it is another."""
    return {"limits": asdict(limits), "decoders": {name: package_version(name) for name in _DECODERS}}


class StageTimes:
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


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe_machine() -> dict[str, Any]:
    """What the run was on; no name of the host."""
    return {
        "cpu": processor_name(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "system": platform.system(),
        "machine": platform.machine(),
    }
