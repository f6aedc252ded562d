"""What the gate on plans records, and what it leaves: a record that failed keeps a plan from being loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shared_weights_pack import write_shared_pack
from signing_keys import write_pair

from stenosis_trt.engine.backends.gpu.options import ChosenPlans
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.sidecar import RuntimeTarget, Sidecar
from stenosis_trt.engine.plans.store import (
    find_plan,
    iter_readable_plans,
    load_blocker,
    model_files,
    sign_plan,
    spec_sha256,
    write_plan,
)
from stenosis_trt.export.precision.agreement import StudyPair, grading_agreement
from stenosis_trt.export.precision.gate_result import GateResult, LimitCheck
from stenosis_trt.export.precision.plan_gate import PlanGate, record_outcome

_HERE = RuntimeTarget("tensorrt", "10.3.0", "a GPU", (9, 0))
_GOOD = LimitCheck("ratio bias", 0.001, 0.002, False)
_BAD = LimitCheck("ratio bias", 0.003, 0.002, False)
_FEW = LimitCheck("levels compared", 12, 100, True)
_UNKNOWN = LimitCheck("lower bound of kappa", None, 0.98, True)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return write_shared_pack(tmp_path / "pack")


@pytest.fixture
def chosen(pack: Pack) -> ChosenPlans:
    """Plans of two models, which are empty files."""
    for model in ("levels", "cord"):
        sidecar = Sidecar(
            model=model,
            precision="int8",
            plan_sha256="0" * 64,
            plan_bytes=1,
            onnx_sha256=model_files(pack, model)["int8"].sha256,
            spec_sha256=spec_sha256(pack.models[model]),
            pack_sha256=pack.sha256,
            flavour="tensorrt",
            version="10.3.0",
            compute_capabilities=("9.0",),
            newer_than=None,
            gpu_name="a GPU",
            driver=None,
            batches=(1,),
            settings=(),
            version_compatible=False,
            hardware_compatible="",
            dla_core=None,
            layers={},
            build_seconds=1.0,
            built_with="a test",
            variant_gate=None,
        )
        write_plan(pack, "sm90", sidecar, b"x")
    return ChosenPlans(_HERE, {name: find_plan(pack, name, "int8", _HERE) for name in ("levels", "cord")})


def _gate(chosen: ChosenPlans, *checks: LimitCheck) -> PlanGate:
    figures = grading_agreement([StudyPair(None, None)])
    return PlanGate(GateResult("int8", "a study", figures, checks), chosen)


def test_a_result_is_recorded_beside_each_plan(pack: Pack, chosen: ChosenPlans) -> None:
    assert record_outcome(_gate(chosen, _GOOD)) == ()
    for plan in iter_readable_plans(pack):
        assert plan.sidecar.measured is not None
        assert plan.sidecar.measured["passed"] is True
        assert plan.sidecar.measured["gpu"] == "a GPU"
        assert plan.sidecar.measured["gate"]["validated_on"] == "a study"
        assert not load_blocker(pack, plan, _HERE)


def test_plans_that_fail_are_not_loaded_from_then_on(pack: Pack, chosen: ChosenPlans) -> None:
    record_outcome(_gate(chosen, _GOOD, _BAD))
    for plan in iter_readable_plans(pack):
        assert "its own answers differed too far" in load_blocker(pack, plan, _HERE)


def test_a_comparison_of_outputs_that_failed_is_not_forgotten(pack: Pack, chosen: ChosenPlans) -> None:
    plan = chosen.plans["cord"]
    failed = replace(plan, sidecar=replace(plan.sidecar, measured={"passed": False, "batches": []}))
    record_outcome(_gate(replace(chosen, plans={"cord": failed}), _GOOD))
    (found,) = (plan for plan in iter_readable_plans(pack) if plan.sidecar.model == "cord")
    assert found.sidecar.measured is not None
    assert found.sidecar.measured["passed"] is False
    assert found.sidecar.measured["batches"] == []


def test_a_signed_sidecar_is_left(pack: Pack, chosen: ChosenPlans) -> None:
    pair = write_pair(pack.path.parent)
    signed = {**chosen.plans, "levels": sign_plan(chosen.plans["levels"], pair.key)}
    assert record_outcome(_gate(replace(chosen, plans=signed), _GOOD)) == ("levels",)
    measured = {plan.sidecar.model: plan.sidecar.measured is not None for plan in iter_readable_plans(pack)}
    assert measured == {"cord": True, "levels": False}


def test_studies_that_show_too_little_decide_nothing(chosen: ChosenPlans) -> None:
    assert _gate(chosen, _GOOD, _FEW, _UNKNOWN).decides_nothing
    assert not _gate(chosen, _FEW, _BAD).decides_nothing
    assert not _gate(chosen, _GOOD).decides_nothing
