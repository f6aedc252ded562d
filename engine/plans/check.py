"""State of each plan of a pack, and whether this machine can load it. Does not load plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.engine.errors import PlanError, TensorRTError
from stenosis_trt.engine.packs.pack import PRECISIONS, Pack
from stenosis_trt.engine.plans.sidecar import RuntimeTarget, Sidecar
from stenosis_trt.engine.plans.store import (
    StoredPlan,
    build_advice,
    build_command,
    iter_plans,
    model_files,
    read_plan,
    rebuild_advice,
    signature_error,
    stale_reason,
)
from stenosis_trt.engine.support.hardware import NvidiaDriver
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.engine.trt.flavours import FLAVOURS

INTACT, STALE, CHANGED, UNTRUSTED = "intact", "stale", "changed", "not trusted"


@dataclass(frozen=True)
class PlanState:
    """State of one plan.

    Attributes:
        path: file of the plan.
        state: `INTACT`; `STALE` if it does not match the current model or failed its comparison; `CHANGED` if
            plan or sidecar were modified; `UNTRUSTED` if a required signature is missing or invalid.
        plan: the plan; None without a valid sidecar.
        reason: why it is not intact, or "".
        load_blocker: why this machine cannot load it, or "".
        target: flavour and GPU that would load it, if it can be loaded.
        advice: what to do about it, or "".
    """

    path: Path
    state: str
    plan: StoredPlan | None
    reason: str = ""
    load_blocker: str = ""
    target: RuntimeTarget | None = None
    advice: str = ""


def check_plans(pack: Pack, driver: NvidiaDriver) -> Iterator[PlanState]:
    """Check every plan of a pack, including its hash, in the order of their paths.

    Args:
        pack: the pack, with the keys whose signature its plans need.
        driver: NVIDIA driver and GPUs of this machine; the first GPU would load plans.

    Raises:
        SignatureError: a signature is required, and `cryptography` is not installed.
    """
    loaders = {name: _runtime_target(name, driver) for name in installed_flavours()}
    for path, plan in iter_plans(pack):
        if isinstance(plan, str):
            yield PlanState(path, CHANGED, None, plan, advice=_rebuild_by_path(pack, path))
            continue
        sidecar = plan.sidecar
        for state, reason in ((UNTRUSTED, signature_error(pack, plan)), (STALE, stale_reason(pack, plan))):
            if reason:
                yield PlanState(path, state, plan, reason, advice=_stale_advice(pack, sidecar))
                break
        else:
            yield _current_state(
                pack, plan, loaders.get(sidecar.flavour, f"{sidecar.flavour} is not installed")
            )


def _current_state(pack: Pack, plan: StoredPlan, loader: RuntimeTarget | str) -> PlanState:
    """State of a plan that is not stale. `loader` is the target that would load it, or why there is none."""
    try:
        read_plan(pack, plan)
    except PlanError as error:
        reason = error.reason.removeprefix(f"{plan.path} ").rstrip(".")
        return PlanState(plan.path, CHANGED, plan, f"it {reason}", advice=error.advice)
    if isinstance(loader, str):
        return PlanState(plan.path, INTACT, plan, load_blocker=loader)
    not_here = plan.sidecar.load_blocker(loader)
    if not_here:
        advice = build_advice(pack, loader, plan.sidecar.precision)
        return PlanState(plan.path, INTACT, plan, load_blocker=not_here, advice=advice)
    return PlanState(plan.path, INTACT, plan, target=loader)


def state_lines(pack: Pack, found: PlanState) -> Iterator[str]:
    """Format the state of a plan as lines of text."""
    name = found.path.relative_to(pack.path).as_posix()
    if found.state != INTACT or found.plan is None:
        yield f"  {name}: {found.state.upper()}: {found.reason}"
    else:
        here = f"cannot be loaded here: {found.load_blocker}" if found.load_blocker else "can be loaded here"
        sidecar = found.plan.sidecar
        yield f"  {name}: intact, {sidecar.plan_bytes / 1e6:.1f} MB, {_comparison(sidecar)}; {here}"
    if found.advice:
        yield f"    {found.advice}"


def _rebuild_by_path(pack: Pack, path: Path) -> str:
    """Advice for a plan without a valid sidecar, from its path."""
    folder = path.parent.name
    flavour = max((name for name in FLAVOURS if folder.startswith(f"{name}-")), key=len, default="")
    precision = folder.rpartition("-")[2]
    command = build_command(
        pack, flavour, precision if precision in PRECISIONS else "", f"--model {path.stem}"
    )
    return f"Remove it, or rebuild it with its original options: {command}"


def _stale_advice(pack: Pack, sidecar: Sidecar) -> str:
    """Advice for a stale plan: rebuild it if the pack has such a model that passed its gate."""
    file = model_files(pack, sidecar.model).get(sidecar.precision)
    if file is None:
        return "Remove it and its sidecar."
    return rebuild_advice(pack, sidecar) if file.passed else "Make the file again: stenosis-trt quantise."


def _comparison(sidecar: Sidecar) -> str:
    """Whether the results of the plan itself were compared with FP32."""
    if sidecar.measured is None:
        return "not yet compared with FP32 on a GPU"
    return f"compared with FP32 on {sidecar.measured.get('gpu')}"


def _runtime_target(flavour: str, driver: NvidiaDriver) -> RuntimeTarget | str:
    """Target that would load plans of a flavour on this machine, or why there is none."""
    if not driver.gpus:
        return driver.unavailable_reason
    try:
        version = TensorRT(FLAVOURS[flavour]).version
    except TensorRTError as error:
        return error.reason.rstrip(".")
    return RuntimeTarget(flavour, version, driver.gpus[0].name, driver.gpus[0].compute_capability)
