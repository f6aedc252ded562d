"""Plans in a pack: which may be loaded where, and why not. Their content is none: nothing loads it here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from typed_models import pack_with_variants

from stenosis_trt.engine.errors import PackError, PlanError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.sidecar import RuntimeTarget, Sidecar
from stenosis_trt.engine.plans.store import (
    StoredPlan,
    build_command,
    find_plan,
    iter_plans,
    iter_readable_plans,
    load_blocker,
    model_files,
    read_model_file,
    read_plan,
    record_measurement,
    spec_sha256,
    target_name,
    write_plan,
)
from stenosis_trt.engine.support.hardware import Gpu
from stenosis_trt.engine.trt.flavours import BuildSettings

DATA = b"what TensorRT made"
ADA = RuntimeTarget("tensorrt-rtx", "1.7.1.116", "NVIDIA RTX 4090", (8, 9))
ORIN = RuntimeTarget("tensorrt", "10.3.0", "Orin", (8, 7))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_with_variants(tmp_path_factory.mktemp("made") / "pack").path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Pack:
    return Pack.load(Path(shutil.copytree(made, tmp_path / "a pack")))


def _sidecar(pack: Pack, **changes: Any) -> Sidecar:
    """Of a plan of the grader in FP16, built ahead of time with TensorRT-RTX."""
    sidecar = Sidecar(
        model="grader",
        precision="fp16",
        plan_sha256=hashlib.sha256(DATA).hexdigest(),
        plan_bytes=len(DATA),
        onnx_sha256=model_files(pack, "grader")["fp16"].sha256,
        spec_sha256=spec_sha256(pack.models["grader"]),
        pack_sha256=pack.sha256,
        flavour="tensorrt-rtx",
        version="1.7.1.116",
        compute_capabilities=("8.0", "8.6", "8.9", "12.0", "12.1"),
        newer_than="12.0",
        gpu_name=None,
        driver=None,
        batches=(1, 8),
        settings=("--batch 1,8",),
        version_compatible=False,
        hardware_compatible="",
        dla_core=None,
        layers={"convolution float16": 1},
        build_seconds=1.5,
        built_with="stenosis-trt 0.1.0",
    )
    return replace(sidecar, **changes)


def _on_orin(pack: Pack, **changes: Any) -> Sidecar:
    orin: dict[str, Any] = {
        "flavour": "tensorrt",
        "version": "10.3.0",
        "compute_capabilities": ("8.7",),
        "newer_than": None,
        "gpu_name": "Orin",
        "driver": "CUDA 12.6",
    }
    return _sidecar(pack, **{**orin, **changes})


def test_a_plan_is_found_read_and_what_its_sidecar_said(pack: Pack) -> None:
    written = write_plan(pack, "any", _sidecar(pack), DATA)
    assert written.path == pack.path / "plans" / "tensorrt-rtx-1.7.1.116-any-fp16" / "grader.plan"
    found = find_plan(pack, "grader", "fp16", ADA)
    assert found == written
    assert found.sidecar == _sidecar(pack)
    assert read_plan(pack, found) == DATA


def test_without_a_plan_the_command_that_builds_one_is_given(pack: Pack) -> None:
    with pytest.raises(PlanError) as caught:
        find_plan(pack, "grader", "fp16", ADA)
    assert "no plan of grader in fp16 for NVIDIA RTX 4090" in caught.value.reason
    command = f"stenosis-trt build '{pack.path}' --flavour tensorrt-rtx --precision fp16"
    assert caught.value.advice == f"Build it: {command}"
    assert build_command(pack, "tensorrt-rtx", "fp16") == command


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (12, 1), (13, 0)])
def test_a_portable_plan_runs_on_what_it_lists_and_beyond(pack: Pack, capability: tuple[int, int]) -> None:
    assert _sidecar(pack).load_blocker(replace(ADA, compute_capability=capability)) == ""


@pytest.mark.parametrize("capability", [(7, 5), (8, 7), (9, 0), (11, 0)])
def test_a_portable_plan_does_not_run_elsewhere(pack: Pack, capability: tuple[int, int]) -> None:
    here = replace(ADA, compute_capability=capability)
    assert "runs on compute capability 8.0, 8.6, 8.9, 12.0, 12.1" in _sidecar(pack).load_blocker(here)


def test_a_gpu_that_the_flavour_never_runs_on_is_sent_to_the_other(pack: Pack) -> None:
    write_plan(pack, "any", _sidecar(pack), DATA)
    with pytest.raises(PlanError, match=r"does not run on this GPU: install TensorRT"):
        find_plan(pack, "grader", "fp16", replace(ADA, gpu_name="NVIDIA H200", compute_capability=(9, 0)))
    with pytest.raises(PlanError, match=r"--precision fp16 --compute-capability 7\.5"):
        find_plan(pack, "grader", "fp16", replace(ADA, gpu_name="NVIDIA T4", compute_capability=(7, 5)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "10.7.0"}, "it was built by tensorrt 10.3.0, and here is 10.7.0"),
        ({"compute_capability": (8, 6)}, "it runs on compute capability 8.7, and Orin has 8.6"),
        ({"gpu_name": "Orin Nano"}, "it was built on Orin for such GPUs, and here is Orin Nano"),
    ],
)
def test_a_foreign_plan_is_refused_with_what_differs(pack: Pack, change: dict[str, Any], reason: str) -> None:
    assert _on_orin(pack).load_blocker(ORIN) == ""
    assert _on_orin(pack).load_blocker(replace(ORIN, **change)) == reason
    write_plan(pack, "sm87", _on_orin(pack), DATA)
    with pytest.raises(PlanError) as caught:
        find_plan(pack, "grader", "fp16", replace(ORIN, **change))
    assert reason in caught.value.reason
    assert "stenosis-trt build" in caught.value.advice


def test_a_plan_of_the_other_flavour_is_passed_over(pack: Pack) -> None:
    write_plan(pack, "any", _sidecar(pack), DATA)
    with pytest.raises(
        PlanError, match=r"it is for tensorrt-rtx, not tensorrt.*--flavour tensorrt --precision"
    ):
        find_plan(pack, "grader", "fp16", ORIN)


def test_a_version_compatible_plan_runs_on_later_versions_only(pack: Pack) -> None:
    sidecar = _on_orin(pack, version_compatible=True)
    for version in ("10.3.0", "10.14.1", "11.4.1"):
        assert sidecar.load_blocker(replace(ORIN, version=version)) == ""
    assert sidecar.load_blocker(replace(ORIN, version="10.2.0")) != ""


def test_a_hardware_compatible_plan_runs_on_other_models(pack: Pack) -> None:
    same = _on_orin(pack, hardware_compatible="same-compute-capability")
    assert same.load_blocker(replace(ORIN, gpu_name="Orin Nano")) == ""
    assert same.load_blocker(replace(ORIN, compute_capability=(8, 9))) != ""
    ampere = _on_orin(pack, hardware_compatible="ampere-plus")
    assert ampere.load_blocker(replace(ORIN, gpu_name="Thor", compute_capability=(11, 0))) == ""
    assert ampere.load_blocker(replace(ORIN, gpu_name="Xavier", compute_capability=(7, 2))) != ""


def test_the_plan_that_was_timed_on_this_gpu_comes_before_one_for_many(pack: Pack) -> None:
    write_plan(pack, "sm80up", _on_orin(pack, gpu_name="NVIDIA A10", hardware_compatible="ampere-plus"), DATA)
    mine = write_plan(pack, "sm87", _on_orin(pack), DATA)
    assert find_plan(pack, "grader", "fp16", ORIN) == mine


def test_a_plan_for_this_kind_of_gpu_comes_before_one_for_all(pack: Pack) -> None:
    write_plan(pack, "any", _sidecar(pack), DATA)
    narrow = _sidecar(pack, compute_capabilities=("8.6", "8.9"), newer_than=None)
    mine = write_plan(pack, "sm86+sm89", narrow, DATA)
    assert find_plan(pack, "grader", "fp16", ADA) == mine


def test_a_plan_for_a_dla_is_taken_only_where_one_is_asked_for(pack: Pack) -> None:
    write_plan(pack, "sm87-dla0", _on_orin(pack, dla_core=0), DATA)
    with pytest.raises(PlanError, match="has no plan"):
        find_plan(pack, "grader", "fp16", ORIN)
    assert find_plan(pack, "grader", "fp16", ORIN, on_dla=True).sidecar.dla_core == 0


def test_a_changed_plan_is_not_read_and_the_command_repeats_its_settings(pack: Pack) -> None:
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    for content in (DATA[::-1], DATA + b"!", b""):
        plan.path.write_bytes(content)
        with pytest.raises(PlanError, match=r"is not the plan that its sidecar names.*--batch 1,8"):
            read_plan(pack, plan)
    plan.path.unlink()
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(pack, plan)


def test_a_plan_of_another_onnx_file_or_specification_is_stale(pack: Pack) -> None:
    write_plan(pack, "any", _sidecar(pack, onnx_sha256="0" * 64), DATA)
    with pytest.raises(PlanError, match=r"built from another grader\.fp16\.onnx"):
        find_plan(pack, "grader", "fp16", ADA)
    write_plan(pack, "any", _sidecar(pack, spec_sha256="0" * 64), DATA)
    with pytest.raises(PlanError, match="the input or output of grader"):
        find_plan(pack, "grader", "fp16", ADA)
    assert "any more" in load_blocker(pack, StoredPlan(Path("x"), _sidecar(pack, model="cord")), ADA)


def test_a_pack_that_only_got_another_precision_keeps_its_plans(pack: Pack) -> None:
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    content = json.loads((pack.path / MANIFEST).read_text(encoding="utf-8"))
    del content["models"]["grader"]["variants"]["int8"]
    (pack.path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    assert find_plan(Pack.load(pack.path), "grader", "fp16", ADA) == plan


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": 2}'])
def test_a_plan_without_a_sidecar_of_this_release_is_not_there(pack: Pack, text: str) -> None:
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    plan.path.with_suffix(".json").write_text(text)
    assert list(iter_readable_plans(pack)) == []


def test_a_plan_in_the_making_is_not_there(pack: Pack) -> None:
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    plan.path.with_suffix(".json").unlink()
    assert list(iter_readable_plans(pack)) == []
    again = write_plan(pack, "any", _sidecar(pack), DATA)
    again.path.unlink()
    assert list(iter_readable_plans(pack)) == []


def test_a_write_that_fails_leaves_no_sidecar_that_speaks_for_another_plan(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plan(pack, "any", _sidecar(pack), DATA)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stenosis_trt.engine.plans.store.write_bytes_atomically", full)
    with pytest.raises(OSError, match="No space"):
        write_plan(pack, "any", _sidecar(pack), b"another")
    assert list(iter_readable_plans(pack)) == []


def test_what_was_measured_on_a_plan_is_kept_with_it_and_decides(pack: Pack) -> None:
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    assert plan.sidecar.measured is None
    plan = record_measurement(plan, {"passed": True, "gpu": "NVIDIA RTX 4090"})
    found = find_plan(pack, "grader", "fp16", ADA)
    assert found.sidecar.measured == {"passed": True, "gpu": "NVIDIA RTX 4090"}
    assert replace(found.sidecar, measured=None) == _sidecar(pack)
    record_measurement(plan, {"passed": False, "gpu": "NVIDIA RTX 4090"})
    with pytest.raises(
        PlanError, match=r"differed too far from FP32's on NVIDIA RTX 4090.*Build it: stenosis-trt build"
    ):
        find_plan(pack, "grader", "fp16", ADA)


def test_a_plan_whose_variant_did_not_pass_its_gate_is_not_loaded(pack: Pack) -> None:
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    assert load_blocker(pack, plan, ADA) == ""
    content = json.loads((pack.path / MANIFEST).read_text(encoding="utf-8"))
    content["models"]["grader"]["variants"]["fp16"]["gate"] = {"passed": False}
    (pack.path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    refused = Pack.load(pack.path)
    assert load_blocker(refused, plan, ADA) == "grader.fp16.onnx did not pass the gate"
    with pytest.raises(
        PlanError, match=r"did not pass the gate\. Convert it again with stenosis-trt quantise"
    ):
        find_plan(refused, "grader", "fp16", ADA)


@pytest.mark.parametrize(
    "change",
    [
        {"gpu_name": "Orin"},
        {"compute_capabilities": ["9.0"]},
        {"variant_gate": {"passed": True}},
        {"measured": {"passed": True}},
        {"settings": ["--batch 1; rm -rf ~"]},
    ],
)
def test_a_sidecar_that_was_edited_is_none(pack: Pack, change: dict[str, Any]) -> None:
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    file = plan.path.with_suffix(".json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert list(iter_readable_plans(pack)) == []
    assert [trouble for _, trouble in iter_plans(pack)] == ["the sidecar was modified"]


def test_a_sidecar_cannot_have_a_command_of_its_own_printed(pack: Pack) -> None:
    """The settings are shown as part of a command to be typed, and anybody can make a checksum."""
    write_plan(pack, "any", _sidecar(pack, settings=("--batch 1; rm -rf ~",)), DATA)
    assert [trouble for _, trouble in iter_plans(pack)] == [
        "the sidecar's settings are not options of stenosis-trt build"
    ]


def test_the_files_of_a_model_are_those_of_its_entry_and_its_variants(pack: Pack) -> None:
    assert {precision: found.file for precision, found in model_files(pack, "grader").items()} == {
        "fp32": "grader.onnx",
        "fp16": "grader.fp16.onnx",
        "int8": "grader.int8.onnx",
    }
    assert set(model_files(pack, "levels")) == {"fp32"}


def test_a_variant_that_was_changed_or_lies_outside_is_not_read(pack: Pack) -> None:
    file = model_files(pack, "grader")["int8"]
    assert hashlib.sha256(read_model_file(pack, "grader", file)).hexdigest() == file.sha256
    (pack.path / file.file).write_bytes(b"changed")
    with pytest.raises(PackError, match="is not the file its manifest names"):
        read_model_file(pack, "grader", file)
    (pack.path / file.file).unlink()
    with pytest.raises(PackError, match="cannot be read"):
        read_model_file(pack, "grader", file)
    with pytest.raises(PackError, match="outside itself"):
        read_model_file(pack, "grader", replace(file, file="../elsewhere.onnx"))


def test_folders_are_named_after_the_gpus_a_plan_is_for() -> None:
    orin = Gpu("Orin", (8, 7), 8 << 30)
    assert target_name(BuildSettings(), None) == "any"
    assert target_name(BuildSettings(), orin) == "sm87-orin"
    assert target_name(BuildSettings(compute_capabilities=((8, 6), (12, 0))), None) == "sm86+sm120"
    assert target_name(BuildSettings(hardware_compatible="ampere-plus"), orin) == "sm80up-orin"
    assert target_name(BuildSettings(dla_core=1), orin) == "sm87-orin-dla1"
    card = Gpu("NVIDIA GeForce RTX 4070 Ti SUPER", (8, 9), 16 << 30)
    assert target_name(BuildSettings(), card) == "sm89-geforce-rtx-4070-ti-super"


def test_plans_timed_on_two_gpus_of_one_kind_lie_beside_each_other(pack: Pack) -> None:
    plans = {}
    for name in ("NVIDIA A10", "NVIDIA GeForce RTX 3090"):
        target = target_name(BuildSettings(), Gpu(name, (8, 6), 24 << 30))
        sidecar = _on_orin(pack, gpu_name=name, compute_capabilities=("8.6",))
        plans[name] = write_plan(pack, target, sidecar, DATA)
    assert len({plan.path for plan in plans.values()}) == 2
    for name, plan in plans.items():
        here = RuntimeTarget("tensorrt", "10.3.0", name, (8, 6))
        assert find_plan(pack, "grader", "fp16", here).path == plan.path


def _put(pack: Pack, **changes: Any) -> list[str]:
    """What is said of a plan whose sidecar has these entries, and a checksum that is right."""
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    file = plan.path.with_suffix(".json")
    content = {**json.loads(file.read_text()), **changes}
    del content["content_sha256"]
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**content, "content_sha256": checksum}))
    return [trouble if isinstance(trouble, str) else "" for _, trouble in iter_plans(pack)]


_ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        2.5,
        10**40,
        "",
        "x",
        "²",
        "9.9.9",
        [],
        [[]],
        [1],
        [True],
        ["8.7", 3],
        {},
        {"a": [None]},
    ),
    *("\x1b[2J", "x" * 100_000),
)


@pytest.mark.parametrize("entry", [field.name for field in fields(Sidecar)])
def test_whatever_stands_in_a_sidecar_gives_a_plan_or_a_reason(pack: Pack, entry: str) -> None:
    for odd in _ODD:
        (trouble,) = _put(pack, **{entry: odd})
        assert trouble.isprintable()
        if not trouble:
            (plan,) = iter_readable_plans(pack)
            assert isinstance(load_blocker(pack, plan, ADA), str)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"newer_than": "new"}, "newer_than: "),
        ({"newer_than": 12.0}, "newer_than: "),
        ({"compute_capabilities": [True]}, r"compute_capabilities\.0: "),
        ({"version": "²"}, "version: "),
        ({"version_compatible": "yes"}, "version_compatible: "),
        ({"hardware_compatible": "everywhere"}, "hardware_compatible: "),
        ({"batches": []}, "batches: "),
        ({"batches": [8, 1]}, "batches: batches must ascend"),
        ({"layers": 0}, "layers: "),
        ({"measured": {"a": [float("inf")]}}, "numbers have to be finite"),
    ],
)
def test_an_entry_of_a_sidecar_that_is_not_right_is_named(
    pack: Pack, changes: dict[str, Any], words: str
) -> None:
    (trouble,) = _put(pack, **changes)
    assert re.search(words, trouble)


def test_a_fifo_in_place_of_a_plans_files_is_refused_and_not_waited_for(pack: Pack) -> None:
    plan = write_plan(pack, "any", _sidecar(pack), DATA)
    plan.path.unlink()
    os.mkfifo(plan.path)
    with pytest.raises(PlanError, match=r"cannot be read .*no regular file"):
        read_plan(pack, plan)
    file = plan.path.with_suffix(".json")
    file.unlink()
    os.mkfifo(file)
    assert ["no regular file" in str(found) for _, found in iter_plans(pack)] == [True]
