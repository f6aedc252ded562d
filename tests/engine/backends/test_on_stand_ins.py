"""The `gpu` tests of what grades on a GPU, and its errors, on stand-ins for the driver and TensorRT.

The driver's stand-in runs the kernels' CPU build, TensorRT's runs the ONNX files through ONNX Runtime at the
addresses TensorRT would be given. It proves what is called in which order with what; nothing about a GPU.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from fake_gpu import environment, kernels, run_gpu_tests
from shared_phantoms import small_phantoms
from shared_products import shared_product
from signing_keys import write_pair
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.packs.pack import reference_pack

_TESTS = Path(__file__).with_name("test_tensorrt.py")


@pytest.fixture(scope="module")
def stand_ins() -> dict[str, str]:
    """Environment of a process for which there is a GPU."""
    return environment(FAKE_CUDA_KERNELS=str(kernels()), FAKE_CUDA_CAPABILITY="90")


@pytest.mark.slow
def test_the_gpu_tests_pass_on_stand_ins(tmp_path: Path) -> None:
    assert run_gpu_tests(_TESTS, tmp_path / "report.xml") >= 15


@pytest.fixture(scope="module")
def phantoms() -> Path:
    """Two studies of half as many slices as usual: the stand-ins compute for long."""
    return small_phantoms(studies=2, seed=74, axial_step=2)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, stand_ins: dict[str, str]) -> Path:
    """The reference pack, with plans for the stand-in of a few batches, to be quick."""

    def make(folder: Path) -> None:
        shutil.copytree(reference_pack(), folder / "pack", ignore=shutil.ignore_patterns("plans"))
        options = ("--flavour", "tensorrt", "--batch", "2,6", "--precision", "fp32")
        done = _call(stand_ins, "build", folder / "pack", *options)
        assert done.returncode == 0, done.stderr

    copy = tmp_path_factory.mktemp("pack") / "reference"
    shutil.copytree(shared_product("stand_in_plans", make) / "pack", copy)
    return copy


def _call(process: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    script = "from stenosis_trt.engine.cli.app import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=process, capture_output=True, text=True, timeout=time_limit(300))


def _grade(
    process: dict[str, str], phantoms: Path, pack: Path, out: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return _call(process, "grade", phantoms, "--pack", pack, "--out", out, *arguments)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_is_graded_on_the_gpu_as_on_the_cpu_and_the_run_says_with_what(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    done = _grade(stand_ins, phantoms, pack, tmp_path / "gpu", "--device", "auto", "--keep-warm", "0.05")
    assert done.returncode == 0, done.stderr
    assert "Backend: tensorrt, because there is a plan for each model: tensorrt 10.3.0" in done.stderr
    assert "with the plans in tensorrt-10.3.0-sm90-stand-in-for-a-gpu-fp32." in done.stderr
    assert _grade(stand_ins, phantoms, pack, tmp_path / "cpu", "--device", "cpu").returncode == 0
    found, expected = _rows(tmp_path / "gpu" / "results.csv"), _rows(tmp_path / "cpu" / "results.csv")
    assert len(found) == 12
    for one, other in zip(found, expected, strict=True):
        assert one["kang_grade"] == other["kang_grade"]
        assert one["warnings"] == other["warnings"]
        assert float(one["compression_ratio"]) == pytest.approx(float(other["compression_ratio"]), abs=0.003)
    record = json.loads((tmp_path / "gpu" / "run.json").read_text())["backend"]
    assert record["flavour"] == "tensorrt"
    assert set(record["plans"]) == {"levels", "grader", "cord"}
    assert all(Path(plan["file"]).is_file() for plan in record["plans"].values())
    assert record["graphs"] == 6
    # The noise that it was warmed up with was made of slices here and there: 4 of them, loaded 12 times.
    assert record["copies"] == 4 * 12 + 2
    assert record["notes"] == record["gpu_failures"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("padding", "signed"), [(-32768, True), (65535, False)])
def test_padding_is_graded_as_zeros_are_on_the_cpu_and_on_the_gpu(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path, padding: int, signed: bool
) -> None:
    study = sorted(phantoms.iterdir())[0]
    for name, value in (("padded", padding), ("zeros", 0)):
        for path in study.rglob("*.dcm"):
            _pad(path, tmp_path / name / path.relative_to(study), value, signed)
    found = {}
    for name, device in (("zeros", "cpu"), ("padded", "cpu"), ("padded", "gpu")):
        out = tmp_path / f"{name}-{device}"
        done = _grade(stand_ins, tmp_path / name, pack, out, "--device", device)
        assert done.returncode == 0, done.stderr
        found[name, device] = _rows(out / "results.csv")
    for row, black, on_gpu in zip(*found.values(), strict=True):
        assert row["kang_grade"] == black["kang_grade"] == on_gpu["kang_grade"]
        for name in ("p0", "p1", "p2", "p3", "compression_ratio"):
            assert float(black[name]) == pytest.approx(float(row[name]), abs=0.01)
            assert float(on_gpu[name]) == pytest.approx(float(black[name]), abs=0.003)


def _pad(path: Path, to: Path, value: int, signed: bool) -> None:
    """Put a frame of padding, a twelfth on each side, around an image; declared where it is not zero."""
    content = pydicom.dcmread(path)
    image = content.pixel_array.astype(np.int64)
    rows, columns = (side // 12 for side in image.shape)
    padded = np.full(image.shape, value)
    padded[rows:-rows, columns:-columns] = image[rows:-rows, columns:-columns]
    content.PixelRepresentation, content.BitsStored, content.HighBit = int(signed), 16, 15
    content.PixelData = (padded & 0xFFFF).astype("<u2").tobytes()
    if value:
        content.add_new("PixelPaddingValue", "SS" if signed else "US", value)
    to.parent.mkdir(parents=True, exist_ok=True)
    content.save_as(to)


@pytest.mark.slow
def test_a_gpu_that_shares_the_machines_memory_reads_it_as_it_is_where_that_is_measured_to_be_faster(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    integrated = {**stand_ins, "FAKE_CUDA_INTEGRATED": "1"}
    done = _grade(integrated, phantoms, pack, tmp_path / "out", "--device", "gpu")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())["backend"]
    assert record["reads_mapped_memory"] == (record["mapped_ms"] < record["copied_ms"])
    assert _grade(stand_ins, phantoms, pack, tmp_path / "copied", "--device", "gpu").returncode == 0
    assert (tmp_path / "out" / "results.csv").read_text() == (tmp_path / "copied" / "results.csv").read_text()


def test_without_plans_gpu_is_refused_with_the_command_and_auto_takes_the_cpu_and_says_why(
    stand_ins: dict[str, str], phantoms: Path, tmp_path: Path
) -> None:
    tiny = write_tiny_pack(tmp_path / "tiny").path
    refused = _grade(stand_ins, phantoms, tiny, tmp_path / "out", "--device", "gpu", "--flavour", "tensorrt")
    assert refused.returncode == 2
    assert "has no plan of levels in fp32" in refused.stderr
    assert f"stenosis-trt build {tiny} --flavour tensorrt --precision fp32" in refused.stderr
    assert not (tmp_path / "out").exists()
    automatic = _grade(stand_ins, phantoms, tiny, tmp_path / "out", "--flavour", "tensorrt")
    assert "Backend: onnxruntime, because the GPU cannot be used: the pack" in automatic.stderr
    assert "stenosis-trt build" in automatic.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())["backend"]
    assert record["backend"] == "onnxruntime"
    assert "has no plan of levels" in record["reason"]


def test_missing_plans_are_built_on_the_spot_where_that_was_asked_for(
    stand_ins: dict[str, str], phantoms: Path, tmp_path: Path
) -> None:
    tiny = write_tiny_pack(tmp_path / "tiny").path
    options = ("--device", "gpu", "--flavour", "tensorrt", "--build")
    done = _grade(stand_ins, phantoms, tiny, tmp_path / "out", *options)
    assert "levels fp32: built" in done.stderr
    assert "Backend: tensorrt" in done.stderr
    assert len(list(tiny.rglob("*.plan"))) == 3
    again = _grade(stand_ins, phantoms, tiny, tmp_path / "again", *options)
    assert "built in" not in again.stderr


def test_plans_that_are_there_are_left_as_they_are_when_missing_ones_are_to_be_built(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    """They were built for other batches than would be built."""
    folder = tmp_path / "pack"
    shutil.copytree(pack, folder)
    next(folder.rglob("cord.plan")).unlink()
    before = {path.name: path.read_bytes() for path in folder.rglob("*.plan")}
    done = _grade(stand_ins, phantoms, folder, tmp_path / "out", "--device", "gpu", "--build")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\w+) fp32: built", done.stderr, re.MULTILINE) == ["cord"]
    after = {path.name: path.read_bytes() for path in folder.rglob("*.plan")}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"cord.plan"}


def test_plans_have_to_be_signed_where_a_signature_is_required(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    folder, keys = tmp_path / "pack", write_pair(tmp_path)
    shutil.copytree(pack, folder, ignore=shutil.ignore_patterns("plans"))
    assert _call(stand_ins, "sign", folder, "--signing-key", keys.private).returncode == 0
    shutil.copytree(pack / "plans", folder / "plans")
    options = ("--device", "gpu", "--trusted-key", str(keys.public))
    refused = _grade(stand_ins, phantoms, folder, tmp_path / "out", *options)
    assert refused.returncode == 2
    assert "levels.plan: its sidecar is not signed" in refused.stderr
    assert "--precision fp32 --signing-key KEY" in refused.stderr
    assert not (tmp_path / "out").exists()
    unsigned = _grade(stand_ins, phantoms, folder, tmp_path / "out", *options, "--build")
    assert unsigned.returncode == 2
    assert "there is no key to do that with" in unsigned.stderr
    assert _call(stand_ins, "sign", folder, "--signing-key", keys.private).returncode == 0
    done = _grade(stand_ins, phantoms, folder, tmp_path / "out", *options, "--build")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--flavour", "tensort"), "There is no flavour 'tensort'. Give one of tensorrt, tensorrt-rtx."),
        (("--keep-warm", "inf"), "kept warm every inf seconds"),
    ],
)
def test_what_no_gpu_can_be_asked_for_is_refused(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    done = _grade(stand_ins, phantoms, pack, tmp_path / "out", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_captured_work_is_launched_as_it_is_and_that_is_said_once(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    refusing = {**stand_ins, "FAKE_CUDA_FAIL": "cuStreamBeginCapture_v2=900"}
    done = _grade(refusing, phantoms, pack, tmp_path / "out", "--device", "gpu")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("does not capture CUDA graphs") == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text())["backend"]
    assert record["graphs"] == 0
    assert len(record["notes"]) == 1


_LOST = "cuGraphLaunch=719"
"""CUDA_ERROR_LAUNCH_FAILED, after which the process can do nothing more on the GPU."""
_LATER = """
import os
import sys
from stenosis_trt.engine.runs import batch
from stenosis_trt.engine.cli import main
announce = batch.announce
def and_then_fail(decision):
    announce(decision)
    os.environ["FAKE_CUDA_FAIL"] = failures
batch.announce = and_then_fail
failures = sys.argv.pop(1)
main()
"""
_LOSE = """
import ctypes
import sys
from stenosis_trt.engine.backends import tensorrt
from stenosis_trt.engine.cli import main
place, interrupted = sys.argv.pop(1), sys.argv.pop(1) == "interrupted"
kind, name = place.split(".")
kind = getattr(tensorrt, kind)
method = getattr(kind, name)
def lose(*arguments):
    ctypes.CDLL("libcuda.so.1").fake_cuda_lose(719)
    if interrupted:
        raise KeyboardInterrupt
    return method(*arguments)
setattr(kind, name, lose)
main()
"""
"""Loses the GPU when a method is called, and is interrupted then if wanted."""


@pytest.mark.parametrize("place", ["TensorRtBackend.load", "TensorRtBackend.prefetch", "GpuStudy.measure"])
def test_a_run_whose_gpu_is_lost_ends_as_any_other(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path, place: str
) -> None:
    done = _grade_and_lose(stand_ins, phantoms, pack, tmp_path / "out", place, "goes on")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "0 of 2 studies graded, 2 could not be graded" in done.stderr
    problems = [row for row in _rows(tmp_path / "out" / "errors.csv") if row["study_uid"]]
    assert len(problems) == 2
    assert all("restart it" in row["what_to_do"] for row in problems)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["finished"]


def test_a_gpu_that_is_lost_before_anything_is_read_ends_the_run_with_one_line(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    place = "TensorRtBackend.set_reading_memory"
    done = _grade_and_lose(stand_ins, phantoms, pack, tmp_path / "out", place, "goes on")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(r"^stenosis-trt: .*CUDA_ERROR_LAUNCH_FAILED.*restart it", done.stderr, re.MULTILINE)
    assert not json.loads((tmp_path / "out" / "run.json").read_text())["finished"]


def test_an_interrupt_is_obeyed_also_where_the_gpu_is_lost(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    place = "GpuStudy.measure"
    done = _grade_and_lose(stand_ins, phantoms, pack, tmp_path / "out", place, "interrupted")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def _grade_and_lose(
    process: dict[str, str], phantoms: Path, pack: Path, out: Path, place: str, then: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _LOSE, place, then, "grade", phantoms, "--pack", pack, "--out", out]
    command = [*map(str, command), "--device", "gpu"]
    return subprocess.run(command, env=process, capture_output=True, text=True, timeout=time_limit(300))


def test_a_study_is_graded_also_where_no_memory_can_be_page_locked(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    refusing = {**stand_ins, "FAKE_CUDA_FAIL": "cuMemHostRegister_v2=801"}
    done = _grade(refusing, phantoms, pack, tmp_path / "out", "--device", "gpu")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be page-locked") == 1
    (note,) = json.loads((tmp_path / "out" / "run.json").read_text())["backend"]["notes"]
    assert "CUDA_ERROR_NOT_SUPPORTED" in note


def test_a_study_that_the_gpu_fails_on_is_reported_and_the_run_goes_on(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    done = _grade_and_fail(stand_ins, phantoms, pack, tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    problems = [row for row in _rows(tmp_path / "out" / "errors.csv") if row["study_uid"]]
    assert len(problems) == 2
    assert all(row["stage"] == "grade" and "CUDA_ERROR_LAUNCH_FAILED" in row["reason"] for row in problems)
    assert all("restart it" in row["what_to_do"] for row in problems)
    assert _rows(tmp_path / "out" / "results.csv") == []


def test_where_it_is_allowed_the_cpu_grades_what_the_gpu_fails_on_and_the_result_says_so(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    done = _grade_and_fail(stand_ins, phantoms, pack, tmp_path / "out", "--cpu-if-gpu-fails")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all("graded_on_cpu" in row["warnings"] for row in rows)
    record = json.loads((tmp_path / "out" / "run.json").read_text())["backend"]
    assert len(record["gpu_failures"]) == 2


def _grade_and_fail(
    process: dict[str, str], phantoms: Path, pack: Path, out: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Grade on a GPU that fails once everything has been made ready."""
    options = ["grade", phantoms, "--pack", pack, "--out", out, "--device", "gpu", *arguments]
    command = [sys.executable, "-c", _LATER, _LOST, *map(str, options)]
    return subprocess.run(command, env=process, capture_output=True, text=True, timeout=time_limit(300))


def test_a_gpu_without_enough_memory_is_refused_before_anything_is_graded(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    small = {**stand_ins, "FAKE_CUDA_MEMORY": str(100 << 20)}
    done = _grade(small, phantoms, pack, tmp_path / "out", "--device", "gpu")
    assert done.returncode == 2
    assert "emory" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_ceiling_of_memory_is_kept(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    done = _grade(stand_ins, phantoms, pack, tmp_path / "out", "--device", "gpu", "--gpu-memory", "90")
    assert done.returncode == 2
    needed = re.search(r"Give --gpu-memory (\d+)", done.stderr)
    assert needed, done.stderr
    assert int(needed[1]) > 90


def test_a_plan_that_was_changed_is_never_given_to_tensorrt(
    stand_ins: dict[str, str], phantoms: Path, pack: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "pack"
    shutil.copytree(pack, changed)
    plan = next(changed.rglob("cord.plan"))
    data = bytearray(plan.read_bytes())
    data[-1] ^= 1
    plan.write_bytes(data)
    done = _grade(stand_ins, phantoms, changed, tmp_path / "out", "--device", "gpu")
    assert done.returncode == 2
    assert "is not the plan that its sidecar names" in done.stderr
    assert "stenosis-trt build" in done.stderr


def test_doctor_names_the_plans_that_grade_would_take(stand_ins: dict[str, str], pack: Path) -> None:
    done = _call(stand_ins, "doctor", "--pack", pack)
    assert re.search(r"grade would take +tensorrt, because there is a plan for each model", done.stdout)
    assert "levels fp32" in done.stdout
