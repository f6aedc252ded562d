"""What this machine has, what `grade` would take, and what to install for something better."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from stenosis_trt.engine.backends.selection import choose_backend
from stenosis_trt.engine.errors import DeviceError, PackError, TensorRTError
from stenosis_trt.engine.packs.pack import open_pack
from stenosis_trt.engine.plans.sidecar import RuntimeTarget
from stenosis_trt.engine.plans.store import build_command, iter_readable_plans, load_blocker
from stenosis_trt.engine.runs.provenance import package_versions
from stenosis_trt.engine.support.hardware import (
    NvidiaDriver,
    board_name,
    jetson_release,
    memory_bytes,
    processor_name,
    query_nvidia_driver,
    usable_cores,
)
from stenosis_trt.engine.support.messages import line_width
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.engine.trt.flavours import FLAVOURS

_GIB = 1 << 30
_NAME_COLUMNS = 17
_TENSORRT_MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


@dataclass(frozen=True)
class Finding:
    """One line of the report. `advice` is empty where nothing needs doing."""

    name: str
    value: str
    advice: str = ""


def collect_findings(pack: Path | None = None, device: str = "auto") -> tuple[Finding, ...]:
    """Everything that bears on how studies would be graded here.

    Args:
        pack: a pack to look at besides the reference pack.
        device: as `grade --device`.
    """
    driver, release = query_nvidia_driver(), jetson_release()
    tensorrt = tensorrt_versions()
    return (
        Finding(
            "version",
            f"stenosis-trt {package_versions()['stenosis-trt']} on Python {package_versions()['python']}",
        ),
        Finding("CPU", f"{processor_name()}, {usable_cores()} cores to use"),
        Finding("memory", f"{memory_bytes() / _GIB:.1f} GiB"),
        *([Finding("Jetson", f"{board_name()}, Jetson Linux {release}")] if release else []),
        *gpu_findings(driver, on_jetson=bool(release)),
        Finding("TensorRT", ", ".join(tensorrt) or "not installed"),
        Finding("PyCUDA", package_version("pycuda")),
        _onnxruntime(),
        _pack("reference pack", None),
        *([_pack("pack", pack)] if pack else []),
        *plan_findings(pack, driver),
        _decision(device, pack),
        gpu_requirements(driver, bool(tensorrt), on_jetson=bool(release)),
    )


def report_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """The report, line by line: broken between words for a terminal, and not at all for a file or pipe."""
    blank = " " * (_NAME_COLUMNS + 1)
    wrap = partial(textwrap.wrap, width=line_width(), break_long_words=False, break_on_hyphens=False)
    for finding in findings:
        yield from wrap(
            finding.value, initial_indent=f"{finding.name:{_NAME_COLUMNS}} ", subsequent_indent=blank
        )
        if finding.advice:
            yield from wrap(finding.advice, initial_indent=f"{blank}→ ", subsequent_indent=f"{blank}  ")


def gpu_findings(driver: NvidiaDriver, on_jetson: bool) -> Iterator[Finding]:
    """The driver and each GPU it gives."""
    if driver.cuda_version is None:
        advice = "" if on_jetson else "Install NVIDIA's driver if this machine has an NVIDIA GPU."
        yield Finding("GPU driver", driver.unavailable_reason, advice)
        return
    yield Finding("GPU driver", "for CUDA {}.{}".format(*driver.cuda_version))
    if driver.unavailable_reason:
        advice = "Check that the GPU is given to this process (CUDA_VISIBLE_DEVICES, container options)."
        yield Finding("GPU", driver.unavailable_reason, advice)
    for gpu in driver.gpus:
        major, minor = gpu.compute_capability
        yield Finding(
            "GPU", f"{gpu.name}, compute capability {major}.{minor}, {gpu.memory_bytes / _GIB:.1f} GiB"
        )


def tensorrt_versions() -> list[str]:
    """TensorRT and TensorRT-RTX as installed: by distribution, else by the module that can be imported."""
    found = {
        f"{distribution.name} {distribution.version}"
        for distribution in metadata.distributions()
        if (distribution.name or "").lower().replace("_", "-").startswith("tensorrt")
    }
    if found:
        return sorted(found)
    return [name for name in _TENSORRT_MODULES if importlib.util.find_spec(name)]


def plan_findings(path: Path | None, driver: NvidiaDriver) -> Iterator[Finding]:
    """The plans of a pack (None for the reference pack) that each installed flavour may load here."""
    name = "TensorRT plans"
    try:
        pack = open_pack(path)
        plans = tuple(iter_readable_plans(pack))
    except PackError:
        return
    for flavour in installed_flavours():
        try:
            version = TensorRT(FLAVOURS[flavour]).version
        except TensorRTError as error:
            yield Finding(name, error.reason, error.advice)
            continue
        mine = [plan for plan in plans if plan.sidecar.flavour == flavour]
        what = f"{flavour} {version}, pack {pack.name}"
        if not driver.gpus:
            yield Finding(name, f"{what}: {len(mine)}, and no GPU to load them")
            continue
        gpu = driver.gpus[0]
        here = RuntimeTarget(flavour, version, gpu.name, gpu.compute_capability)
        refusals = {plan.path: load_blocker(pack, plan, here) for plan in mine}
        fit = [f"{p.sidecar.model} {p.sidecar.precision}" for p in mine if not refusals[p.path]]
        advice = "" if fit else build_command(pack, flavour)
        yield Finding(name, f"{what}: {', '.join(fit) or 'none'} for this GPU", advice)
        for plan, reason in refusals.items():
            if reason:
                yield Finding(name, f"{plan} cannot be loaded: {reason}")


def gpu_requirements(driver: NvidiaDriver, has_tensorrt: bool, on_jetson: bool) -> Finding:
    """What grading on a GPU needs that is not here."""
    missing = []
    if not driver.gpus:
        missing.append("an NVIDIA GPU with its driver")
    if importlib.util.find_spec("pycuda") is None:
        missing.append("PyCUDA (pip install 'stenosis-trt[gpu]')")
    if not has_tensorrt:
        missing.append(
            "the system's TensorRT (apt-get install nvidia-jetpack, and a virtual environment made with "
            "--system-site-packages)"
            if on_jetson
            else "TensorRT (pip install 'stenosis-trt[rtx]' or 'stenosis-trt[trt]')"
        )
    if missing:
        return Finding("GPU grading", f"needs what is not here: {'; '.join(missing)}")
    return Finding("GPU grading", "what it needs is here, plans aside")


def _onnxruntime() -> Finding:
    version = package_version("onnxruntime")
    return Finding("ONNX Runtime", version, "" if version != "not installed" else "pip install onnxruntime")


def _pack(name: str, path: Path | None) -> Finding:
    try:
        pack = open_pack(path)
    except PackError as error:
        return Finding(name, error.reason, error.advice)
    return Finding(name, f"{pack.name} {pack.version} ({pack.sha256[:12]}): {pack.intended_use}")


def _decision(device: str, path: Path | None) -> Finding:
    try:
        decision = choose_backend(device, open_pack(path))
    except (DeviceError, PackError) as error:
        return Finding("grade would take", f"nothing: {error.reason}", error.advice)
    return Finding("grade would take", f"{decision.backend}, because {decision.reason}", decision.advice)
