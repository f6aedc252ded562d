"""Choose the flavour of TensorRT, and find or build its plans for a GPU."""

from __future__ import annotations

from contextlib import suppress

from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.errors import PlanError, TensorRTError
from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.build import BuildRequest, build_outcome_line, build_plans
from stenosis_trt.engine.plans.sidecar import RuntimeTarget
from stenosis_trt.engine.plans.store import find_plan
from stenosis_trt.engine.support.hardware import NvidiaDriver
from stenosis_trt.engine.support.messages import print_message
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.engine.trt.flavours import FLAVOURS, format_capability


def plans_for(pack: Pack, precision: str, options: GpuOptions, driver: NvidiaDriver) -> ChosenPlans:
    """Choose plans of a pack for the first GPU of a driver; see `choice.choose_plans`."""
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
