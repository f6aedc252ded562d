"""The machine of a benchmark run: what it is, and in which state. It has no host name."""

from __future__ import annotations

import os
import platform
import re
import statistics
from pathlib import Path
from typing import Any

from stenosis_trt.engine.support.hardware import (
    board_name,
    jetson_release,
    memory_bytes,
    processor_name,
    query_nvidia_driver,
    usable_cores,
)
from stenosis_trt.engine.support.versions import package_version

_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_PLATFORM_PROFILE = Path("/sys/firmware/acpi/platform_profile")
_NVPMODEL = Path("/var/lib/nvpmodel/status")
_CPUINFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
"""Flags of /proc/cpuinfo that runtimes choose their code by."""

PACKAGES = (
    *("stenosis-trt", "numpy", "onnxruntime", "openvino", "mlcommons-loadgen", "torch", "torchvision"),
    *("scipy", "pydicom", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu13-libs", "pycuda"),
)
"""Packages that figures depend on."""


def describe_machine() -> dict[str, Any]:
    """Describe the machine, as `BenchRecord.machine`: JSON values; what cannot be read is None."""
    driver = query_nvidia_driver()
    cuda = driver.cuda_version
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "instructions": _instructions(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "gpus": [f"{gpu.name}, {gpu.memory_bytes / 1e9:.0f} GB" for gpu in driver.gpus],
        "cuda": None if cuda is None else f"{cuda[0]}.{cuda[1]}",
        "board": board_name() or None,
        "jetson_linux": jetson_release() or None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "power_mode": _power_mode(),
        "governor": _first_line(_CPU / "cpu0/cpufreq/scaling_governor"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **machine_state(),
    }


def machine_state() -> dict[str, Any]:
    """Return clocks, temperatures and the count of throttling now; None for what cannot be read."""
    clocks = _numbers(_CPU, "cpu[0-9]*/cpufreq/scaling_cur_freq")
    temperatures = _numbers(_THERMAL, "thermal_zone*/temp")
    throttled = _numbers(_CPU, "cpu[0-9]*/thermal_throttle/core_throttle_count")
    return {
        "clocks_mhz": round(statistics.fmean(clocks) / 1e3) if clocks else None,
        "temperatures_c": round(max(temperatures) / 1e3, 1) if temperatures else None,
        "throttled": int(sum(throttled)) if throttled else None,
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of the installed packages among `PACKAGES`."""
    found = {name: package_version(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version != "not installed"}


def machine_slug(processor: str, cores: int) -> str:
    """Return a name for files: lower-case letters, digits and hyphens, such as "amd-epyc-9r14-2-cores"."""
    # "(R)", "(TM)", "CPU @ 2.60GHz", "16-Core Processor" and the like say nothing that the rest does not.
    text = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|@.*|\b\d+-core\b", " ", processor.lower())
    name = re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:48].strip("-")
    return f"{name or 'machine'}-{cores}-core{'s' if cores != 1 else ''}"


def _instructions() -> list[str]:
    if not _CPUINFO.is_file():
        return []
    found = re.search(
        r"^(?:flags|features)\s*:(.*)$",
        _CPUINFO.read_text(encoding="utf-8", errors="replace"),
        re.MULTILINE | re.IGNORECASE,
    )
    flags = set(found[1].split()) if found else set()
    return [name for name in _INSTRUCTIONS if name in flags]


def _power_mode() -> str | None:
    """Return the power mode: of a Jetson as nvpmodel keeps it, else the profile of the firmware."""
    mode = _first_line(_NVPMODEL)
    return f"nvpmodel {mode}" if mode else _first_line(_PLATFORM_PROFILE)


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().partition("\n")[0] or None
    except OSError:
        return None


def _numbers(folder: Path, pattern: str) -> list[float]:
    """Return the numbers in the files below a folder; a file that cannot be read is left out."""
    texts = [_first_line(path) for path in sorted(folder.glob(pattern))] if folder.is_dir() else []
    return [float(text) for text in texts if text is not None and re.fullmatch(r"-?\d+", text)]
