"""Provenance of results: versions, fingerprints, machine, times and memory, as run.json records them."""

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

_DECODERS = ("pydicom", "python-gdcm", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls")
_PACKAGES = ("stenosis-trt", "numpy", "onnxruntime", "openvino", *_DECODERS)


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of every package that can change a result."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in _PACKAGES}}


def result_fingerprint(
    pack: Pack, backend: Mapping[str, str], precision: str, keep_identifiers: bool, no_paths: bool
) -> dict[str, Any]:
    """Return everything that decides the results. Runs with the same fingerprint may share an output folder.

    Args:
        pack: the models.
        backend: `BackendChoice.fingerprint_fields`.
        precision, keep_identifiers, no_paths: options of the run.
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
    """Return what decides which files can be read: a study that lost files is graded again if it changes."""
    return {"limits": asdict(limits), "decoders": {name: package_version(name) for name in _DECODERS}}


class StageTimes:
    """Times of the stages of all studies, in seconds."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the times of one study, by stage."""
        for stage, value in seconds.items():
            self._seconds[stage].append(value)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return sum, median and maximum of each stage."""
        return {
            stage: {
                "sum": round(sum(values), 4),
                "median": round(statistics.median(values), 4),
                "maximum": round(max(values), 4),
            }
            for stage, values in self._seconds.items()
        }


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory and operating system, without the host name."""
    return {
        "cpu": processor_name(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "system": platform.system(),
        "machine": platform.machine(),
    }
