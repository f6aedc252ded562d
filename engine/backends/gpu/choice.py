"""Choose the flavour of TensorRT and the plans for the GPU of this machine."""

from __future__ import annotations

import importlib.util
from contextlib import suppress

from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.errors import PlanError, TensorRTError
from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.build import BuildRequest, build_outcome_line, build_plans
from stenosis_trt.engine.plans.sidecar import RuntimeTarget
from stenosis_trt.engine.plans.store import find_plan
from stenosis_trt.engine.support.hardware import NvidiaDriver, query_nvidia_driver
from stenosis_trt.engine.support.messages import print_message
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.engine.trt.flavours import FLAVOURS, format_capability


class NoGpuError(CudaError):
    """No GPU is visible to this process."""


def choose_plans(pack: Pack, precision: str, options: GpuOptions) -> ChosenPlans:
    """Choose plans of a pack for the first GPU of this machine.

    Uses the first installed flavour with a loadable plan for each model, TensorRT before TensorRT-RTX. If
    there is none and `options.build_missing_plans` is set, the missing plans of the first flavour are built.

    Args:
        pack: a loaded pack.
        precision: precision to grade in.
        options: options of the GPU.

    Raises:
        NoGpuError: there is no GPU.
        CudaError: PyCUDA is not installed.
        TensorRTError: no flavour is installed that runs on this GPU, or there are no plans; the advice has
            the command that builds them.
        PackError: plans are to be built, and the pack is not writable or requires signatures.
    """
    driver = query_nvidia_driver()
    if not driver.gpus:
        raise NoGpuError(
            f"There is no GPU to grade on: {driver.unavailable_reason}.",
            "Check that the GPU is visible to this process, or grade with --device cpu.",
        )
    if importlib.util.find_spec("pycuda") is None:
        raise CudaError("PyCUDA is not installed.", "Install it: pip install 'stenosis-trt[gpu]'")
    first, *others = _flavours(options.flavour, driver)
    try:
        return _plans_of(pack, first, precision, driver)
    except TensorRTError:
        for name in others:
            with suppress(TensorRTError):
                return _plans_of(pack, name, precision, driver)
        if not options.build_missing_plans:
            raise
    return _plans_of(pack, first, precision, driver, build=True)


def _flavours(wanted: str | None, driver: NvidiaDriver) -> list[str]:
    """Names of the installed flavours that run on this GPU; at least one."""
    installed = [name for name in installed_flavours() if wanted in (None, name)]
    if not installed:
        names = list(FLAVOURS) if wanted is None else [wanted]
        ways = "; or ".join(f"{name}: {FLAVOURS[name].install}" for name in names)
        raise TensorRTError(f"{' or '.join(names)} is not installed.", f"Install it. {ways}.")
    gpu = driver.gpus[0]
    running = [
        name
        for name in installed
        if not FLAVOURS[name].builds_without_gpu
        or gpu.compute_capability in FLAVOURS[name].targets
        or FLAVOURS[name].runs_on(gpu.compute_capability)
    ]
    if not running:
        raise TensorRTError(
            f"{' and '.join(installed)} do not run on {gpu.name} "
            f"(compute capability {format_capability(gpu.compute_capability)}).",
            f"Install TensorRT: {FLAVOURS['tensorrt'].install}.",
        )
    return running


def _plans_of(
    pack: Pack, flavour: str, precision: str, driver: NvidiaDriver, build: bool = False
) -> ChosenPlans:
    """Find the plan of a flavour for each model; build missing ones if `build`."""
    gpu = driver.gpus[0]
    here = RuntimeTarget(flavour, TensorRT(FLAVOURS[flavour]).version, gpu.name, gpu.compute_capability)
    plans = {}
    for name in MODEL_NAMES:
        model = pack.models[name]
        wanted = model.precision if precision == "fp32" else precision
        try:
            plans[name] = find_plan(pack, name, wanted, here)
        except PlanError:
            if not build:
                raise
            _build(pack, BuildRequest(flavour=flavour, precisions=(wanted,), models=(name,)), driver)
            plans[name] = find_plan(pack, name, wanted, here)
    return ChosenPlans(here, plans)


def _build(pack: Pack, request: BuildRequest, driver: NvidiaDriver) -> None:
    """Build plans and print the outcome."""
    for outcome in build_plans(pack, request, driver, show_progress):
        if outcome.plan is None:
            raise TensorRTError(f"{outcome.model} {outcome.precision}: not built.", outcome.reason)
        print_message(build_outcome_line(outcome))
