"""Which backend and precision a run takes where "auto" leaves them open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stenosis_trt.engine.backends import selection
from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.backends.selection import choose_backend
from stenosis_trt.engine.errors import PlanError
from stenosis_trt.engine.packs.models import ModelVariant
from stenosis_trt.engine.packs.pack import Pack, open_pack
from stenosis_trt.engine.plans.sidecar import RuntimeTarget

TARGET = RuntimeTarget("tensorrt", "10.3.0", "NVIDIA Test", (8, 7))


def _pack(passed: bool) -> Pack:
    """The reference pack with an FP16 variant of each model, which did or did not pass its gate."""
    pack = open_pack()
    variant = ModelVariant("model.fp16.onnx", "0" * 64, {}, {"passed": passed})
    return replace(
        pack, models={name: replace(model, variants={"fp16": variant}) for name, model in pack.models.items()}
    )


def _plans(monkeypatch: pytest.MonkeyPatch, *precisions: str) -> list[tuple[str, bool]]:
    """Let there be plans in these precisions; returns what is asked for: precision, and whether to build."""
    asked = []

    def choose_plans(pack: Pack, precision: str, options: GpuOptions) -> ChosenPlans:
        asked.append((precision, options.build_missing_plans))
        if precision not in precisions and not options.build_missing_plans:
            raise PlanError("There is no plan.", "Build one.")
        return ChosenPlans(TARGET)

    monkeypatch.setattr(selection, "choose_plans", choose_plans)
    return asked


def test_auto_takes_fp16_where_the_pack_has_it_and_plans_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    _plans(monkeypatch, "fp16", "fp32")
    choice = choose_backend("auto", _pack(passed=True), "auto")
    assert (choice.backend, choice.precision) == ("tensorrt", "fp16")


def test_auto_takes_fp32_where_there_are_no_fp16_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _plans(monkeypatch, "fp32")
    choice = choose_backend("gpu", _pack(passed=True), "auto")
    assert (choice.backend, choice.precision) == ("tensorrt", "fp32")
    assert [precision for precision, _ in asked] == ["fp16", "fp32"]


def test_auto_never_takes_what_did_not_pass_its_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _plans(monkeypatch, "fp16", "fp32")
    assert choose_backend("auto", _pack(passed=False), "auto").precision == "fp32"
    pack = open_pack()
    without = replace(pack, models={name: replace(model, variants={}) for name, model in pack.models.items()})
    assert choose_backend("auto", without, "auto").precision == "fp32"
    assert {precision for precision, _ in asked} == {"fp32"}


def test_auto_builds_plans_of_fp32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _plans(monkeypatch)
    choice = choose_backend("gpu", _pack(passed=True), "auto", GpuOptions(build_missing_plans=True))
    assert choice.precision == "fp32"
    assert asked == [("fp16", False), ("fp32", True)]


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_auto_is_fp32_on_a_cpu(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    _plans(monkeypatch)
    choice = choose_backend(device, _pack(passed=True), "auto")
    assert (choice.backend, choice.precision) == ("onnxruntime", "fp32")


def test_a_given_precision_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _plans(monkeypatch, "fp16")
    assert choose_backend("gpu", _pack(passed=True), "fp16").precision == "fp16"
    assert choose_backend("cpu", _pack(passed=True), "fp16").precision == "fp16"
