"""`stenosis-trt build` as its users call it, with TensorRT-RTX's real builder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from dying import default_signals
from time_limits import time_limit
from typed_models import NO_GPU, grader, needs_rtx, pack_with_variants

from stenosis_trt.engine.cli.doctor import plan_findings
from stenosis_trt.engine.errors import PackError, TensorRTError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.plans.build import BuildRequest, build_plans, check_precision
from stenosis_trt.engine.plans.sidecar import RuntimeTarget
from stenosis_trt.engine.plans.store import find_plan, iter_readable_plans, read_plan
from stenosis_trt.engine.support.hardware import Gpu, NvidiaDriver
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.trt.flavours import BuildSettings
from stenosis_trt.engine.trt.network import ParsedLayer, ParsedNetwork

_SCRIPT = "from stenosis_trt.engine.cli.app import main; main()"


def _call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _SCRIPT, "build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit(300))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_with_variants(tmp_path_factory.mktemp("made") / "pack").path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "pack"))


def _network(layers: dict[str, int]) -> ParsedNetwork:
    """As TensorRT would have understood a model with so many layers of each kind."""
    kinds = [kind for kind, count in layers.items() for _ in range(count)]
    return ParsedNetwork(
        {"image": "float32"},
        {"out": "float32"},
        tuple(ParsedLayer("", *kind.partition(" ")[::2]) for kind in kinds),
    )


def _plans(pack: Path) -> set[tuple[str, str]]:
    return {(plan.sidecar.model, plan.sidecar.precision) for plan in iter_readable_plans(Pack.load(pack))}


@needs_rtx
def test_without_options_all_that_the_pack_has_is_built_and_can_be_read(pack: Path) -> None:
    answer = _call(pack)
    assert answer.returncode == 0, answer.stderr
    expected = {
        ("levels", "fp32"),
        ("grader", "fp32"),
        ("cord", "fp32"),
        ("grader", "fp16"),
        ("grader", "int8"),
    }
    assert _plans(pack) == expected
    assert len(answer.stdout.splitlines()) == len(expected)
    assert "Building grader in int8" in answer.stderr
    loaded = Pack.load(pack)
    for plan in iter_readable_plans(loaded):
        assert plan.sidecar.batches == (1, 2, 4, 6, 8, 16, 32)
        assert plan.sidecar.gpu_name is None
        assert plan.sidecar.measured is None
        assert plan.sidecar.variant_gate == (None if plan.sidecar.precision == "fp32" else {"passed": True})
        assert plan.sidecar.pack_sha256 == loaded.sha256
        assert len(read_plan(loaded, plan)) == plan.sidecar.plan_bytes
    here = RuntimeTarget("tensorrt-rtx", plan.sidecar.version, "NVIDIA RTX 4090", (8, 9))
    assert find_plan(loaded, "grader", "int8", here).sidecar.layers["convolution int8"] == 1
    assert not list(pack.rglob("*.part"))


@needs_rtx
def test_what_is_there_is_not_built_again_unless_it_was_changed_or_asked_for(pack: Path) -> None:
    options = (pack, "--model", "grader", "--precision", "fp16", "--batch", "1,8")
    assert "built in" in _call(*options).stdout
    assert "there already" in _call(*options).stdout
    assert "built in" in _call(*options, "--force").stdout
    (plan,) = iter_readable_plans(Pack.load(pack))
    plan.path.write_bytes(b"changed")
    assert "built in" in _call(*options).stdout
    assert "built in" in _call(*options[:-1], "1,4").stdout
    (plan,) = iter_readable_plans(Pack.load(pack))
    assert plan.sidecar.batches == (1, 4)


@needs_rtx
def test_plans_for_chosen_gpus_lie_beside_those_for_all(pack: Path) -> None:
    options = (pack, "--model", "grader", "--precision", "fp32", "--batch", 1)
    assert _call(*options).returncode == 0
    assert _call(*options, "--compute-capability", "8.6,7.5").returncode == 0
    portable, chosen = iter_readable_plans(Pack.load(pack))
    assert chosen.path.parent.name.endswith("-sm75+sm86-fp32")
    assert (chosen.sidecar.compute_capabilities, chosen.sidecar.newer_than) == (("7.5", "8.6"), None)
    assert portable.path.parent.name.endswith("-any-fp32")
    assert portable.sidecar.newer_than == "12.0"


@needs_rtx
def test_a_model_that_cannot_be_built_leaves_the_others(pack: Path) -> None:
    content = json.loads((pack / MANIFEST).read_text(encoding="utf-8"))
    # The file that is called INT8 is the one of FP16.
    content["models"]["grader"]["variants"]["int8"] = content["models"]["grader"]["variants"]["fp16"]
    (pack / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    answer = _call(pack, "--batch", 1)
    assert answer.returncode == 1
    assert "grader int8: not built. The file that the pack calls int8 quantises nothing" in answer.stderr
    assert ("grader", "fp16") in _plans(pack)
    assert ("grader", "int8") not in _plans(pack)


@needs_rtx
def test_a_variant_that_did_not_pass_its_gate_is_not_built(pack: Path) -> None:
    content = json.loads((pack / MANIFEST).read_text(encoding="utf-8"))
    content["models"]["grader"]["variants"]["int8"]["gate"]["passed"] = False
    (pack / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    answer = _call(pack, "--batch", 1, "--precision", "int8")
    assert answer.returncode == 1
    assert "grader.int8.onnx of pack tiny did not pass the gate" in answer.stderr
    assert _plans(pack) == set()


@needs_rtx
def test_an_interrupted_build_leaves_what_was_finished_and_no_part(tmp_path: Path) -> None:
    pack = Path(shutil.copytree(reference_pack(), tmp_path / "pack"))
    command = [sys.executable, "-c", _SCRIPT, "build", str(pack)]
    options = {"stdout": subprocess.DEVNULL, "text": True, "preexec_fn": default_signals}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Building grader"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "Interrupted." in rest
    assert "Traceback" not in rest
    assert _plans(pack) == {("levels", "fp32")}
    assert not list(pack.rglob("*.part"))


@needs_rtx
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precision", "fp8"), "There is no precision 'fp8'"),
        (("--flavour", "openvino"), "There is no flavour 'openvino'"),
        (("--model", "spine"), "There is no model 'spine'"),
        (("--batch", "1,many"), "'many' is no batch"),
        (("--batch", ""), "Batches are whole numbers"),
        (("--workspace", "2 elephants"), "is no size"),
        (("--compute-capability", "9.0"), "cannot build for compute capability 9.0"),
        (("--version-compatible",), "tensorrt-rtx has nothing like --version-compatible"),
        (("--model", "cord", "--precision", "int8"), "has no cord in int8"),
    ],
)
def test_wrong_options_are_told_in_one_line(pack: Path, options: tuple[str, ...], said: str) -> None:
    answer = _call(pack, *options)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not (pack / "plans").exists()


def test_a_zip_gets_no_plans_and_the_command_that_unpacks_it_is_given(pack: Path, tmp_path: Path) -> None:
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for path in pack.iterdir():
            stream.write(path, path.name)
    answer = _call(archive)
    assert answer.returncode == 2
    assert "is a zip" in answer.stderr
    assert f"python -m zipfile -e {archive} {tmp_path / 'packed'}" in answer.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_pack_that_cannot_be_written_to_is_to_be_copied(pack: Path) -> None:
    pack.chmod(0o500)
    try:
        with pytest.raises(PackError, match="Copy the pack"):
            list(build_plans(Pack.load(pack), BuildRequest(), NO_GPU, show_progress))
    finally:
        pack.chmod(0o700)


@needs_rtx
def test_a_gpu_that_cannot_load_the_plans_is_refused_before_anything_is_built(pack: Path) -> None:
    hopper = NvidiaDriver((13, 0), (Gpu("NVIDIA H200", (9, 0), 140 << 30),), "")
    with pytest.raises(TensorRTError, match=r"do not run on this machine's NVIDIA H200"):
        list(build_plans(Pack.load(pack), BuildRequest("tensorrt-rtx"), hopper, show_progress))
    assert not (pack / "plans").exists()


@needs_rtx
def test_the_doctor_lists_the_plans_that_a_gpu_may_load(pack: Path) -> None:
    settings = BuildSettings((1,), compute_capabilities=((8, 6),))
    request = BuildRequest("tensorrt-rtx", ("fp16",), ("grader",), settings)
    (outcome,) = build_plans(Pack.load(pack), request, NO_GPU, show_progress)
    assert outcome.plan is not None
    (alone,) = plan_findings(pack, NO_GPU)
    assert alone.value.endswith("pack tiny: 1, and no GPU to load them")
    (fits,) = plan_findings(pack, NvidiaDriver((13, 0), (Gpu("NVIDIA RTX 3090", (8, 6), 24 << 30),), ""))
    assert fits.value.endswith("grader fp16 for this GPU")
    none, why = plan_findings(pack, NvidiaDriver((13, 0), (Gpu("NVIDIA RTX 4090", (8, 9), 24 << 30),), ""))
    assert none.value.endswith("none for this GPU")
    assert none.advice == f"stenosis-trt build {pack} --flavour tensorrt-rtx"
    assert "cannot be loaded: it runs on compute capability 8.6" in why.value


@pytest.mark.parametrize(
    ("precision", "layers", "wrong"),
    [
        ("fp32", {"convolution float32": 2}, ""),
        ("fp32", {"convolution float16": 2}, "quantises or computes in FP16"),
        ("fp32", {"convolution float32": 2, "quantize": 1}, "quantises or computes in FP16"),
        ("fp16", {"convolution float16": 1, "convolution float32": 1}, ""),
        ("fp16", {"convolution float32": 2}, "computes nothing in FP16"),
        ("fp16", {"convolution float16": 2, "dequantize": 1}, "quantises"),
        ("int8", {"convolution int8": 1, "convolution float16": 3, "quantize": 1, "dequantize": 2}, ""),
        ("int8", {"convolution float16": 3}, "quantises nothing"),
        ("int8", {"convolution float16": 3, "quantize": 1, "dequantize": 1}, "quantises nothing"),
    ],
)
def test_a_file_is_held_against_what_the_pack_calls_it(
    precision: str, layers: dict[str, int], wrong: str
) -> None:
    network = _network(layers)
    if not wrong:
        check_precision(precision, network)
        return
    with pytest.raises(TensorRTError, match=f"calls {precision} {wrong}"):
        check_precision(precision, network)


def test_what_goes_in_and_comes_out_is_fp32_in_every_precision() -> None:
    halves = replace(_network({"convolution float16": 1}), outputs={"out": "float16"})
    with pytest.raises(TensorRTError, match="tensor out of the file that the pack calls fp16 is float16"):
        check_precision("fp16", halves)


def test_the_small_networks_differ() -> None:
    assert len({grader(precision) for precision in ("fp32", "fp16", "int8")}) == 3
