"""What a run on a CPU takes: the fastest that passed here, what was asked for, or one sentence why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cpu_tables import OPENVINO_BF16, ORT_FP32, everything, table
from gpu_backend import grading
from made_study import made_study
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.cpu import choice
from stenosis_trt.engine.backends.cpu import table as cpu_table
from stenosis_trt.engine.backends.cpu.candidates import default_choices
from stenosis_trt.engine.backends.cpu.choice import choose_models, has_openvino
from stenosis_trt.engine.backends.cpu.table import CpuTable, Machine, this_machine, write_table
from stenosis_trt.engine.backends.selection import choose_backend, open_backend
from stenosis_trt.engine.errors import DeviceError, PackError, StenosisError
from stenosis_trt.engine.packs.models import ModelVariant
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.runs.provenance import result_fingerprint

BFLOAT16 = replace(this_machine(), features=("avx512_bf16",))


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    monkeypatch.setattr(cpu_table, "cache_folder", lambda: tmp_path / "cache")
    return write_tiny_pack(tmp_path / "pack")


def _on(monkeypatch: pytest.MonkeyPatch, machine: Machine, openvino: bool = True) -> None:
    monkeypatch.setattr(choice, "this_machine", lambda threads: machine)
    monkeypatch.setattr(choice, "has_openvino", lambda: openvino)


def _with_table(pack: Pack, monkeypatch: pytest.MonkeyPatch, made: CpuTable) -> None:
    _on(monkeypatch, made.machine)
    write_table(pack, made)


def test_without_a_table_everything_runs_in_fp32_by_onnx_runtime(pack: Pack) -> None:
    chosen = choose_models(pack, "auto", threads=2)
    assert (chosen.precision, chosen.runtime, chosen.reason) == ("fp32", "onnxruntime", "")
    assert chosen.models == default_choices(pack, 2)


def test_auto_takes_what_passed_for_each_model(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = everything(OPENVINO_BF16, levels=ORT_FP32)
    _with_table(pack, monkeypatch, table(pack, auto, machine=BFLOAT16))
    chosen = choose_models(pack, "auto")
    assert (chosen.precision, chosen.runtime, chosen.models) == ("mixed", "openvino", auto)
    assert "levels by ONNX Runtime fp32, grader and cord by OpenVINO bf16" in chosen.reason
    assert choose_models(pack, "bf16").models == everything(OPENVINO_BF16)
    assert choose_models(pack, "fp32").runtime == "onnxruntime"


@pytest.mark.parametrize(
    ("features", "openvino", "has_table", "gate", "error", "words"),
    [
        (("avx2",), True, True, True, DeviceError, "This processor has no instructions for bfloat16. Grade"),
        (("avx512_bf16",), False, False, True, DeviceError, "needs OpenVINO, which is not installed. I"),
        (("avx512_bf16",), True, False, True, DeviceError, "was not checked against FP32 on this machine. M"),
        (("avx512_bf16",), True, True, False, PackError, "did not pass the gate in bfloat16 on this machine"),
    ],
)
def test_bfloat16_that_cannot_be_used_is_refused_and_never_becomes_fp32(
    pack: Pack,
    monkeypatch: pytest.MonkeyPatch,
    features: tuple[str, ...],
    openvino: bool,
    has_table: bool,
    gate: bool,
    error: type[StenosisError],
    words: str,
) -> None:
    here = replace(this_machine(), features=features)
    if has_table:
        write_table(pack, table(pack, bf16_gate={"passed": gate}, machine=here))
    _on(monkeypatch, here, openvino)
    with pytest.raises(error, match=words) as caught:
        choose_backend("cpu", pack, "bf16")
    assert caught.value.advice


def test_a_stale_table_is_named_with_its_reason(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    old = replace(BFLOAT16, versions={**BFLOAT16.versions, "openvino": "1.0"})
    path = write_table(pack, table(pack, machine=old))
    _on(monkeypatch, BFLOAT16)
    with pytest.raises(DeviceError, match=r"is not used: it was made with openvino 1\.0") as caught:
        choose_models(pack, "bf16")
    assert caught.value.advice.endswith(f"stenosis-trt build {pack.path} --device cpu")
    advice = choose_models(pack, "auto").advice
    assert advice.startswith(f"{path} is not used: it was made with openvino 1.0")


@pytest.mark.parametrize(
    ("features", "openvino", "words"),
    [
        ((), False, ""),
        ((), True, "This CPU may grade faster; measure it: stenosis-trt build"),
        (("avx512_bf16",), False, "may grade faster with OpenVINO (pip install 'stenosis-trt[cpu-fast]')"),
    ],
)
def test_measuring_is_advised_only_where_it_may_help(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], openvino: bool, words: str
) -> None:
    _on(monkeypatch, replace(this_machine(), features=features), openvino)
    advice = choose_models(pack, "auto").advice
    assert words in advice
    assert bool(advice) == bool(words)
    assert choose_models(pack, "fp32").advice == ""


def test_bf16_is_no_precision_of_gpus(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="bf16 is a precision of CPUs, not of GPUs"):
        choose_backend("gpu", pack, "bf16")
    _with_table(pack, monkeypatch, table(pack, machine=BFLOAT16))
    found = choose_backend("auto", pack, "bf16")
    assert (found.backend, found.precision) == ("openvino", "bf16")


def test_an_unknown_precision_names_those_that_there_are(pack: Pack) -> None:
    with pytest.raises(PackError, match=r"no precision 'fp8'. Give one of auto, fp32, fp16, int8, bf16"):
        choose_backend("cpu", pack, "fp8")


def test_int8_without_a_table_runs_by_onnx_runtime(pack: Pack) -> None:
    """The variant is the model itself: nothing but its name is looked at here."""
    models = {
        name: replace(
            model, variants={"int8": ModelVariant(model.file, model.sha256, {}, {"passed": name != "cord"})}
        )
        for name, model in pack.models.items()
    }
    with pytest.raises(PackError, match="did not pass the gate"):
        choose_models(replace(pack, models=models), "int8")
    models["cord"] = replace(models["cord"], variants=models["levels"].variants)
    chosen = choose_models(replace(pack, models=models), "int8", threads=1)
    assert {str(item.arithmetic) for item in chosen.models.values()} == {"ONNX Runtime int8"}


def test_runs_of_another_arithmetic_of_one_model_share_no_output_folder(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprints = []
    for auto in (everything(OPENVINO_BF16), everything(OPENVINO_BF16, levels=ORT_FP32), everything()):
        _with_table(pack, monkeypatch, table(pack, auto, machine=BFLOAT16))
        found = choose_backend("cpu", pack, "auto")
        prints = result_fingerprint(pack, found.fingerprint_fields, found.precision, False, False)
        fingerprints.append(json.dumps(prints))
    assert len(set(fingerprints)) == 3
    assert '"openvino": "' in fingerprints[0]
    assert '"openvino"' not in fingerprints[2]


def test_the_backend_runs_what_the_table_says(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_openvino():
        pytest.skip("needs OpenVINO")
    _with_table(pack, monkeypatch, table(pack, everything(OPENVINO_BF16), machine=BFLOAT16))
    backend, decision = open_backend(pack, "cpu", "auto", 1)
    assert (backend.name, decision.backend, decision.precision) == ("openvino", "openvino", "bf16")
    assert decision.details["models_run_by"]["cord"]["floats"] == "bf16"
    assert backend.load(made_study()).grade(grading(made_study(), pack)).result().probabilities.shape == (
        1,
        4,
    )
    backend.close()
