"""Choose and open the backend of a run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.gpu.choice import NoGpuError, choose_plans
from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.errors import DeviceError, PlanError, TensorRTError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.hardware import query_nvidia_driver
from stenosis_trt.engine.support.messages import print_message

AUTO = "auto"
DEVICES = (AUTO, "cpu", "gpu")


@dataclass(frozen=True)
class BackendChoice:
    """A chosen backend and the reason for the choice.

    Attributes:
        backend: name of the backend.
        reason: reason for the choice, to follow "because".
        advice: how to get a faster backend, or "".
        precision: precision that the models run in.
        details: for run.json, on a GPU: flavour and version of TensorRT, and file, hash and precision of the
            plan of each model.
        plans: plans to use on the GPU; None on the CPU.
    """

    backend: str
    reason: str
    advice: str = ""
    precision: str = "fp32"
    details: Mapping[str, Any] = field(default_factory=dict)
    plans: ChosenPlans | None = None

    @property
    def fingerprint_fields(self) -> dict[str, str]:
        """The properties that can affect results."""
        names = ("flavour", "version")
        return {"backend": self.backend, **{k: self.details[k] for k in names if k in self.details}}


def check_device(device: str) -> None:
    """Check the name of a device.

    Raises:
        DeviceError: it is not one of `DEVICES`.
    """
    if device not in DEVICES:
        raise DeviceError(f"There is no device {device!r}.", f"Give one of {', '.join(DEVICES)}.")


def needs_no_gpu(device: str) -> bool:
    """Return True if a device is the CPU for certain: it was asked for, or there is no GPU."""
    return device == "cpu" or (device == AUTO and not query_nvidia_driver().gpus)


def choose_backend(
    device: str, pack: Pack, precision: str = "fp32", gpu: GpuOptions | None = None
) -> BackendChoice:
    """Choose a backend without opening a GPU.

    Args:
        device: one of `DEVICES`; "gpu" never falls back to the CPU.
        pack: a loaded pack.
        precision: a precision of the pack, or "auto": FP16 on a GPU if the pack has FP16 models that passed
            the gate, and plans of them, else FP32; FP32 on the CPU.
        gpu: options of the GPU.

    Raises:
        DeviceError: there is no such device, or "gpu" was requested and is not available.
        PackError: plans are to be built, and the pack is not writable.
    """
    check_device(device)
    if device == "cpu":
        return BackendChoice("onnxruntime", "the CPU was asked for", precision=_on_cpu_in(precision))
    try:
        precision, chosen = _choose(pack, precision, gpu or GpuOptions())
    except (CudaError, TensorRTError) as error:
        if device == "gpu":
            raise DeviceError(error.reason, error.advice) from error
        return _on_cpu(error, precision)
    here = chosen.target
    asked = "it was asked for" if device == "gpu" else "there is a plan for each model"
    return BackendChoice(
        "tensorrt",
        f"{asked}: {here.flavour} {here.version} on {here.gpu_name}, {_in_words(chosen)}",
        precision=precision,
        details={
            "flavour": here.flavour,
            "version": here.version,
            "plans": {
                name: {
                    "file": str(plan.path),
                    "sha256": plan.sidecar.plan_sha256,
                    "precision": plan.sidecar.precision,
                }
                for name, plan in chosen.plans.items()
            },
        },
        plans=chosen,
    )


def open_backend(
    pack: Pack,
    device: str,
    precision: str = "fp32",
    threads: int | None = None,
    gpu: GpuOptions | None = None,
) -> tuple[Backend, BackendChoice]:
    """Open the backend that `choose_backend` chooses, or that of the CPU if "auto" fails to open the GPU.

    Args:
        pack, device, precision, gpu: see `choose_backend`.
        threads: threads of the CPU backend; None for all cores.

    Raises:
        DeviceError, PackError: as `choose_backend`; or the requested GPU cannot be opened, or a model cannot
            be used.
    """
    decision = choose_backend(device, pack, precision, gpu)
    ready = pack.in_precision(decision.precision)
    if decision.plans is not None:
        from stenosis_trt.engine.backends.tensorrt import TensorRtBackend

        try:
            return TensorRtBackend(ready, decision.plans, gpu), decision
        except (CudaError, TensorRTError) as error:
            if device == "gpu":
                raise DeviceError(error.reason, error.advice) from error
            decision = _on_cpu(error, precision)
            ready = pack.in_precision(decision.precision)
    from stenosis_trt.engine.backends.cpu.backend import CpuBackend

    return CpuBackend(ready, threads), decision


def announce(decision: BackendChoice) -> None:
    """Print the chosen backend, the reason, and how to get a faster one."""
    lines = [f"Backend: {decision.backend}, because {decision.reason}.", decision.advice]
    print_message(" ".join(filter(None, lines)))


def _in_words(chosen: ChosenPlans) -> str:
    """Name the plans in use by their folders, which contain the precision."""
    folders = dict.fromkeys(plan.path.parent.name for plan in chosen.plans.values())
    return f"with the plans in {' and '.join(folders)}"


def _choose(pack: Pack, precision: str, gpu: GpuOptions) -> tuple[str, ChosenPlans]:
    """Choose precision and plans. "auto" tries FP16, then FP32, and builds missing plans of FP32 only."""
    if precision == AUTO:
        if all("fp16" in model.variants and model.variants["fp16"].passed for model in pack.models.values()):
            with suppress(PlanError):
                return "fp16", choose_plans(pack, "fp16", replace(gpu, build_missing_plans=False))
        precision = "fp32"
    return precision, choose_plans(pack, precision, gpu)


def _on_cpu_in(precision: str) -> str:
    return "fp32" if precision == AUTO else precision


def _on_cpu(error: CudaError | TensorRTError, precision: str) -> BackendChoice:
    reason = error.reason.rstrip(".")
    if isinstance(error, NoGpuError):
        # Most machines have no GPU: no advice is needed.
        return BackendChoice(
            "onnxruntime", f"{reason[:1].lower()}{reason[1:]}", precision=_on_cpu_in(precision)
        )
    return BackendChoice(
        "onnxruntime",
        f"the GPU cannot be used: {reason[:1].lower()}{reason[1:]}",
        error.advice,
        _on_cpu_in(precision),
    )
