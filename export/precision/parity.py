"""Do a pack's files answer as its models in FP32 do, and its plans?

ONNX Runtime on the CPU is what everything is compared with. The gate says whether a precision grades alike;
this says whether a file or a plan is the network it is taken for, and how far its numbers are from FP32's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.packs.pack import PRECISIONS, Pack
from stenosis_trt.engine.plans.sidecar import RuntimeTarget
from stenosis_trt.engine.plans.store import StoredPlan, read_plan
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.engine.trt.api import TensorRT
from stenosis_trt.export.onnx.comparator import (
    OutputChange,
    onnx_runner,
    output_changes,
    plan_runner,
    run_inputs,
)
from stenosis_trt.export.precision.calibration import record_inputs
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16
from stenosis_trt.export.precision.studies import PhantomSet, loaded_studies, resolve_studies

PARITY_LIMITS: Mapping[str, float] = {"fp32": 60.0, "fp16": 40.0, "int8": 10.0}
"""Signal-to-noise ratio in dB that a file or plan of a precision has to reach: 0.1, 1 and 32 % of noise.

Another network, or one that lost its weights, has 0 dB or less. On the reference pack FP16 has 65 to 75 dB,
and INT8 15 to 56 even where it was calibrated on four inputs. The largest change says little: a peak that
INT8 all but loses on one slice of 28 makes it 0.4."""

_PHANTOMS = PhantomSet(2, 73)
_INPUTS = 32
"""Of each network, as many as the largest batch that plans are built for unless asked."""
_AT_ONCE = 8


@dataclass(frozen=True)
class ParityResult:
    """What comparing one file, or one plan in one of its batches, with the model in FP32 gave.

    Attributes:
        subject: the file as the pack names it, or the plan's path in the pack.
        batch: of the plan; None for a file.
        inputs: how many were compared.
        changes: one an output.
        limit: of `PARITY_LIMITS`.
    """

    subject: str
    batch: int | None
    inputs: int
    changes: tuple[OutputChange, ...]
    limit: float

    @property
    def passed(self) -> bool:
        """Whether every output keeps the limit; what is no number does not."""
        return bool(self.changes) and all(change.snr_db >= self.limit for change in self.changes)


def parity_inputs(pack: Pack, studies: Path | None) -> tuple[dict[str, Float32Array], str]:
    """Inputs of each network as the pipe cuts them, float32 (N ≤ 32, C, H, W), and what they were cut from.

    Args:
        pack: its own models find the levels and with them the regions.
        studies: a folder; None for phantoms.

    Raises:
        StudiesError: no study can be used, or a network was given nothing.
    """
    found = resolve_studies(studies, _PHANTOMS)
    return record_inputs(pack, loaded_studies(found, "Taking inputs"), _INPUTS), found.source


def compare_files(pack: Pack, inputs: Mapping[str, Float32Array]) -> Iterator[ParityResult]:
    """Each model's variants compared with the model, in ONNX Runtime on the CPU, FP16 rounded as on a GPU.

    Raises:
        ComparatorError: Polygraphy is missing, or a file cannot be compared.
    """
    for name, model in pack.models.items():
        some = inputs[name]
        expected = run_inputs(onnx_runner(pack.read_model(name)), some, _AT_ONCE)
        for precision in (item for item in PRECISIONS if item in model.variants):
            runner = onnx_runner(emulate_fp16(pack.read_variant(name, precision)))
            found = output_changes(expected, run_inputs(runner, some, _AT_ONCE))
            yield ParityResult(
                model.variants[precision].file, None, len(some), found, PARITY_LIMITS[precision]
            )


def compare_plan(
    pack: Pack, plan: StoredPlan, tensorrt: TensorRT, inputs: Float32Array
) -> Iterator[ParityResult]:
    """A plan on this machine's GPU in each of its batches, compared with its model in FP32 in ONNX Runtime.

    Args:
        pack: the pack of the plan.
        plan: one that may be loaded here.
        tensorrt: its flavour.
        inputs: of its model, float32 (N, C, H, W).

    Raises:
        ComparatorError: Polygraphy is missing or cannot run the plan.
        PlanError: the plan was changed.
        TensorRTError: the GPU does not take it.
    """
    sidecar = plan.sidecar
    subject = plan.path.relative_to(pack.path).as_posix()
    engine = tensorrt.deserialise(read_plan(pack, plan), sidecar.version_compatible)
    expected = run_inputs(onnx_runner(pack.read_model(sidecar.model)), inputs, _AT_ONCE)
    for profile, batch in enumerate(sidecar.batches):
        given = run_inputs(plan_runner(tensorrt, engine, profile), inputs, batch)
        yield ParityResult(
            subject, batch, len(inputs), output_changes(expected, given), PARITY_LIMITS[sidecar.precision]
        )


def parity_record(found: Sequence[ParityResult], source: str, here: RuntimeTarget) -> dict[str, Any]:
    """What a plan's sidecar keeps: whether every batch passed, on what, on which GPU, and the figures."""
    return {
        "passed": bool(found) and all(parity.passed for parity in found),
        "compared_on": source,
        "compared_with": "the model in FP32 in ONNX Runtime on the CPU",
        "gpu": here.gpu_name,
        "batches": [
            {
                "batch": parity.batch,
                "inputs": parity.inputs,
                "minimum_snr_db": parity.limit,
                "changes": [_data(change) for change in parity.changes],
            }
            for parity in found
        ],
        "versions": {name: package_version(name) for name in ("stenosis-trt", "onnxruntime", "polygraphy")},
    }


def parity_lines(parity: ParityResult) -> Iterator[str]:
    """What a person reads of it, a line an output."""
    batch = "" if parity.batch is None else f" in batches of {parity.batch}"
    for change in parity.changes:
        verdict = "ok" if change.snr_db >= parity.limit else "DIFFERS"
        yield (
            f"  {parity.subject}{batch}: {change.output} changes by {change.largest:.2g} at most and "
            f"{change.mean:.2g} in the mean on {parity.inputs} inputs, {change.snr_db:.1f} dB "
            f"(≥ {parity.limit:g})  {verdict}"
        )


def _data(change: OutputChange) -> dict[str, Any]:
    """With None for what is infinite or no number: JSON has neither."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in asdict(change).items()
    }
