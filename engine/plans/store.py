"""Plans in a pack: find, read, write and sign them, and decide which of them this machine can load.

A plan is stored at PACK/plans/<flavour>-<version>-<target>-<precision>/<model>.plan, with its sidecar at
<model>.json beside it. The sidecar is written last: a plan without one does not exist. A plan is code: it is
read only if its hash equals that in the sidecar and, if the pack requires signatures, a trusted key signed
the sidecar in <model>.json.sig. The target names the compute capabilities, and the GPU that it was built on.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stenosis_trt.engine.errors import PlanError
from stenosis_trt.engine.packs.files import MANIFEST, read_regular_file
from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.models import MODEL_NAMES, ModelSpec
from stenosis_trt.engine.packs.pack import PRECISIONS, Pack
from stenosis_trt.engine.packs.signature import (
    MAXIMUM_SIGNATURE_BYTES,
    SignedFile,
    signature_path,
    write_signature,
)
from stenosis_trt.engine.plans.sidecar import RuntimeTarget, Sidecar
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically
from stenosis_trt.engine.support.hardware import Gpu
from stenosis_trt.engine.trt.flavours import FLAVOURS, BuildSettings, format_capability

PLANS_FOLDER = "plans"

_MAX_SIDECAR_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file of a pack, its SHA-256, and its gate in pack.json; None for the model itself."""

    file: str
    sha256: str
    gate: Mapping[str, Any] | None = None

    @property
    def passed(self) -> bool:
        """True if it is the model itself, or passed its gate."""
        return self.gate is None or self.gate.get("passed") is True


@dataclass(frozen=True)
class StoredPlan:
    """A plan of a pack, described by its sidecar. `read_plan` reads the plan and checks its hash.

    Attributes:
        path: file of the plan.
        sidecar: parsed sidecar.
        sidecar_bytes: content of the sidecar's file, which is signed.
        signature: content of the signature file; None if there is none.
    """

    path: Path
    sidecar: Sidecar
    sidecar_bytes: bytes = field(default=b"", repr=False)
    signature: bytes | None = field(default=None, repr=False)


def model_files(pack: Pack, name: str) -> dict[str, ModelFile]:
    """ONNX files of one model in a pack, by precision: the model itself and its variants."""
    model = pack.models[name]
    variants = {
        precision: ModelFile(variant.file, variant.sha256, variant.gate)
        for precision, variant in model.variants.items()
    }
    return {**variants, model.precision: ModelFile(model.file, model.sha256)}


def read_model_file(pack: Pack, name: str, file: ModelFile) -> bytes:
    """Read an ONNX file of a pack and check its hash.

    Raises:
        PackError: it is missing, was modified, or lies outside the pack.
    """
    model = replace(pack.models[name], file=file.file, sha256=file.sha256)
    return replace(pack, models={**pack.models, name: model}).read_model(name)


def require_passed_gate(pack: Pack, file: ModelFile) -> None:
    """Check that an ONNX file passed its gate.

    Raises:
        PlanError: it did not.
    """
    if not file.passed:
        raise PlanError(
            f"{file.file} of pack {pack.name} did not pass the gate.",
            "Convert it again with stenosis-trt quantise. It must not be used for grading.",
        )


def spec_sha256(model: ModelSpec) -> str:
    """Hash of the input and output of a model in pack.json."""
    content = {"input": asdict(model.input), "output": model.output.to_dict()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_plan(
    pack: Pack, target: str, sidecar: Sidecar, data: bytes, key: PrivateKey | None = None
) -> StoredPlan:
    """Write a plan and its sidecar to its pack, signed if a key is given.

    At no time does a plan lie beside the sidecar of another, or a sidecar beside the signature of another.

    Raises:
        OSError: a file cannot be written.
    """
    name = f"{sidecar.flavour}-{sidecar.version}-{target}-{sidecar.precision}"
    path = pack.path / PLANS_FOLDER / name / f"{sidecar.model}.plan"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    write_bytes_atomically(path, data)
    return _write_sidecar(path, sidecar, key)


def record_measurement(plan: StoredPlan, outcome: Mapping[str, Any]) -> StoredPlan:
    """Record the comparison of a plan's results with FP32 in its sidecar. `outcome` has a boolean `passed`.

    The sidecar changes, so a signature is removed.

    Raises:
        OSError: the sidecar cannot be written.
    """
    return _write_sidecar(plan.path, replace(plan.sidecar, measured=dict(outcome)), None)


def sign_plan(plan: StoredPlan, key: PrivateKey) -> StoredPlan:
    """Sign the sidecar of a plan, as it was read, and replace an existing signature.

    Raises:
        OSError: the signature cannot be written.
    """
    file = plan.path.with_suffix(".json")
    return replace(plan, signature=write_signature(file, SignedFile.PLAN, plan.sidecar_bytes, key))


def iter_plans(pack: Pack) -> Iterator[tuple[Path, StoredPlan | str]]:
    """Iterate over all plans of a pack, complete or not, in the order of their paths.

    Yields:
        The path, and the plan or what is wrong with it. Hashes of plans are checked by `read_plan` only.
    """
    folders = (pack.path / PLANS_FOLDER).iterdir() if (pack.path / PLANS_FOLDER).is_dir() else ()
    files = (path for folder in folders for path in folder.glob("*"))
    for path in sorted({path.with_suffix(".plan") for path in files if path.suffix in (".plan", ".json")}):
        try:
            plan = _read_stored_plan(path)
        except ValueError as error:
            yield path, str(error)
            continue
        yield path, plan if path.is_file() else "only its sidecar exists"


def iter_readable_plans(pack: Pack) -> Iterator[StoredPlan]:
    """Iterate over the plans of a pack that have a valid sidecar, in the order of their paths."""
    return (plan for _, plan in iter_plans(pack) if isinstance(plan, StoredPlan))


def signature_error(pack: Pack, plan: StoredPlan) -> str:
    """Why the signature of a plan is not valid; "" if it is, or the pack requires none.

    Raises:
        SignatureError: a signature is required, and `cryptography` is not installed.
    """
    if pack.trust is None:
        return ""
    verdict = pack.trust.verify_signature(SignedFile.PLAN, plan.sidecar_bytes, plan.signature)
    if verdict.key is None:
        return f"its sidecar {verdict.reason}"
    same = Sidecar.parse(plan.sidecar_bytes.decode()) == plan.sidecar
    return "" if same else "its sidecar is not the one that was signed"


def model_mismatch(pack: Pack, plan: StoredPlan) -> str:
    """Why a plan does not match the current model of the pack; "" if it does."""
    sidecar = plan.sidecar
    model = model_files(pack, sidecar.model).get(sidecar.precision)
    if model is None:
        return f"the pack has no {sidecar.model} in {sidecar.precision} any more"
    if model.sha256 != sidecar.onnx_sha256:
        return f"it was built from another {model.file} than the pack has now"
    if spec_sha256(pack.models[sidecar.model]) != sidecar.spec_sha256:
        return f"the input or output of {sidecar.model} in {MANIFEST} has changed"
    return ""


def stale_reason(pack: Pack, plan: StoredPlan) -> str:
    """Why a plan does not match the current model or did not pass its comparison with FP32; "" if it did."""
    foreign, sidecar = model_mismatch(pack, plan), plan.sidecar
    if foreign:
        return foreign
    model = model_files(pack, sidecar.model)[sidecar.precision]
    if not model.passed:
        return f"{model.file} did not pass the gate"
    if sidecar.measured is not None and sidecar.measured.get("passed") is not True:
        return f"its own answers differed too far from FP32's on {sidecar.measured.get('gpu')}"
    return ""


def load_blocker(pack: Pack, plan: StoredPlan, here: RuntimeTarget) -> str:
    """Why a plan cannot be loaded on a machine: untrusted, stale or incompatible; "" if it can."""
    return signature_error(pack, plan) or stale_reason(pack, plan) or plan.sidecar.load_blocker(here)


def find_plan(
    pack: Pack, model: str, precision: str, here: RuntimeTarget, on_dla: bool = False
) -> StoredPlan:
    """Find the plan of a model to load: one built on this GPU, else the one with the fewest targets.

    Raises:
        PlanError: no plan can be loaded (the reason lists why, the advice has the command that builds one),
            or the ONNX file did not pass its gate.
    """
    file = model_files(pack, model).get(precision)
    if file is not None:
        require_passed_gate(pack, file)
    found = dict(iter_plans(pack))
    wanted = [
        plan
        for plan in found.values()
        if isinstance(plan, StoredPlan)
        and (plan.sidecar.model, plan.sidecar.precision) == (model, precision)
        and (plan.sidecar.dla_core is not None) == on_dla
    ]
    refusals = {str(plan.path): load_blocker(pack, plan, here) for plan in wanted}
    refusals |= {
        str(path): plan
        for path, plan in found.items()
        if isinstance(plan, str) and path.stem == model and path.parent.name.endswith(f"-{precision}")
    }
    usable = [plan for plan in wanted if not refusals[str(plan.path)]]
    if usable:
        return min(usable, key=lambda plan: (_rank(plan.sidecar, here), str(plan.path)))
    reasons = "; ".join(f"{path}: {reason}" for path, reason in refusals.items())
    raise PlanError(
        f"The pack {pack.path} has no plan of {model} in {precision} for {here.gpu_name} with {here.flavour} "
        f"{here.version}{f' ({reasons})' if reasons else ''}.",
        build_advice(pack, here, precision, "--dla-core 0" if on_dla else ""),
    )


def read_plan(pack: Pack, plan: StoredPlan) -> bytes:
    """Read a plan after checking its signature (if required), the hash of its model and its own hash.

    Raises:
        PlanError: a check failed or the file cannot be read; the advice has the command that rebuilds it.
        SignatureError: a signature is required, and `cryptography` is not installed.
    """
    sidecar = plan.sidecar
    again = rebuild_advice(pack, sidecar)
    reason = signature_error(pack, plan) or model_mismatch(pack, plan)
    if reason:
        raise PlanError(f"{plan.path} is not to be loaded: {reason}.", again)
    try:
        data = read_regular_file(plan.path, sidecar.plan_bytes)
    except OSError as error:
        raise PlanError(f"{plan.path} cannot be read ({error.strerror or error}).", again) from error
    if hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:
        raise PlanError(f"{plan.path} is not the plan that its sidecar names.", again)
    return data


def build_command(pack: Pack, flavour: str, precision: str = "", *settings: str) -> str:
    """Command line that builds such plans; without `precision`, those of all precisions."""
    parts = [
        "stenosis-trt build",
        shlex.quote(str(pack.path)),
        f"--flavour {flavour}" if flavour else "",
        f"--precision {precision}" if precision else "",
        *settings,
        "--signing-key KEY" if pack.trust is not None else "",
    ]
    return " ".join(filter(None, parts))


def build_advice(pack: Pack, here: RuntimeTarget, precision: str, *settings: str) -> str:
    """Advice for a GPU without a plan: the build command, or which flavour to install."""
    flavour = FLAVOURS[here.flavour]
    if flavour.builds_without_gpu and not flavour.runs_on(here.compute_capability):
        if here.compute_capability not in flavour.targets:
            return (
                f"{here.flavour} does not run on this GPU: install TensorRT ({FLAVOURS['tensorrt'].install})."
            )
        settings = (*settings, f"--compute-capability {format_capability(here.compute_capability)}")
    return f"Build it: {build_command(pack, here.flavour, precision, *settings)}"


def rebuild_advice(pack: Pack, sidecar: Sidecar) -> str:
    """Advice with the command that rebuilds a plan with its settings, and on which GPU."""
    where = f" on a machine with {sidecar.gpu_name}" if sidecar.gpu_name else ""
    model = f"--model {sidecar.model}"
    command = build_command(pack, sidecar.flavour, sidecar.precision, model, *sidecar.settings)
    return f"Build it again{where}: {command}"


def target_name(settings: BuildSettings, gpu: Gpu | None) -> str:
    """Target in the folder name of a plan: "any", "sm86+sm89", "sm87-orin", "sm80up-orin-dla0".

    It contains the GPU that the plan was built on, so that machines that share a pack can have their own.
    """
    target = "+".join(f"sm{major}{minor}" for major, minor in settings.compute_capabilities) or "any"
    if gpu is not None:
        kind = "sm{}{}".format(*gpu.compute_capability)
        target = "sm80up" if settings.hardware_compatible == "ampere-plus" else kind
        name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
        target += f"-{name.removeprefix('nvidia-')}"
    return target if settings.dla_core is None else f"{target}-dla{settings.dla_core}"


def _read_stored_plan(path: Path) -> StoredPlan:
    """Read the sidecar of a plan and its signature.

    Raises:
        ValueError: there is no sidecar, or it belongs to another plan; the message says which.
    """
    place = path.with_suffix(".json")
    try:
        written = read_regular_file(place, _MAX_SIDECAR_BYTES)
        signature = _signature(place)
        if len(written) > _MAX_SIDECAR_BYTES:
            raise ValueError("the sidecar is too large")
        sidecar = Sidecar.parse(written.decode())
    except FileNotFoundError as error:
        raise ValueError("it has no sidecar: its build was interrupted, or someone removed it") from error
    except OSError as error:
        raise ValueError(f"the sidecar cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the sidecar cannot be read ({type(error).__name__})") from error
    if sidecar.model != path.stem or sidecar.model not in MODEL_NAMES or sidecar.precision not in PRECISIONS:
        raise ValueError(f"the sidecar is one of {sidecar.model} in {sidecar.precision}")
    if sidecar.flavour not in FLAVOURS:
        raise ValueError(f"the sidecar names an unknown flavour of TensorRT, {sidecar.flavour}")
    return StoredPlan(path, sidecar, written, signature)


def _signature(sidecar: Path) -> bytes | None:
    """Read the signature of a sidecar; None if there is none."""
    try:
        return read_regular_file(signature_path(sidecar), MAXIMUM_SIGNATURE_BYTES)
    except FileNotFoundError:
        return None


def _write_sidecar(path: Path, sidecar: Sidecar, key: PrivateKey | None) -> StoredPlan:
    """Write the sidecar of a plan after removing an old signature."""
    file = path.with_suffix(".json")
    signature_path(file).unlink(missing_ok=True)
    plan = StoredPlan(path, sidecar, sidecar.text().encode())
    write_bytes_atomically(file, plan.sidecar_bytes)
    return plan if key is None else sign_plan(plan, key)


def _rank(sidecar: Sidecar, here: RuntimeTarget) -> tuple[bool, bool, int]:
    """Sort key of plans: lower is more specific to the machine."""
    foreign = sidecar.gpu_name is not None and sidecar.gpu_name != here.gpu_name
    return foreign, sidecar.newer_than is not None, len(sidecar.compute_capabilities)
