"""What this machine has, what `grade` would take, and what to install for something better."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.engine.backends.selection import DeviceError, decide, missing_for_gpu
from stenosis_trt.engine.pack import Pack, PackError, reference_pack
from stenosis_trt.engine.run_record import cpu_model, package_version, versions

_TENSORRT_PACKAGES = ("tensorrt", "tensorrt-lean-cu13", "tensorrt-rtx-cu13-bindings")
_TEGRA_RELEASE = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class Finding:
    """One line of the report. `advice` is empty where nothing needs doing."""

    name: str
    value: str
    advice: str = ""


def examine(pack: Path | None = None, device: str = "auto") -> tuple[Finding, ...]:
    """Everything that bears on how studies would be graded here.

    Args:
        pack: the pack to look at; None is the reference pack.
        device: as `grade --device`.
    """
    return (
        Finding("version", f"stenosis-trt {versions()['stenosis-trt']} on Python {versions()['python']}"),
        Finding("CPU", f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores to use"),
        *_gpu(),
        *_tensorrt(),
        _onnxruntime(),
        _pack(pack),
        _decision(device),
    )


def _gpu() -> Iterator[Finding]:
    driver = _driver_version()
    if _TEGRA_RELEASE.exists():
        yield Finding("Jetson", _TEGRA_RELEASE.read_text(encoding="utf-8", errors="replace").split(",")[0])
    if driver is None:
        yield Finding(
            "GPU", "no NVIDIA driver (libcuda.so.1) was found", "Install NVIDIA's driver if there is a GPU."
        )
        return
    yield Finding("GPU driver", f"CUDA {driver // 1000}.{driver % 1000 // 10}")
    yield Finding("GPU", _gpu_names() or "the driver is there, but nvidia-smi names no GPU")


def _driver_version() -> int | None:
    """CUDA version the driver offers, as 1000 × major + 10 × minor; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    return version.value if library.cuDriverGetVersion(ctypes.byref(version)) == 0 else None


def _gpu_names() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    return "; ".join(answer.stdout.strip().splitlines()) if answer.returncode == 0 else ""


def _tensorrt() -> Iterator[Finding]:
    found = [
        f"{name} {version}"
        for name in _TENSORRT_PACKAGES
        if (version := package_version(name)) != "not installed"
    ]
    yield Finding("TensorRT", ", ".join(found) or "not installed")
    missing = missing_for_gpu()
    if missing:
        yield Finding("for a GPU", "not ready", "; ".join(missing) + ".")


def _onnxruntime() -> Finding:
    version = package_version("onnxruntime")
    return Finding("ONNX Runtime", version, "" if version != "not installed" else "pip install onnxruntime")


def _pack(path: Path | None) -> Finding:
    try:
        pack = Pack.load(path or reference_pack())
    except PackError as error:
        return Finding("pack", error.reason, error.advice)
    return Finding("pack", f"{pack.name} {pack.version} ({pack.sha256[:12]}): {pack.intended_use}")


def _decision(device: str) -> Finding:
    try:
        decision = decide(device)
    except DeviceError as error:
        return Finding("grade would take", f"nothing: {error.reason}", error.advice)
    return Finding("grade would take", f"{decision.backend}, because {decision.reason}")
