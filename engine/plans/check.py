"""What state each plan of a pack is in, and whether this machine may load it. Nothing is loaded."""

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
    """One plan of a pack.

    Attributes:
        path: of its file.
        state: `INTACT`; `STALE`, if the pack's model is another now or must not be graded with; `CHANGED`, if
            plan and sidecar are not as they were written; `UNTRUSTED`, if nobody signed it who had to.
        plan: None where there is no sidecar that says something.
        reason: why it is not intact, or "".
        load_blocker: why this machine may not load it, or "".
        target: what would load it, where it may be loaded.
        advice: what mends that, or "".
    """

    path: Path
    state: str
    plan: StoredPlan | None
    reason: str = ""
    load_blocker: str = ""
    target: RuntimeTarget | None = None
    advice: str = ""


def check_plans(pack: Pack, driver: NvidiaDriver) -> Iterator[PlanState]:
    """Every plan that lies in a pack, in the order of their paths, with its hash checked.

    Args:
        pack: the pack, and whose signature its plans need.
        driver: of this machine, with its GPUs; the first would load plans.

    Raises:
        SignatureError: a signature is required, and `cryptography` is not installed.
    """
    loaders = {name: _loader(name, driver) for name in installed_flavours()}
    for path, plan in iter_plans(pack):
        if isinstance(plan, str):
            yield PlanState(path, CHANGED, None, plan, advice=_anew(pack, path))
            continue
        sidecar = plan.sidecar
        for state, reason in ((UNTRUSTED, signature_error(pack, plan)), (STALE, stale_reason(pack, plan))):
            if reason:
                yield PlanState(path, state, plan, reason, advice=_mend(pack, sidecar))
                break
        else:
            yield _if_current(pack, plan, loaders.get(sidecar.flavour, f"{sidecar.flavour} is not installed"))


def _if_current(pack: Pack, plan: StoredPlan, loader: RuntimeTarget | str) -> PlanState:
    """The state of a plan of the model as it is now. `loader` is what would load it, or why nothing does."""
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
    """A plan's state for a person."""
    name = found.path.relative_to(pack.path).as_posix()
    if found.state != INTACT or found.plan is None:
        yield f"  {name}: {found.state.upper()}: {found.reason}"
    else:
        here = f"cannot be loaded here: {found.load_blocker}" if found.load_blocker else "can be loaded here"
        sidecar = found.plan.sidecar
        yield f"  {name}: intact, {sidecar.plan_bytes / 1e6:.1f} MB, {_proof(sidecar)}; {here}"
    if found.advice:
        yield f"    {found.advice}"


def _anew(pack: Pack, path: Path) -> str:
    """What to do about a plan without a sidecar. What its place says is all that is known of it."""
    folder = path.parent.name
    flavour = max((name for name in FLAVOURS if folder.startswith(f"{name}-")), key=len, default="")
    precision = folder.rpartition("-")[2]
    command = build_command(
        pack, flavour, precision if precision in PRECISIONS else "", f"--model {path.stem}"
    )
    return f"Remove it, or build it again, with the options it was built with: {command}"


def _mend(pack: Pack, sidecar: Sidecar) -> str:
    """What to do about a stale plan: building again mends it where the pack has such a model that passed."""
    file = model_files(pack, sidecar.model).get(sidecar.precision)
    if file is None:
        return "Remove it and its sidecar."
    return rebuild_advice(pack, sidecar) if file.passed else "Make the file again: stenosis-trt quantise."


def _proof(sidecar: Sidecar) -> str:
    """What is known of its own answers; those of its ONNX file are pack.json's to tell."""
    if sidecar.measured is None:
        return "not yet compared with FP32 on a GPU"
    return f"compared with FP32 on {sidecar.measured.get('gpu')}"


def _loader(flavour: str, driver: NvidiaDriver) -> RuntimeTarget | str:
    """What would load plans of a flavour here, or why nothing does."""
    if not driver.gpus:
        return driver.unavailable_reason
    try:
        version = TensorRT(FLAVOURS[flavour]).version
    except TensorRTError as error:
        return error.reason.rstrip(".")
    return RuntimeTarget(flavour, version, driver.gpus[0].name, driver.gpus[0].compute_capability)
