"""`verify` on plans: which are as they were written, which are the pack's, which this machine may load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from time_limits import time_limit
from typed_models import NO_GPU, needs_rtx, pack_with_variants

from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.build import BuildRequest, build_plans
from stenosis_trt.engine.plans.check import CHANGED, INTACT, STALE, PlanState, check_plans, state_lines
from stenosis_trt.engine.plans.store import iter_readable_plans, record_measurement
from stenosis_trt.engine.support.hardware import Gpu, NvidiaDriver
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.trt.flavours import BuildSettings

pytestmark = needs_rtx

_SCRIPT = "from stenosis_trt.engine.cli.app import main; main()"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with plans of its grader, for one batch and for GPUs of 8.6."""
    pack = pack_with_variants(tmp_path_factory.mktemp("made") / "pack")
    settings = BuildSettings((1,), compute_capabilities=((8, 6),))
    request = BuildRequest("tensorrt-rtx", (), ("grader",), settings)
    assert all(outcome.plan for outcome in build_plans(pack, request, NO_GPU, show_progress))
    return pack.path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "pack"))


def _verify(pack: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _SCRIPT, "verify", str(pack)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit(300))


def _file(pack: Path, name: str) -> Path:
    (path,) = pack.glob(f"plans/*/{name}")
    return path


def _with(capability: tuple[int, int]) -> NvidiaDriver:
    return NvidiaDriver((13, 0), (Gpu("NVIDIA RTX", capability, 24 << 30),), "")


def test_plans_that_are_as_they_were_written_are_listed_and_all_is_well(pack: Path) -> None:
    answer = _verify(pack)
    assert answer.returncode == 0, answer.stderr
    lines = [line for line in answer.stdout.splitlines() if ".plan" in line]
    assert len(lines) == 3
    for line, precision in zip(lines, ("fp16", "fp32", "int8"), strict=True):
        assert f"-sm86-{precision}/grader.plan: intact" in line
        assert "not yet compared with FP32 on a GPU" in line


def _flip_a_byte(pack: Path) -> None:
    path = _file(pack, "grader.plan")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _append(pack: Path) -> None:
    with _file(pack, "grader.plan").open("ab") as stream:
        stream.write(b"!")


def _edit_sidecar(pack: Path) -> None:
    path = _file(pack, "grader.json")
    path.write_text(path.read_text().replace('"8.6"', '"8.9"', 1))


def _swap_hash(pack: Path) -> None:
    path = _file(pack, "grader.json")
    content = json.loads(path.read_text())
    content["plan_sha256"] = "0" * 64
    path.write_text(json.dumps(content))


def _take_plan(pack: Path) -> None:
    _file(pack, "grader.plan").unlink()


def _take_sidecar(pack: Path) -> None:
    _file(pack, "grader.json").unlink()


def _not_json(pack: Path) -> None:
    _file(pack, "grader.json").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (_flip_a_byte, "it is not the plan that its sidecar names"),
        (_append, "it is not the plan that its sidecar names"),
        (_edit_sidecar, "the sidecar was modified"),
        (_swap_hash, "the sidecar was modified"),
        (_take_plan, "only its sidecar exists"),
        (_take_sidecar, "it has no sidecar: its build was interrupted, or someone removed it"),
        (_not_json, "the sidecar cannot be read (UnicodeDecodeError)"),
    ],
)
def test_whatever_is_changed_of_a_plan_fails_verify_with_the_command_that_builds_it_again(
    pack: Path, tamper: Callable[[Path], None], reason: str
) -> None:
    for path in pack.glob("plans/*"):
        if not path.name.endswith("-int8"):
            shutil.rmtree(path)
    tamper(pack)
    answer = _verify(pack)
    assert answer.returncode == 1
    assert "every file is what pack.json names" in answer.stdout
    line, advice = answer.stdout.splitlines()[-2:]
    assert f"-sm86-int8/grader.plan: CHANGED: {reason}" in line
    command = f"stenosis-trt build {pack} --flavour tensorrt-rtx --precision int8 --model grader"
    assert command in advice
    if tamper in (_flip_a_byte, _append):
        assert advice.endswith("--batch 1 --compute-capability 8.6")
    assert "Traceback" not in answer.stderr


def test_the_command_that_is_given_mends_what_was_changed(pack: Path) -> None:
    for path in pack.glob("plans/*"):
        if not path.name.endswith("-fp16"):
            shutil.rmtree(path)
    _flip_a_byte(pack)
    answer = _verify(pack)
    command = answer.stdout.splitlines()[-1].partition("stenosis-trt ")[2].split()
    done = subprocess.run([sys.executable, "-c", _SCRIPT, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert _verify(pack).returncode == 0


def _states(pack: Path, driver: NvidiaDriver = NO_GPU) -> dict[str, PlanState]:
    found = check_plans(Pack.load(pack), driver)
    return {state.path.parent.name.rpartition("-")[2]: state for state in found}


def test_plans_of_a_model_that_the_pack_has_no_more_are_stale(pack: Path) -> None:
    content = json.loads((pack / MANIFEST).read_text(encoding="utf-8"))
    grader = content["models"]["grader"]
    del grader["variants"]["int8"]
    grader["variants"]["fp16"]["gate"]["passed"] = False
    grader["output"]["minimum_confidence"] = 0.4
    (pack / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    states = _states(pack)
    assert {state.state for state in states.values()} == {STALE}
    assert states["int8"].reason == "the pack has no grader in int8 any more"
    assert states["int8"].advice == "Remove it and its sidecar."
    assert "the input or output of grader" in states["fp32"].reason
    assert "--precision fp32 --model grader --batch 1" in states["fp32"].advice
    assert states["fp16"].advice == "Make the file again: stenosis-trt quantise."


def test_a_stale_plan_fails_verify(pack: Path) -> None:
    content = json.loads((pack / MANIFEST).read_text(encoding="utf-8"))
    content["models"]["grader"]["input"]["spacing_mm"] = 0.8
    (pack / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    answer = _verify(pack)
    assert answer.returncode == 1
    assert answer.stdout.count("STALE: the input or output of grader in pack.json has changed") == 3


def test_a_plan_whose_answers_differed_on_a_gpu_is_stale_and_is_built_again(pack: Path) -> None:
    loaded = Pack.load(pack)
    plan = next(plan for plan in iter_readable_plans(loaded) if plan.sidecar.precision == "fp16")
    record_measurement(plan, {"passed": False, "gpu": "NVIDIA RTX"})
    state = _states(pack)["fp16"]
    assert (state.state, state.reason) == (
        STALE,
        "its own answers differed too far from FP32's on NVIDIA RTX",
    )
    settings = BuildSettings((1,), compute_capabilities=((8, 6),))
    request = BuildRequest("tensorrt-rtx", ("fp16",), ("grader",), settings)
    (outcome,) = build_plans(loaded, request, NO_GPU, show_progress)
    assert not outcome.already_present
    assert _states(pack)["fp16"].state == INTACT


def test_what_a_gpu_may_load_is_told_and_the_command_for_one_that_may_not(pack: Path) -> None:
    fits = _states(pack, _with((8, 6)))
    assert {state.load_blocker for state in fits.values()} == {""}
    assert all(state.target and state.target.gpu_name == "NVIDIA RTX" for state in fits.values())
    assert "can be loaded here" in next(state_lines(Pack.load(pack), fits["int8"]))
    not_here = _states(pack, _with((8, 9)))["int8"]
    assert (not_here.state, not_here.target) == (INTACT, None)
    assert not_here.load_blocker == "it runs on compute capability 8.6, and NVIDIA RTX has 8.9"
    assert not_here.advice == f"Build it: stenosis-trt build {pack} --flavour tensorrt-rtx --precision int8"
    assert _states(pack)["int8"].load_blocker == NO_GPU.unavailable_reason


def test_a_plan_of_a_flavour_that_is_not_installed_is_intact_and_not_for_here(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stenosis_trt.engine.plans.check.installed_flavours", tuple)
    state = _states(pack, _with((8, 6)))["int8"]
    assert (state.state, state.load_blocker) == (INTACT, "tensorrt-rtx is not installed")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_plan_that_cannot_be_read_counts_as_changed(pack: Path) -> None:
    _file(pack, "grader.plan").chmod(0)
    assert CHANGED in {state.state for state in _states(pack).values()}
