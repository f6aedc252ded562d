"""Ways to run a model on a CPU: what computes it, and how its inputs are spread over the cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.json_schema import STRICT_CONFIG

ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
RUNTIME_NAMES: Mapping[str, str] = {ONNX_RUNTIME: "ONNX Runtime", OPENVINO: "OpenVINO"}
"""Names of the runtimes in messages."""

FLOAT32, BFLOAT16 = "f32", "bf16"

_MAX_PART = 4
"""Inputs per call without a measured table. On two Zen 4 cores 2 to 8 differ by less than their noise."""
_FEW_CORES = 4
"""Up to so many cores each runs calls of its own, where no table says otherwise."""


@dataclass(frozen=True)
class Arithmetic:
    """What decides the values that a model returns.

    Attributes:
        runtime: "onnxruntime" or "openvino".
        precision: precision of the pack's file: "fp32", "fp16" or "int8".
        floats: type of what the file leaves in floating point: "f32", or "bf16" (OpenVINO).
    """

    runtime: str = ONNX_RUNTIME
    precision: str = "fp32"
    floats: str = FLOAT32

    __pydantic_config__ = STRICT_CONFIG

    @property
    def name(self) -> str:
        """Precision as `--precision` calls it: "bf16" for an FP32 file that is computed in bfloat16."""
        return "bf16" if (self.precision, self.floats) == ("fp32", BFLOAT16) else self.precision

    def __str__(self) -> str:
        around = f" with {self.floats}" if self.floats == BFLOAT16 and self.name != "bf16" else ""
        return f"{RUNTIME_NAMES[self.runtime]} {self.name}{around}"


@dataclass(frozen=True)
class Execution:
    """How a batch is spread over the cores.

    Attributes:
        streams: calls that run at the same time.
        threads: threads of each call.
        part: largest number of inputs of a call.
    """

    streams: int
    threads: int
    part: int

    __pydantic_config__ = STRICT_CONFIG

    def __post_init__(self) -> None:
        if min(self.streams, self.threads, self.part) < 1:
            raise ValueError(f"streams, threads and part must be at least 1, not {self}")


@dataclass(frozen=True)
class ModelChoice:
    """How one model is run.

    Attributes:
        arithmetic: what computes it.
        single: for fewer inputs than `several` has streams.
        several: for more.
    """

    arithmetic: Arithmetic
    single: Execution
    several: Execution

    __pydantic_config__ = STRICT_CONFIG

    def execution(self, count: int) -> Execution:
        """How a batch of `count` inputs is run."""
        return self.several if count >= max(2, self.several.streams) else self.single


def default_choice(precision: str, threads: int) -> ModelChoice:
    """How a model is run where nothing was measured: by ONNX Runtime."""
    single = Execution(1, threads, _MAX_PART)
    several = Execution(threads, 1, _MAX_PART) if threads <= _FEW_CORES else Execution(2, threads, _MAX_PART)
    return ModelChoice(Arithmetic(precision=precision), single, several)


def default_choices(pack: Pack, threads: int) -> dict[str, ModelChoice]:
    """`default_choice` for each model of a pack, in the precision of its file."""
    return {name: default_choice(model.precision, threads) for name, model in pack.models.items()}
