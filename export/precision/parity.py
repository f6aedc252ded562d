"""Numerical parity of a pack's variants and plans with its FP32 models in ONNX Runtime on the CPU.

The gate compares grades; this compares raw outputs, and so tells whether a file or plan is the right network
and how far its values are from FP32.
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
"""Minimum signal-to-noise ratio in dB per precision, equal to 0.1, 1 and 32 % of noise.

A different network, or one that lost its weights, has 0 dB or less. On the reference pack FP16 has 65 to 75
dB and INT8 15 to 56 dB, even if calibrated on four inputs. The largest error is less useful: one peak that
INT8 loses on one of 28 slices makes it 0.4.
"""

_PHANTOMS = PhantomSet(2, 73)
_INPUTS = 32
"""Inputs per network; equals the largest default batch size of plans."""
_BATCH = 8


@dataclass(frozen=True)
class ParityResult:
    """Comparison of one file, or of one plan at one batch size, with the FP32 model.

    Attributes:
        subject: the file's name in the pack, or the plan's path within the pack.
        batch: batch size of the plan; None for a file.
        inputs: number of inputs compared.
        changes: one entry per output.
        limit: one of `PARITY_LIMITS`.
    """

    subject: str
    batch: int | None
    inputs: int
    changes: tuple[OutputChange, ...]
    limit: float

    @property
    def passed(self) -> bool:
        """True if every output reaches the limit; NaN does not."""
        return bool(self.changes) and all(change.snr_db >= self.limit for change in self.changes)


def parity_inputs(pack: Pack, studies: Path | None) -> tuple[dict[str, Float32Array], str]:
    """Record up to 32 inputs of each network, float32 (N, C, H, W); returns them with their source.

    Args:
        pack: its own models locate the levels and thereby the regions.
        studies: a folder; None for phantoms.

    Raises:
        StudiesError: no study can be used, or a network received no input.
    """
    found = resolve_studies(studies, _PHANTOMS)
    return record_inputs(pack, loaded_studies(found, "Taking inputs"), _INPUTS), found.source


def compare_files(pack: Pack, inputs: Mapping[str, Float32Array]) -> Iterator[ParityResult]:
    """Compare each model's variants with the model, in ONNX Runtime on the CPU with emulated FP16.

    Raises:
        ComparatorError: Polygraphy is not installed, or a file cannot be compared.
    """
    for name, model in pack.models.items():
        some = inputs[name]
        expected = run_inputs(onnx_runner(pack.read_model(name)), some, _BATCH)
        for precision in (item for item in PRECISIONS if item in model.variants):
            runner = onnx_runner(emulate_fp16(pack.read_variant(name, precision)))
            found = output_changes(expected, run_inputs(runner, some, _BATCH))
            yield ParityResult(
                model.variants[precision].file, None, len(some), found, PARITY_LIMITS[precision]
            )


def compare_plan(
    pack: Pack, plan: StoredPlan, tensorrt: TensorRT, inputs: Float32Array
) -> Iterator[ParityResult]:
    """Compare a plan on this machine's GPU, at each of its batch sizes, with its FP32 model in ONNX Runtime.

    Args:
        pack: the pack of the plan.
        plan: a plan that can be loaded here.
        tensorrt: the TensorRT flavour of the plan.
        inputs: of its model, float32 (N, C, H, W).

    Raises:
        ComparatorError: Polygraphy is not installed or cannot run the plan.
        PlanError: the plan was modified.
        TensorRTError: the GPU cannot load the plan.
    """
    sidecar = plan.sidecar
    subject = plan.path.relative_to(pack.path).as_posix()
    engine = tensorrt.deserialise(read_plan(pack, plan), sidecar.version_compatible)
    expected = run_inputs(onnx_runner(pack.read_model(sidecar.model)), inputs, _BATCH)
    for profile, batch in enumerate(sidecar.batches):
        given = run_inputs(plan_runner(tensorrt, engine, profile), inputs, batch)
        yield ParityResult(
            subject, batch, len(inputs), output_changes(expected, given), PARITY_LIMITS[sidecar.precision]
        )


def parity_record(found: Sequence[ParityResult], source: str, here: RuntimeTarget) -> dict[str, Any]:
    """Result of all batch sizes as JSON data for a plan's sidecar."""
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
                "changes": [_to_json(change) for change in parity.changes],
            }
            for parity in found
        ],
        "versions": {name: package_version(name) for name in ("stenosis-trt", "onnxruntime", "polygraphy")},
    }


def parity_lines(parity: ParityResult) -> Iterator[str]:
    """Report lines of a comparison, one per output."""
    batch = "" if parity.batch is None else f" in batches of {parity.batch}"
    for change in parity.changes:
        verdict = "ok" if change.snr_db >= parity.limit else "DIFFERS"
        yield (
            f"  {parity.subject}{batch}: {change.output} changes by {change.largest:.2g} at most and "
            f"{change.mean:.2g} in the mean on {parity.inputs} inputs, {change.snr_db:.1f} dB "
            f"(≥ {parity.limit:g})  {verdict}"
        )


def _to_json(change: OutputChange) -> dict[str, Any]:
    """Fields of an output change as JSON data, with None for values that are not finite."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in asdict(change).items()
    }
