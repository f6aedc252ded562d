"""The gate on plans: a GPU's grades compared with those of the FP32 models on the CPU.

It needs neither PyTorch, ModelOpt nor the package onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from stenosis_trt.export.precision.gate_result import Computation, GateLimits, GateResult
from stenosis_trt.export.precision.shares import stored_int8_share, with_int8_share
from stenosis_trt.export.precision.studies import Studies


@dataclass(frozen=True)
class PlanGate:
    """Result of the gate for the plans of one precision.

    Attributes:
        outcome: the result; None if there is no plan of each model that can be loaded here.
        plans: the plans.
        reason: why there is no result.
    """

    outcome: GateResult | None
    plans: ChosenPlans | None = None
    reason: str = ""


def measure_plans(
    pack: Pack,
    precisions: Sequence[str],
    studies: Studies,
    limits: GateLimits | None = None,
    options: GpuOptions | None = None,
) -> Iterator[tuple[str, PlanGate]]:
    """Grade studies with the plans of each precision on this machine's GPU, and compare with FP32 on the CPU.

    Yields:
        Each precision and its result.

    Raises:
        CudaError: there is no GPU, or it cannot be used.
        TensorRTError: TensorRT is not installed, or a plan cannot be used.
        StudiesError, PackError: see `Gate.measure`.
    """
    gate = Gate.on(pack, studies, limits)
    options = options or GpuOptions()
    for precision in precisions:
        try:
            chosen = choose_plans(pack, precision, options)
        except PlanError as error:
            yield precision, PlanGate(None, reason=str(error))
            continue
        ready = pack.in_precision(precision)
        candidate = GateCandidate(ready, partial(TensorRtBackend, ready, chosen, options), _computed(chosen))
        outcome = gate.measure({precision: candidate}, f"Comparing plans of {precision} with FP32")[precision]
        yield precision, PlanGate(with_int8_share(outcome, stored_int8_share(pack)), chosen)


def record_outcome(found: PlanGate) -> tuple[str, ...]:
    """Record a result in the sidecars of its plans; returns the models whose sidecar is signed and was left.

    Raises:
        OSError: a sidecar cannot be written.
    """
    if found.outcome is None or found.plans is None:
        return ()
    outcome, target = found.outcome, found.plans.target
    signed = []
    for name, plan in found.plans.plans.items():
        if plan.signature is not None:
            signed.append(name)
            continue
        before: Mapping[str, Any] = plan.sidecar.measured or {}
        # A comparison of outputs may have been recorded, and failed.
        passed = outcome.passed and before.get("passed", True) is True
        record = {**before, "passed": passed, "gpu": target.gpu_name, "gate": outcome.to_dict()}
        record_measurement(plan, record)
    return tuple(signed)


def _computed(chosen: ChosenPlans) -> Computation:
    target = chosen.target
    plans = ", ".join(f"{name} {plan.sidecar.plan_sha256}" for name, plan in chosen.plans.items())
    return Computation(
        TensorRtBackend.name, f"plans of {target.flavour} {target.version} on {target.gpu_name}: {plans}", ()
    )
