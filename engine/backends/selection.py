"""Choose and open the backend of a run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.cpu.candidates import OPENVINO, ModelChoice
from stenosis_trt.engine.backends.cpu.choice import CPU_PRECISIONS, choose_models
from stenosis_trt.engine.backends.cpu.table import BF16, record_of
from stenosis_trt.engine.backends.gpu.choice import NoGpuError, choose_plans
from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.errors import DeviceError, PackError, PlanError, TensorRTError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.hardware import query_nvidia_driver
from stenosis_trt.engine.support.messages import print_message
from stenosis_trt.engine.support.versions import package_version

AUTO = "auto"
DEVICES = (AUTO, "cpu", "gpu")


@dataclass(frozen=True)
class BackendChoice:
    """A chosen backend and the reason for the choice.

    Attributes:
        backend: name of the backend.
        reason: reason for the choice, to follow "because".
        advice: how to get a faster backend, or "".
        precision: precision that the models run in; "mixed" if they differ.
        details: for run.json: `GpuFields` on a GPU, `CpuFields` on a CPU.
        plans: plans to use on the GPU; None on the CPU.
        models: how each model is run on the CPU; None on a GPU.
    """

    backend: str
    reason: str
    advice: str = ""
    precision: str = "fp32"
    details: Mapping[str, Any] = field(default_factory=dict)
    plans: ChosenPlans | None = None
    models: Mapping[str, ModelChoice] | None = None

    @property
    def fingerprint_fields(self) -> dict[str, str]:
        """The properties that can affect results."""
        names = ("flavour", "version")
        by_model = {name: str(choice.arithmetic) for name, choice in (self.models or {}).items()}
        versions = {OPENVINO: package_version(OPENVINO)} if self.backend == OPENVINO else {}
        return {
            "backend": self.backend,
            **{k: self.details[k] for k in names if k in self.details},
            **by_model,
            **versions,
        }

    def pack_to_run(self, pack: Pack) -> Pack:
        """Return the pack with each model in the precision of the file that is run.

        Raises:
            PackError: a model has no such file, or one that failed the gate.
        """
        if self.models is None:
            return pack.in_precision(self.precision)
        return pack.in_precisions({name: item.arithmetic.precision for name, item in self.models.items()})


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
    device: str,
    pack: Pack,
    precision: str = "fp32",
    gpu: GpuOptions | None = None,
    threads: int | None = None,
) -> BackendChoice:
    """Choose a backend without opening a GPU.

    Args:
        device: one of `DEVICES`; "gpu" never falls back to the CPU.
        pack: a loaded pack.
        precision: a precision of the pack, "bf16" (on a CPU alone), or "auto": FP16 on a GPU if the pack has
            FP16 models that passed the gate, and plans of them, else FP32; on a CPU the fastest that passed
            the gate on this machine, for each model.
        gpu: options of the GPU.
        threads: cores to use on the CPU; None for all that are available to this process.

    Raises:
        DeviceError: there is no such device, "gpu" was requested and is not available, or the precision needs
            what this machine lacks.
        PackError: plans are to be built, and the pack is not writable; or the pack has no such models.
    """
    check_device(device)
    if precision not in (AUTO, *CPU_PRECISIONS):
        raise PackError(
            f"There is no precision {precision!r}.", f"Give one of {', '.join((AUTO, *CPU_PRECISIONS))}."
        )
    if device == "cpu":
        return _on_cpu(pack, precision, threads, "the CPU was asked for")
    if precision == BF16:
        if device == "gpu":
            raise DeviceError("bf16 is a precision of CPUs, not of GPUs.", "On a GPU, grade in fp16.")
        return _on_cpu(pack, precision, threads, "bf16 is a precision of CPUs")
    try:
        precision, chosen = _choose(pack, precision, gpu or GpuOptions())
    except (CudaError, TensorRTError) as error:
        if device == "gpu":
            raise DeviceError(error.reason, error.advice) from error
        return _instead_of_gpu(error, pack, precision, threads)
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
        threads: cores to use on the CPU; None for all that are available to this process.

    Raises:
        DeviceError, PackError: as `choose_backend`; or the requested GPU cannot be opened, or a model cannot
            be used.
    """
    decision = choose_backend(device, pack, precision, gpu, threads)
    if decision.plans is not None:
        from stenosis_trt.engine.backends.tensorrt import TensorRtBackend

        try:
            return TensorRtBackend(decision.pack_to_run(pack), decision.plans, gpu), decision
        except (CudaError, TensorRTError) as error:
            if device == "gpu":
                raise DeviceError(error.reason, error.advice) from error
            decision = _instead_of_gpu(error, pack, precision, threads)
    from stenosis_trt.engine.backends.cpu.backend import CpuBackend

    return CpuBackend(decision.pack_to_run(pack), threads, decision.models, keep_compiled=True), decision


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


def _on_cpu(pack: Pack, precision: str, threads: int | None, reason: str, advice: str = "") -> BackendChoice:
    """The CPU, for this reason."""
    chosen = choose_models(pack, precision, threads)
    return BackendChoice(
        chosen.runtime,
        ", and ".join(filter(None, (reason, chosen.reason))),
        " ".join(filter(None, (advice, chosen.advice))),
        chosen.precision,
        {"models_run_by": {name: record_of(choice) for name, choice in chosen.models.items()}},
        models=chosen.models,
    )


def _instead_of_gpu(
    error: CudaError | TensorRTError, pack: Pack, precision: str, threads: int | None
) -> BackendChoice:
    """The CPU, because the GPU cannot be used."""
    reason = error.reason.rstrip(".")
    reason = f"{reason[:1].lower()}{reason[1:]}"
    if isinstance(error, NoGpuError):
        # Most machines have no GPU: no advice is needed.
        return _on_cpu(pack, precision, threads, reason)
    return _on_cpu(pack, precision, threads, f"the GPU cannot be used: {reason}", error.advice)
