"""The gate on plans: a GPU's grades compared with those of the FP32 models on the CPU.

It needs neither PyTorch, ModelOpt nor the package onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from stenosis_trt.engine.backends.gpu.choice import choose_plans
from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.errors import PlanError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.store import record_measurement
from stenosis_trt.export.precision.gate import Gate, GateCandidate
from stenosis_trt.export.precision.gate_result import SAMPLE_SIZE_CHECKS, Computation, GateLimits, GateResult
from stenosis_trt.export.precision.shares import stored_int8_share, with_int8_share
from stenosis_trt.export.precision.studies import Studies


@dataclass(frozen=True)
class PlanGate:
    """Result of the gate for the plans of one precision.

    Attributes:
        outcome: the result.
        chosen: the plans.
    """

    outcome: GateResult
    chosen: ChosenPlans

    @property
    def decides_nothing(self) -> bool:
        """True if it failed only because the studies were too few or did not show a figure."""
        failures = self.outcome.failures
        lacking = all(check.value is None or check.figure in SAMPLE_SIZE_CHECKS for check in failures)
        return bool(failures) and lacking


def find_plans(pack: Pack, precisions: Sequence[str] = ()) -> dict[str, ChosenPlans]:
    """Find the plans of each precision for this machine's GPU.

    Args:
        pack: the pack.
        precisions: the precisions; none for all that have a plan of each model.

    Raises:
        CudaError: there is no GPU, or it cannot be used.
        TensorRTError: TensorRT is not installed, or plans are missing.
        PackError: the pack has no such precision.
    """
    if precisions:
        for precision in precisions:
            pack.in_precision(precision)
        return {precision: choose_plans(pack, precision, GpuOptions()) for precision in precisions}
    found = {}
    for precision in pack.precisions:
        with suppress(PlanError):
            found[precision] = choose_plans(pack, precision, GpuOptions())
    if not found:
        # Says what is missing.
        choose_plans(pack, pack.precisions[0], GpuOptions())
    return found


def measure_plans(
    pack: Pack, chosen: Mapping[str, ChosenPlans], studies: Studies, limits: GateLimits | None = None
) -> Iterator[PlanGate]:
    """Grade studies with plans on this machine's GPU, and compare with FP32 on the CPU.

    Args:
        pack: the pack.
        chosen: its plans by precision.
        studies: the studies.
        limits: None for the defaults.

    Raises:
        CudaError: the GPU cannot be used.
        TensorRTError: a plan cannot be used.
        StudiesError, PackError: see `Gate.measure`.
    """
    gate = Gate.on(pack, studies, limits)
    for precision, plans in chosen.items():
        ready = pack.in_precision(precision)
        candidate = GateCandidate(ready, partial(TensorRtBackend, ready, plans), _computed(plans))
        outcome = gate.measure({precision: candidate}, f"Comparing plans of {precision} with FP32")[precision]
        yield PlanGate(with_int8_share(outcome, stored_int8_share(pack)), plans)


def record_outcome(found: PlanGate) -> tuple[str, ...]:
    """Record a result in the sidecars of its plans; returns the models whose sidecar is signed and was left.

    Raises:
        OSError: a sidecar cannot be written.
    """
    signed = []
    for name, plan in found.chosen.plans.items():
        if plan.signature is not None:
            signed.append(name)
            continue
        # A comparison of outputs (verify --parity) may have been recorded.
        before: Mapping[str, Any] = plan.sidecar.measured or {}
        record_measurement(
            plan,
            {
                **before,
                "passed": found.outcome.passed and before.get("passed", True) is True,
                "gpu": found.chosen.target.gpu_name,
                "gate": found.outcome.to_dict(),
            },
        )
    return tuple(signed)


def _computed(chosen: ChosenPlans) -> Computation:
    target = chosen.target
    plans = ", ".join(f"{name} {plan.sidecar.plan_sha256}" for name, plan in chosen.plans.items())
    return Computation(
        TensorRtBackend.name, f"plans of {target.flavour} {target.version} on {target.gpu_name}: {plans}", ()
    )
