"""Build plans and their sidecars from the ONNX files of a pack."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from stenosis_trt.engine.errors import PackError, PlanError, TensorRTError
from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import PRECISIONS, Pack
from stenosis_trt.engine.packs.signature import TrustedKeys
from stenosis_trt.engine.plans.sidecar import Sidecar
from stenosis_trt.engine.plans.store import (
    PLANS_FOLDER,
    ModelFile,
    StoredPlan,
    build_command,
    iter_readable_plans,
    model_files,
    read_model_file,
    read_plan,
    require_passed_gate,
    spec_sha256,
    stale_reason,
    target_name,
    write_plan,
)
from stenosis_trt.engine.plans.target import choose_flavour, select_gpu
from stenosis_trt.engine.support.hardware import Gpu, NvidiaDriver
from stenosis_trt.engine.support.progress import Progress
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.engine.trt.api import BuiltPlan, TensorRT, installed_flavours
from stenosis_trt.engine.trt.flavours import FLAVOURS, BuildSettings, format_capability
from stenosis_trt.engine.trt.network import ParsedNetwork
from stenosis_trt.kernels.binaries import cache_folder

ShowProgress = Callable[[str, str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class BuildRequest:
    """Which plans to build, and how.

    Attributes:
        flavour: name of the flavour; None to choose one that is installed and suits this machine.
        precisions, models: () for all that the pack has.
        settings: build settings of each plan.
        force: also rebuild existing plans.
        timing_cache: keep layer timings in the user's cache, one file per GPU and version of TensorRT.
        signing_key: to sign each plan's sidecar with; what is there and not signed with it is built again.

    Raises:
        ValueError: there is no such flavour, precision or model.
    """

    flavour: str | None = None
    precisions: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    settings: BuildSettings = field(default_factory=BuildSettings)
    force: bool = False
    timing_cache: bool = True
    signing_key: PrivateKey | None = None

    def __post_init__(self) -> None:
        chosen = () if self.flavour is None else (self.flavour,)
        for what, values, known in (
            ("flavour", chosen, tuple(FLAVOURS)),
            ("precision", self.precisions, PRECISIONS),
            ("model", self.models, MODEL_NAMES),
        ):
            for value in values:
                if value not in known:
                    raise ValueError(f"There is no {what} {value!r}. Give one of {', '.join(known)}.")


@dataclass(frozen=True)
class BuildOutcome:
    """Outcome for one plan: built or `already_present`; if `plan` is None, `reason` says why not."""

    model: str
    precision: str
    plan: StoredPlan | None
    already_present: bool = False
    reason: str = ""


def build_plans(
    pack: Pack, request: BuildRequest, driver: NvidiaDriver, show_progress: ShowProgress
) -> Iterator[BuildOutcome]:
    """Build the requested plans one after the other.

    Args:
        pack: pack to build from and write to.
        request: which plans to build.
        driver: NVIDIA driver and GPUs of this machine; plans are built for the first GPU.
        show_progress: see `stenosis_trt.engine.support.progress.show_progress`.

    Raises:
        TensorRTError: no flavour is installed, or it cannot build for this machine or with these settings.
        PackError: the pack is a zip or not writable, or lacks a requested precision; or it requires
            signatures and no key is given.
        KeyboardInterrupt: the user interrupted; plans that were built before remain.
    """
    _writable(pack)
    if pack.trust is not None and request.signing_key is None:
        raise PackError(
            f"Plans of {pack.path} are loaded only if they are signed, and there is no key to do that with.",
            f"Build them with one: {build_command(pack, request.flavour or '')}",
        )
    flavour = choose_flavour(request.flavour, installed_flavours(), driver)
    flavour.check(request.settings)
    gpu = select_gpu(flavour, request.settings, driver)
    wanted = _wanted(pack, request)
    tensorrt = TensorRT(flavour)
    there = () if request.force else tuple(iter_readable_plans(pack))
    # With a key, reuse only plans that it signed: signing an existing one would vouch for unknown content.
    mine = (
        pack
        if request.signing_key is None
        else replace(pack, trust=TrustedKeys((request.signing_key.public,)))
    )
    for model, precision, file in wanted:
        job = _Job(pack, model, precision, file, tensorrt, request, gpu, driver)
        known = next((plan for plan in there if job.matches(plan.sidecar) and _intact(mine, plan)), None)
        if known is not None:
            yield BuildOutcome(model, precision, known, already_present=True)
            continue
        try:
            with show_progress(f"Building {model} in {precision}", "percent") as progress:
                yield BuildOutcome(model, precision, job.run(progress))
        except (TensorRTError, PackError) as error:
            yield BuildOutcome(model, precision, None, reason=str(error))


def build_outcome_line(outcome: BuildOutcome) -> str:
    """Format the outcome for one plan as a line of text."""
    what = f"{outcome.model} {outcome.precision}"
    if outcome.plan is None:
        return f"{what}: not built. {outcome.reason}"
    sidecar = outcome.plan.sidecar
    how = "there already" if outcome.already_present else f"built in {sidecar.build_seconds:.1f} s"
    return f"{what}: {how}, {sidecar.plan_bytes / 1e6:.1f} MB, {outcome.plan.path}"


def check_precision(precision: str, network: ParsedNetwork) -> None:
    """Check that the layer types of a parsed network agree with the precision that the pack declares.

    Raises:
        TensorRTError: a file declared FP32 or FP16 is of another precision, one declared INT8 quantises
            nothing, or an input or output is not FP32.
    """
    layers = network.layer_counts
    quantises = any(name.endswith("quantize") for name in layers)
    halves = any(name.endswith(" float16") for name in layers)
    computes_int8 = any(name.endswith(" int8") for name in layers)
    wrong = {
        "fp32": "quantises or computes in FP16" if quantises or halves else "",
        "fp16": "quantises" if quantises else "" if halves else "computes nothing in FP16",
        "int8": "" if quantises and computes_int8 else "quantises nothing",
    }[precision]
    if wrong:
        raise TensorRTError(
            f"The file that the pack calls {precision} {wrong}, by what TensorRT parsed: {dict(layers)}.",
            "Export the pack again.",
        )
    for name, kind in {**network.inputs, **network.outputs}.items():
        if kind != "float32":
            raise TensorRTError(
                f"The tensor {name} of the file that the pack calls {precision} is {kind}, not float32.",
                "Export the pack again: inputs and outputs are FP32 in every precision.",
            )


@dataclass(frozen=True)
class _Job:
    """Build of one plan."""

    pack: Pack
    model: str
    precision: str
    file: ModelFile
    tensorrt: TensorRT
    request: BuildRequest
    gpu: Gpu | None
    driver: NvidiaDriver

    def matches(self, sidecar: Sidecar) -> bool:
        """True if a plan is what this job would build."""
        return (
            (sidecar.model, sidecar.precision, sidecar.onnx_sha256)
            == (self.model, self.precision, self.file.sha256)
            and sidecar.spec_sha256 == spec_sha256(self.pack.models[self.model])
            and (sidecar.flavour, sidecar.version) == (self.tensorrt.flavour.name, self.tensorrt.version)
            and sidecar.gpu_name == (self.gpu.name if self.gpu else None)
            and sidecar.settings == tuple(self.request.settings.command_options())
        )

    def run(self, progress: Progress) -> StoredPlan:
        """Build the plan and write it to the pack."""
        spec = self.pack.models[self.model]
        require_passed_gate(self.pack, self.file)
        data = read_model_file(self.pack, self.model, self.file)
        check_precision(self.precision, self.tensorrt.parse_network(data))
        if self.request.settings.dla_core is not None and self.precision == "fp32":
            raise TensorRTError("A DLA does not compute in FP32.", "Give --precision fp16 or int8.")
        built = self.tensorrt.build(
            data, spec.input_shape, self.request.settings, self._timing_cache(), progress.advance
        )
        target = target_name(self.request.settings, self.gpu)
        try:
            return write_plan(self.pack, target, self._sidecar(built), built.data, self.request.signing_key)
        except OSError as error:
            raise PackError(
                f"The plan cannot be written to {self.pack.path} ({error.strerror}).",
                f"It has {len(built.data)} bytes: check the free space.",
            ) from error

    def _timing_cache(self) -> Path | None:
        if not self.request.timing_cache or self.gpu is None:
            return None
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self.gpu.name)
        major, minor = self.gpu.compute_capability
        name = f"{self.tensorrt.flavour.name}-{self.tensorrt.version}-sm{major}{minor}-{gpu}.cache"
        return cache_folder() / "timing" / name

    def _sidecar(self, built: BuiltPlan) -> Sidecar:
        settings, flavour = self.request.settings, self.tensorrt.flavour
        ahead = settings.compute_capabilities or flavour.default_targets
        targets = ahead if self.gpu is None else (self.gpu.compute_capability,)
        newer = None if settings.compute_capabilities else flavour.newer_than
        cuda = self.driver.cuda_version if self.gpu else None
        return Sidecar(
            model=self.model,
            precision=self.precision,
            plan_sha256=hashlib.sha256(built.data).hexdigest(),
            plan_bytes=len(built.data),
            onnx_sha256=self.file.sha256,
            spec_sha256=spec_sha256(self.pack.models[self.model]),
            pack_sha256=self.pack.sha256,
            flavour=flavour.name,
            version=self.tensorrt.version,
            compute_capabilities=tuple(map(format_capability, targets)),
            newer_than=format_capability(newer) if newer else None,
            gpu_name=self.gpu.name if self.gpu else None,
            driver="CUDA {}.{}".format(*cuda) if cuda else None,
            batches=settings.batches,
            settings=tuple(settings.command_options()),
            version_compatible=settings.version_compatible,
            hardware_compatible=settings.hardware_compatible,
            dla_core=settings.dla_core,
            layers=dict(built.layers),
            build_seconds=round(built.seconds, 2),
            built_with=f"stenosis-trt {package_version('stenosis-trt')}",
            variant_gate=self.file.gate,
        )


def _intact(pack: Pack, plan: StoredPlan) -> bool:
    if stale_reason(pack, plan):
        return False
    try:
        read_plan(pack, plan)
    except PlanError:
        return False
    return True


def _writable(pack: Pack) -> None:
    place = pack.path.resolve()
    if not place.is_dir():
        raise PackError(
            f"{pack.path} is a zip, and plans go into a pack's folder.",
            f"Unpack it and give the folder: python -m zipfile -e {pack.path} {pack.path.with_suffix('')}",
        )
    existing = place / PLANS_FOLDER if (place / PLANS_FOLDER).is_dir() else place
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PackError(
            f"{existing} cannot be written to.",
            f"Copy the pack to a writable folder and use the copy: cp -r {place} .",
        )


def _wanted(pack: Pack, request: BuildRequest) -> list[tuple[str, str, ModelFile]]:
    """(model, precision, file) of each requested plan that the pack has a file for."""
    have = {name: model_files(pack, name) for name in request.models or MODEL_NAMES}
    there = [precision for precision in PRECISIONS if any(precision in files for files in have.values())]
    for precision in request.precisions:
        if precision not in there:
            raise PackError(
                f"The pack {pack.path} has no {' or '.join(have)} in {precision}.",
                f"It has {', '.join(there)}: give one of these, or export a pack with {precision}.",
            )
    return [
        (name, precision, files[precision])
        for precision in request.precisions or there
        for name, files in have.items()
        if precision in files
    ]
