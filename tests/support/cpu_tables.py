"""Tables of a CPU as `build --device cpu` would write them, without measuring anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stenosis_trt.engine.backends.cpu.candidates import BFLOAT16, OPENVINO, Arithmetic, Execution, ModelChoice
from stenosis_trt.engine.backends.cpu.table import (
    AUTO,
    BF16,
    FP32,
    CpuTable,
    Machine,
    PrecisionChoice,
    Timing,
    new_table,
    this_machine,
)
from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import Pack

ORT_FP32 = Arithmetic()
OPENVINO_BF16 = Arithmetic(OPENVINO, "fp32", BFLOAT16)
ONE_CORE = Execution(1, 1, 4)


def choice(arithmetic: Arithmetic = ORT_FP32) -> ModelChoice:
    """A model on one core."""
    return ModelChoice(arithmetic, ONE_CORE, ONE_CORE)


def everything(arithmetic: Arithmetic = ORT_FP32, **others: Arithmetic) -> dict[str, ModelChoice]:
    """All models in one arithmetic, but for some of them."""
    return {name: choice(others.get(name, arithmetic)) for name in MODEL_NAMES}


def table(
    pack: Pack,
    auto: Mapping[str, ModelChoice] | None = None,
    bf16_gate: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
) -> CpuTable:
    """A table with bfloat16 by OpenVINO, and that for "auto" unless another choice is given."""
    bf16 = everything(OPENVINO_BF16)
    gate = {"passed": True} if bf16_gate is None else bf16_gate
    choices = {
        FP32: PrecisionChoice(everything()),
        BF16: PrecisionChoice(bf16, gate),
        AUTO: PrecisionChoice(auto or bf16, {"passed": True}),
    }
    measured = {name: (Timing(ORT_FP32, ONE_CORE, 6, 10.0, 1.0),) for name in MODEL_NAMES}
    return new_table(pack, machine or this_machine(), choices, {}, measured)
