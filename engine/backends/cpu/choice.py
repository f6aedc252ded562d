"""Choose the precision on a CPU, and how each model is run, from the table of this machine."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from stenosis_trt.engine.backends.cpu.candidates import (
    ONNX_RUNTIME,
    OPENVINO,
    Arithmetic,
    ModelChoice,
    default_choices,
)
from stenosis_trt.engine.backends.cpu.table import (
    AUTO,
    BF16,
    FP32,
    FoundTable,
    Machine,
    PrecisionChoice,
    find_table,
    is_bundled,
    this_machine,
)
from stenosis_trt.engine.errors import DeviceError, PackError
from stenosis_trt.engine.packs.pack import PRECISIONS, Pack
from stenosis_trt.engine.support.hardware import has_bfloat16

CPU_PRECISIONS = (*PRECISIONS, BF16)
"""Precisions that can be asked for on a CPU, besides "auto"."""

MIXED = "mixed"
"""Precision of a run whose models differ in it."""

INSTALL = "pip install 'stenosis-trt[cpu-fast]'"


@dataclass(frozen=True)
class CpuChoice:
    """How the models of a pack are run on the CPU.

    Attributes:
        precision: "fp32", "bf16", "fp16", "int8", or "mixed".
        models: by name.
        reason: in words, to follow the name of the backend; "" without a table.
        advice: how to get a faster choice, or "".
    """

    precision: str
    models: Mapping[str, ModelChoice]
    reason: str = ""
    advice: str = ""

    @property
    def runtime(self) -> str:
        """Runtime that names the backend: "openvino" if any model is run by it."""
        used = {choice.arithmetic.runtime for choice in self.models.values()}
        return OPENVINO if OPENVINO in used else ONNX_RUNTIME


def choose_models(pack: Pack, precision: str, threads: int | None = None) -> CpuChoice:
    """Choose how each model of a pack is run on this CPU.

    Args:
        pack: a loaded pack.
        precision: one of `CPU_PRECISIONS`, or "auto": the fastest that passed the gate on this machine, for
            each model; FP32 where nothing was measured.
        threads: cores to use; None for all that are available to this process.

    Raises:
        PackError: the pack has no such models, or they failed the gate.
        DeviceError: bfloat16 needs what this machine lacks, or was not measured and checked on it.
    """
    here = this_machine(threads)
    found = find_table(pack, here)
    choices = found.table.choices if found.table is not None else {}
    chosen = choices.get(precision)
    if precision == BF16:
        _check_bfloat16(pack, here, found)
    if chosen is not None and chosen.passed:
        names = {item.arithmetic.name for item in chosen.models.values()}
        common = names.pop() if len(names) == 1 else MIXED
        return CpuChoice(common, chosen.models, _in_words(chosen))
    given = FP32 if precision == AUTO else precision
    ready = pack.in_precision(given)
    advice = _advice(pack, here, found) if precision == AUTO else ""
    return CpuChoice(given, default_choices(ready, here.threads), advice=advice)


def has_openvino() -> bool:
    """True if OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def measure_command(pack: Pack) -> str:
    """Command line that measures the models of a pack on this CPU and writes the table."""
    path = "" if is_bundled(pack) else f" {shlex.quote(str(pack.path))}"
    signing = " --signing-key KEY" if pack.trust is not None else ""
    return f"stenosis-trt build{path} --device cpu{signing}"


def unused_reason(found: FoundTable) -> str:
    """Sentence that says why a table is not used; "" if there is none, or it is used."""
    return f"{found.path} is not used: it {found.reason}." if found.reason else ""


def _check_bfloat16(pack: Pack, here: Machine, found: FoundTable) -> None:
    """Raise an error unless the models passed the gate in bfloat16 on this machine."""
    if not has_bfloat16(here.features):
        raise DeviceError(
            "This processor has no instructions for bfloat16.", "Grade with --precision fp32, or int8."
        )
    if not has_openvino():
        raise DeviceError(
            "bfloat16 on a CPU needs OpenVINO, which is not installed.",
            f"Install it ({INSTALL}), then measure and check it: {measure_command(pack)}",
        )
    if found.table is None:
        reason = unused_reason(found) or "bfloat16 was not checked against FP32 on this machine."
        raise DeviceError(reason, f"Measure and check it: {measure_command(pack)}")
    chosen = found.table.choices.get(BF16)
    if chosen is None or not chosen.passed:
        raise PackError(
            f"The models of pack {pack.name} did not pass the gate in bfloat16 on this machine.",
            "Grade with --precision auto, which takes bfloat16 for the models that passed, or fp32.",
        )


def _advice(pack: Pack, here: Machine, found: FoundTable) -> str:
    """How to get a table, where one may make a difference."""
    if found.table is not None or not (has_openvino() or has_bfloat16(here.features)):
        return ""
    install = "" if has_openvino() else f" with OpenVINO ({INSTALL})"
    may = f"This CPU may grade faster{install}; measure it: {measure_command(pack)}"
    return " ".join(filter(None, (unused_reason(found), may)))


def _in_words(chosen: PrecisionChoice) -> str:
    by_way: dict[Arithmetic, list[str]] = {}
    for name, choice in chosen.models.items():
        by_way.setdefault(choice.arithmetic, []).append(name)
    if set(by_way) == {Arithmetic()}:
        return ""
    all_models = len(by_way) == 1
    ways = (f"{'all' if all_models else ' and '.join(names)} by {way}" for way, names in by_way.items())
    return f"the table of this machine says how its models run best: {', '.join(ways)}"
