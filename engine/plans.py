"""Plans in a pack: where each lies, what its sidecar says, and which of them this machine may load.

A plan lies at PACK/plans/<flavour>-<version>-<target>-<precision>/<model>.plan, its sidecar beside it at
<model>.json. That is written last: without it there is no plan. A plan is code, and is read only if its hash
is the one in its sidecar.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stenosis_trt.engine.pack import MANIFEST, MODEL_NAMES, ModelSpec, Pack
from stenosis_trt.engine.sidecar import Here, Sidecar
from stenosis_trt.engine.tensorrt_flavours import FLAVOURS, BuildSettings, Capability, TensorRTError, dotted
from stenosis_trt.engine.whole_files import write_whole, write_whole_bytes

PLANS = "plans"

_MAX_SIDECAR_BYTES = 1 << 20


class PlanError(TensorRTError):
    """There is no plan that may be loaded, or it is not what its sidecar says. The advice has the command."""


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file of a pack, its SHA-256, and whether it is the model itself or passed its gate."""

    file: str
    sha256: str
    passed: bool = True


@dataclass(frozen=True)
class Plan:
    """A plan as its sidecar tells. Its own file is read, and its hash checked, by `read_plan`."""

    path: Path
    sidecar: Sidecar


def model_files(pack: Pack, name: str) -> dict[str, ModelFile]:
    """The ONNX files that a pack has of one model, by precision: its own, and its variants."""
    model = pack.models[name]
    variants = {
        precision: ModelFile(variant.file, variant.sha256, variant.passed)
        for precision, variant in model.variants.items()
    }
    return {**variants, model.precision: ModelFile(model.file, model.sha256)}


def read_model_file(pack: Pack, name: str, file: ModelFile) -> bytes:
    """An ONNX file of a pack, once its hash was found right.

    Raises:
        PackError: it is missing, was changed, or is outside the pack.
    """
    model = replace(pack.models[name], file=file.file, sha256=file.sha256)
    return replace(pack, models={**pack.models, name: model}).read_model(name)


def spec_sha256(model: ModelSpec) -> str:
    """Hash of what a pack says of a model's input and output."""
    content = {"input": asdict(model.input), "output": asdict(model.output)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_plan(pack: Pack, target: str, sidecar: Sidecar, data: bytes) -> Plan:
    """Put a plan into its pack; at no time is there a sidecar of another plan beside it.

    Raises:
        OSError: it cannot be written.
    """
    name = f"{sidecar.flavour}-{sidecar.version}-{target}-{sidecar.precision}"
    path = pack.path / PLANS / name / f"{sidecar.model}.plan"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    write_whole_bytes(path, data)
    write_whole(path.with_suffix(".json"), json.dumps(asdict(sidecar), indent=2, ensure_ascii=False) + "\n")
    return Plan(path, sidecar)


def record_gate(plan: Plan, outcome: Mapping[str, Any]) -> Plan:
    """Record in a plan's sidecar how its answers compare with FP32's."""
    changed = replace(plan.sidecar, gate=dict(outcome))
    text = json.dumps(asdict(changed), indent=2, ensure_ascii=False) + "\n"
    write_whole(plan.path.with_suffix(".json"), text)
    return Plan(plan.path, changed)


def plans_of(pack: Pack) -> Iterator[Plan]:
    """Every plan that a pack has, in the order of their paths. What is no sidecar is passed over."""
    for path in sorted((pack.path / PLANS).glob("*/*.json")) if pack.path.is_dir() else []:
        try:
            if path.stat().st_size > _MAX_SIDECAR_BYTES or not path.with_suffix(".plan").is_file():
                continue
            sidecar = Sidecar.parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            continue
        if sidecar.model == path.stem and sidecar.model in MODEL_NAMES:
            yield Plan(path.with_suffix(".plan"), sidecar)


def refusal(pack: Pack, plan: Plan, here: Here) -> str:
    """Why a plan cannot be loaded there, or is not of this pack's model as it is now; "" if it may be."""
    sidecar = plan.sidecar
    model = model_files(pack, sidecar.model).get(sidecar.precision)
    if model is None:
        return f"the pack has no {sidecar.model} in {sidecar.precision} any more"
    if model.sha256 != sidecar.onnx_sha256:
        return f"it was built from another {model.file} than the pack has now"
    if spec_sha256(pack.models[sidecar.model]) != sidecar.spec_sha256:
        return f"{MANIFEST} says another input or output of {sidecar.model} than when it was built"
    return sidecar.refusal(here)


def find_plan(pack: Pack, model: str, precision: str, here: Here, on_dla: bool = False) -> Plan:
    """The plan of a model to load here: the one timed on this GPU, else the one built for the fewest kinds.

    Raises:
        PlanError: there is none that may be loaded; why not, and the command that builds one.
    """
    wanted = [
        plan
        for plan in plans_of(pack)
        if (plan.sidecar.model, plan.sidecar.precision) == (model, precision)
        and (plan.sidecar.dla_core is not None) == on_dla
    ]
    refusals = {str(plan.path): refusal(pack, plan, here) for plan in wanted}
    usable = [plan for plan in wanted if not refusals[str(plan.path)]]
    if usable:
        return min(usable, key=lambda plan: (_breadth(plan.sidecar, here), str(plan.path)))
    reasons = "; ".join(f"{path}: {reason}" for path, reason in refusals.items())
    command = build_command(pack, here.flavour, precision, "--dla-core 0" if on_dla else "")
    raise PlanError(
        f"The pack {pack.path} has no plan of {model} in {precision} for {here.gpu_name} with {here.flavour} "
        f"{here.version}{f' ({reasons})' if reasons else ''}.",
        _advice(here, command),
    )


def read_plan(pack: Pack, plan: Plan) -> bytes:
    """The plan itself, once its hash was found right.

    Raises:
        PlanError: it cannot be read or was changed; and the command that builds it again.
    """
    sidecar = plan.sidecar
    again = f"Build it again: {build_command(pack, sidecar.flavour, sidecar.precision, *sidecar.settings)}"
    try:
        data = plan.path.read_bytes() if plan.path.stat().st_size == sidecar.plan_bytes else b""
    except OSError as error:
        raise PlanError(f"{plan.path} cannot be read ({error.strerror}).", again) from error
    if hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:
        raise PlanError(f"{plan.path} is not the plan that its sidecar names.", again)
    return data


def build_command(pack: Pack, flavour: str, precision: str = "", *settings: str) -> str:
    """The command that builds such plans; without a precision, those of all."""
    parts = [
        "stenosis-trt build",
        shlex.quote(str(pack.path)),
        f"--flavour {flavour}",
        f"--precision {precision}" if precision else "",
        *settings,
    ]
    return " ".join(filter(None, parts))


def target_name(settings: BuildSettings, capability: Capability | None) -> str:
    """Which GPUs a plan is for, in its folder's name: "any", "sm87", "sm86+sm89", "sm80up", "sm87-dla0"."""
    names = [f"sm{major}{minor}" for major, minor in settings.compute_capabilities]
    if not names and capability is not None:
        names = [f"sm{capability[0]}{capability[1]}"]
    target = "+".join(names) or "any"
    if settings.hardware_compatible == "ampere-plus":
        target = "sm80up"
    return target if settings.dla_core is None else f"{target}-dla{settings.dla_core}"


def _breadth(sidecar: Sidecar, here: Here) -> tuple[bool, bool, int]:
    foreign = sidecar.gpu_name is not None and sidecar.gpu_name != here.gpu_name
    return foreign, sidecar.newer_than is not None, len(sidecar.compute_capabilities)


def _advice(here: Here, command: str) -> str:
    flavour = FLAVOURS[here.flavour]
    if flavour.builds_ahead and not flavour.runs_on(here.compute_capability):
        if here.compute_capability not in flavour.targets:
            return (
                f"{here.flavour} does not run on this GPU: install TensorRT ({FLAVOURS['tensorrt'].install})."
            )
        command += f" --compute-capability {dotted(here.compute_capability)}"
    return f"Build it: {command}"
