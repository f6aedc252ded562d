"""The command `stenosis-trt doctor`: what this machine has, what `grade` would use, what to install."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import typer

from stenosis_trt.engine.cli.documents import DoctorDocument, Fact, Finding, document_json
from stenosis_trt.engine.cli.errors import exit_on_error, fail
from stenosis_trt.engine.cli.options import DeviceOption, JsonOption, PackOption
from stenosis_trt.engine.support.hardware import (
    NvidiaDriver,
    arithmetic_features,
    board_name,
    has_bfloat16,
    has_int8_dot_product,
    jetson_release,
    memory_bytes,
    processor_name,
    query_nvidia_driver,
    usable_cores,
)
from stenosis_trt.engine.support.messages import line_width

_GIB = 1 << 30
_NAME_COLUMNS = 17
_TENSORRT_MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


def doctor(pack: PackOption = None, device: DeviceOption = "auto", as_json: JsonOption = False) -> None:
    """Show what this machine has, what `grade` would use and why, and what to install for more."""
    from stenosis_trt.engine.backends.selection import check_device

    with exit_on_error():
        check_device(device)
    if pack is not None and not pack.exists():
        fail(f"There is no pack at {pack}. Give a pack's folder or zip.")
    findings = collect_findings(pack, device)
    if as_json:
        typer.echo(document_json(DoctorDocument(findings)))
        return
    for line in report_lines(findings):
        typer.echo(line)


def _finding(title: str, value: str, advice: str = "", **facts: Fact) -> Finding:
    return Finding(title, value, advice, facts)


def collect_findings(pack: Path | None = None, device: str = "auto") -> tuple[Finding, ...]:
    """Examine what determines how studies are graded on this machine.

    Args:
        pack: a pack to examine besides the reference pack.
        device: as `grade --device`.
    """
    from stenosis_trt.engine.runs.provenance import package_versions
    from stenosis_trt.engine.support.versions import package_version

    versions = package_versions()
    onnxruntime = package_version("onnxruntime")
    driver, release = query_nvidia_driver(), jetson_release()
    tensorrt = tensorrt_versions()
    return (
        _finding(
            "version",
            f"stenosis-trt {versions['stenosis-trt']} on Python {versions['python']}",
            version=versions["stenosis-trt"],
            python=versions["python"],
        ),
        _processor_finding(),
        _finding("memory", f"{memory_bytes() / _GIB:.1f} GiB", bytes=memory_bytes()),
        *(_jetson_findings(release) if release else ()),
        *gpu_findings(driver, on_jetson=bool(release)),
        _finding("TensorRT", ", ".join(tensorrt) or "not installed"),
        _finding("PyCUDA", package_version("pycuda")),
        _finding(
            "ONNX Runtime", onnxruntime, "pip install onnxruntime" if onnxruntime == "not installed" else ""
        ),
        _openvino_finding(),
        _pack_finding("reference pack", None),
        *([_pack_finding("pack", pack)] if pack else []),
        *cpu_table_findings(pack),
        *plan_findings(pack, driver),
        _backend_finding(device, pack),
        gpu_requirements(driver, bool(tensorrt), on_jetson=bool(release)),
    )


def _processor_finding() -> Finding:
    features = arithmetic_features()
    return _finding(
        "CPU",
        f"{processor_name()}, {usable_cores()} cores to use, "
        f"{'with' if has_bfloat16(features) else 'without'} instructions for bfloat16, "
        f"{'with' if has_int8_dot_product(features) else 'without'} those for INT8",
        processor=processor_name(),
        cores=usable_cores(),
        bfloat16=has_bfloat16(features),
        int8=has_int8_dot_product(features),
    )


def _openvino_finding() -> Finding:
    from stenosis_trt.engine.backends.cpu.choice import INSTALL, has_openvino
    from stenosis_trt.engine.support.versions import package_version

    advice = "" if has_openvino() else f"It may run models faster on this CPU: {INSTALL}"
    return _finding("OpenVINO", package_version("openvino"), advice)


def cpu_table_findings(path: Path | None) -> Iterator[Finding]:
    """Yield whether the models of a pack (None: the reference pack) were measured on this CPU."""
    from stenosis_trt.engine.backends.cpu.choice import measure_command
    from stenosis_trt.engine.backends.cpu.table import find_table, this_machine
    from stenosis_trt.engine.errors import PackError
    from stenosis_trt.engine.packs.pack import open_pack

    name = "CPU table"
    try:
        pack = open_pack(path)
    except PackError:
        return
    found = find_table(pack, this_machine())
    if found.table is None:
        state = f"{found.path} {found.reason}" if found.path else f"none for pack {pack.name} on this machine"
        yield _finding(name, state, f"Measure the models here: {measure_command(pack)}")
        return
    choices = found.table.choices
    passed = [precision for precision, choice in choices.items() if choice.passed]
    failed = [precision for precision, choice in choices.items() if not choice.passed]
    words = [f"passed: {', '.join(passed)}", *([f"failed the gate: {', '.join(failed)}"] if failed else [])]
    yield _finding(
        name,
        f"{found.path}, {'; '.join(words)}",
        path=str(found.path),
        passed=", ".join(passed),
        failed=", ".join(failed),
    )


def _jetson_findings(release: str) -> Iterator[Finding]:
    board = board_name()
    yield _finding("Jetson", f"{board}, Jetson Linux {release}", board=board, jetson_linux=release)


def report_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the lines of the report, wrapped between words on a terminal and not wrapped otherwise."""
    blank = " " * (_NAME_COLUMNS + 1)
    wrap = partial(textwrap.wrap, width=line_width(), break_long_words=False, break_on_hyphens=False)
    for finding in findings:
        yield from wrap(
            finding.value, initial_indent=f"{finding.name:{_NAME_COLUMNS}} ", subsequent_indent=blank
        )
        if finding.advice:
            yield from wrap(finding.advice, initial_indent=f"{blank}→ ", subsequent_indent=f"{blank}  ")


def gpu_findings(driver: NvidiaDriver, on_jetson: bool) -> Iterator[Finding]:
    """Yield findings on the NVIDIA driver and each GPU."""
    if driver.cuda_version is None:
        advice = "" if on_jetson else "Install NVIDIA's driver if this machine has an NVIDIA GPU."
        yield _finding("GPU driver", driver.unavailable_reason, advice)
        return
    cuda = "{}.{}".format(*driver.cuda_version)
    yield _finding("GPU driver", f"for CUDA {cuda}", cuda=cuda)
    if driver.unavailable_reason:
        advice = "Check that the GPU is given to this process (CUDA_VISIBLE_DEVICES, container options)."
        yield _finding("GPU", driver.unavailable_reason, advice)
    for gpu in driver.gpus:
        major, minor = gpu.compute_capability
        yield _finding(
            "GPU",
            f"{gpu.name}, compute capability {major}.{minor}, {gpu.memory_bytes / _GIB:.1f} GiB",
            gpu=gpu.name,
            compute_capability=f"{major}.{minor}",
            memory_bytes=gpu.memory_bytes,
        )


def tensorrt_versions() -> list[str]:
    """Return the installed distributions of TensorRT and TensorRT-RTX, or else the importable modules."""
    from importlib import metadata

    found = {
        f"{distribution.name} {distribution.version}"
        for distribution in metadata.distributions()
        if (distribution.name or "").lower().replace("_", "-").startswith("tensorrt")
    }
    if found:
        return sorted(found)
    return [name for name in _TENSORRT_MODULES if importlib.util.find_spec(name)]


def plan_findings(path: Path | None, driver: NvidiaDriver) -> Iterator[Finding]:
    """Yield which plans of a pack (None: the reference pack) each installed flavour can load here."""
    from stenosis_trt.engine.errors import PackError, TensorRTError
    from stenosis_trt.engine.packs.pack import open_pack
    from stenosis_trt.engine.plans.sidecar import RuntimeTarget
    from stenosis_trt.engine.plans.store import build_command, iter_readable_plans, load_blocker
    from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
    from stenosis_trt.engine.trt.flavours import FLAVOURS

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
            yield _finding(name, error.reason, error.advice)
            continue
        mine = [plan for plan in plans if plan.sidecar.flavour == flavour]
        what = f"{flavour} {version}, pack {pack.name}"
        if not driver.gpus:
            yield _finding(name, f"{what}: {len(mine)}, and no GPU to load them")
            continue
        gpu = driver.gpus[0]
        here = RuntimeTarget(flavour, version, gpu.name, gpu.compute_capability)
        refusals = {plan.path: load_blocker(pack, plan, here) for plan in mine}
        fit = [f"{p.sidecar.model} {p.sidecar.precision}" for p in mine if not refusals[p.path]]
        advice = "" if fit else build_command(pack, flavour)
        yield _finding(name, f"{what}: {', '.join(fit) or 'none'} for this GPU", advice)
        for plan, reason in refusals.items():
            if reason:
                yield _finding(name, f"{plan} cannot be loaded: {reason}")


def gpu_requirements(driver: NvidiaDriver, has_tensorrt: bool, on_jetson: bool) -> Finding:
    """Return what grading on a GPU needs and this machine lacks."""
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
        return _finding("GPU grading", f"needs what is not here: {'; '.join(missing)}")
    return _finding("GPU grading", "what it needs is here, plans aside")


def _pack_finding(name: str, path: Path | None) -> Finding:
    from stenosis_trt.engine.errors import PackError
    from stenosis_trt.engine.packs.pack import open_pack

    try:
        pack = open_pack(path)
    except PackError as error:
        return _finding(name, error.reason, error.advice)
    return _finding(
        name,
        f"{pack.name} {pack.version} ({pack.sha256[:12]}): {pack.intended_use}",
        name=pack.name,
        version=pack.version,
        sha256=pack.sha256,
        intended_use=pack.intended_use,
        clinical_use=pack.clinical_use,
    )


def _backend_finding(device: str, path: Path | None) -> Finding:
    from stenosis_trt.engine.backends.selection import AUTO, choose_backend
    from stenosis_trt.engine.errors import DeviceError, PackError
    from stenosis_trt.engine.packs.pack import open_pack

    try:
        decision = choose_backend(device, open_pack(path), AUTO)
    except (DeviceError, PackError) as error:
        return _finding("grade would take", f"nothing: {error.reason}", error.advice)
    return _finding(
        "grade would take",
        f"{decision.backend}, because {decision.reason}",
        decision.advice,
        backend=decision.backend,
        precision=decision.precision,
    )
