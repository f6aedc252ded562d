"""INT8 from pack to plan to grades with the base installation, on stand-ins for the driver and TensorRT."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_gpu import environment, kernels
from shared_phantoms import small_phantoms
from shared_weights_pack import write_shared_pack
from time_limits import time_limit

from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.plans.store import iter_readable_plans

_SCRIPT = """
import socket, sys

def refuse(*arguments):
    raise AssertionError("something tried to reach the network")

socket.socket.connect = refuse
from stenosis_trt.engine.cli.app import main
try:
    main()
finally:
    packages = {name.partition(".")[0] for name in sys.modules}
    # The stand-in for TensorRT reads models with onnx itself.
    unwanted = {"torch", "modelopt", "polygraphy", "onnxscript", "onnxslim", "onnx_graphsurgeon"} & packages
    assert not unwanted, unwanted
    export = [name for name in sys.modules if name.startswith("stenosis_trt.export.onnx")]
    assert not export, export
"""


@pytest.fixture(scope="module")
def stand_ins() -> dict[str, str]:
    """Environment of a process for which there is a GPU."""
    return environment(FAKE_CUDA_KERNELS=str(kernels()), FAKE_CUDA_CAPABILITY="90")


@pytest.fixture(scope="module")
def phantoms() -> Path:
    """Two small studies."""
    return small_phantoms(studies=2, seed=74, axial_step=2)


def _call(process: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _SCRIPT, *map(str, arguments)]
    return subprocess.run(command, env=process, capture_output=True, text=True, timeout=time_limit(300))


def _assert_graded_in_int8(process: dict[str, str], pack: Path, phantoms: Path, out: Path) -> None:
    done = _call(process, "build", pack, "--flavour", "tensorrt", "--batch", "2,6", "--precision", "int8")
    assert done.returncode == 0, done.stderr
    options = ("--device", "gpu", "--precision", "int8", "--pack", pack, "--out", out)
    done = _call(process, "grade", phantoms, *options)
    assert "Backend: tensorrt, because it was asked for" in done.stderr, done.stderr
    assert "AssertionError" not in done.stderr, done.stderr
    plans = json.loads((out / "run.json").read_text(encoding="utf-8"))["backend"]["plans"]
    assert {name: plan["precision"] for name, plan in plans.items()} == dict.fromkeys(
        ("levels", "grader", "cord"), "int8"
    )


@pytest.mark.slow
def test_int8_of_a_pack_is_built_and_run_without_what_made_it(
    stand_ins: dict[str, str], phantoms: Path, tmp_path: Path
) -> None:
    pack = write_shared_pack(tmp_path / "pack")
    _assert_graded_in_int8(stand_ins, pack.path, phantoms, tmp_path / "results")
    done = _call(stand_ins, "verify", pack.path, "--device", "gpu", "--validation-studies", phantoms)
    # Two studies are too few for the gate, which does not make the plans bad ones.
    assert done.returncode == 1, done.stderr
    assert "AssertionError" not in done.stderr, done.stderr
    assert "int8 FAILS the gate" in done.stdout
    assert "multiply-adds in INT8: levels 100.0%, grader 100.0%, cord 100.0%" in done.stdout
    assert "Not recorded: give more studies" in done.stderr
    assert all(plan.sidecar.measured is None for plan in iter_readable_plans(Pack.load(pack.path)))
    done = _call(stand_ins, "verify", pack.path, "--device", "gpu", "--precision", "fp16")
    assert done.returncode == 2
    assert "has no plan of levels in fp16" in done.stderr


def test_a_device_and_precisions_of_the_gate_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from stenosis_trt.engine.cli.app import app

    pack = str(write_shared_pack(tmp_path / "pack").path)
    for options, words in (
        (["--device", "tpu"], "no device 'tpu' to repeat the gate on. Give one of cpu, gpu."),
        (["--precision", "int8"], "Nothing reads --precision without --device gpu."),
        (["--validation-subject", "errsm_11"], "Give the folder of the volumes too."),
        (["--device", "gpu"], "There is no GPU"),
    ):
        answer = CliRunner().invoke(app, ["verify", pack, *options])
        assert answer.exit_code == 2, answer.output
        assert words in answer.stderr


@pytest.mark.slow
def test_the_reference_pack_is_graded_in_int8(
    stand_ins: dict[str, str], phantoms: Path, tmp_path: Path
) -> None:
    if "int8" not in Pack.load(reference_pack()).precisions:
        pytest.skip("the reference pack holds FP32 alone")
    shutil.copytree(reference_pack(), tmp_path / "pack", ignore=shutil.ignore_patterns("plans", "cpu"))
    _assert_graded_in_int8(stand_ins, tmp_path / "pack", phantoms, tmp_path / "results")
    grades = (tmp_path / "results" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert len(grades) == 13
