"""`stenosis-trt build --device cpu`, and what the doctor says of its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cpu_tables import everything, table
from time_limits import time_limit
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from stenosis_trt.engine.backends.cpu import table as cpu_table
from stenosis_trt.engine.backends.cpu.choice import has_openvino
from stenosis_trt.engine.backends.cpu.table import this_machine, write_table
from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.cli.doctor import cpu_table_findings
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.hardware import NvidiaDriver, arithmetic_features, has_bfloat16


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    monkeypatch.setattr(cpu_table, "cache_folder", lambda: tmp_path / "cache")
    return write_tiny_pack(tmp_path / "pack")


def _build(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["build", *map(str, arguments)])
    return found.exit_code, " ".join(found.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "cpu", "--flavour", "tensorrt", "--tf32"), "reads --flavour and --tf32 with"),
        (("--threads", "2"), "Nothing reads --threads with --device gpu"),
        (("--device", "tpu"), "There is no device 'tpu' to build for. Give one of gpu, cpu."),
        (("--device", "cpu", "--studies", "/nothing/here"), "There is nothing at /nothing/here. Give"),
    ],
)
def test_what_cannot_be_built_is_refused_with_exit_code_2(
    pack: Pack, arguments: tuple[str, ...], words: str
) -> None:
    code, text = _build(pack.path, *arguments)
    assert code == 2
    assert words in text


def test_an_empty_folder_of_studies_is_refused(pack: Pack, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, text = _build(pack.path, "--device", "cpu", "--studies", tmp_path / "empty")
    assert code == 2
    assert "can be graded" in text
    assert not (pack.path / "cpu").exists()


def test_without_a_gpu_the_build_for_a_cpu_is_advised(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    from stenosis_trt.engine.plans import build as plans_build
    from stenosis_trt.engine.support import hardware

    monkeypatch.setattr(hardware, "query_nvidia_driver", lambda: NvidiaDriver(None, (), "no driver"))
    monkeypatch.setattr(plans_build, "installed_flavours", lambda: ())
    code, text = _build(pack.path)
    assert code == 2
    assert "measure the CPU instead: stenosis-trt build --device cpu" in text


def test_the_doctor_says_whether_a_pack_was_measured_here_and_what_passed(pack: Pack) -> None:
    (finding,) = cpu_table_findings(pack.path)
    assert finding.value == "none for pack tiny on this machine"
    assert finding.advice.endswith(f"stenosis-trt build {pack.path} --device cpu")
    path = write_table(pack, table(pack, everything(), bf16_gate={"passed": False}))
    (finding,) = cpu_table_findings(pack.path)
    assert finding.value == f"{path}, passed: fp32, auto; failed the gate: bf16"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pack_sha256": "0" * 64}))
    (finding,) = cpu_table_findings(pack.path)
    assert finding.value == f"{path} was made for another pack"


def test_instruction_sets_are_read_as_linux_lists_them(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("model name\t: A\nflags\t\t: fpu avx2 avx512f avx512_bf16 sse\n\nflags: amx_bf16\n")
    assert arithmetic_features(file) == ("avx2", "avx512_bf16", "avx512f")
    assert has_bfloat16(arithmetic_features(file))
    file.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert arithmetic_features(file) == ("asimd", "asimddp")
    assert not has_bfloat16(arithmetic_features(file))
    assert arithmetic_features(tmp_path / "absent") == ()


_BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "scipy", "sklearn", "modelopt", "matplotlib"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import stenosis_trt.engine.cli.build_cpu
import stenosis_trt.export.precision.cpu
from stenosis_trt.export.precision.studies import loaded_studies
"""


def test_the_build_for_a_cpu_needs_no_package_of_training_or_conversion() -> None:
    subprocess.run([sys.executable, "-c", _BLOCKED], check=True, timeout=time_limit(60), capture_output=True)


@pytest.mark.slow
def test_the_reference_pack_is_measured_checked_and_graded_with_what_passed(tmp_path: Path) -> None:
    """With OpenVINO and bfloat16 instructions, the faster precision is taken; elsewhere FP32 stays."""
    if not has_openvino():
        pytest.skip("needs OpenVINO")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    stenosis = [sys.executable, "-c", "from stenosis_trt.engine.cli.app import main; main()"]

    def run(*arguments: object) -> str:
        return subprocess.run(
            [*stenosis, *map(str, arguments)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=time_limit(1200),
        ).stderr

    made = run("build", "--device", "cpu")
    path = Path(made.rpartition("Table: ")[2].strip())
    assert path.is_relative_to(tmp_path)
    content = json.loads(path.read_text())
    run("phantom", tmp_path / "studies", "--studies", 2, "--seed", 5)
    run("grade", tmp_path / "studies", "--out", tmp_path / "auto", "--device", "cpu")
    run("grade", tmp_path / "studies", "--out", tmp_path / "fp32", "--device", "cpu", "--precision", "fp32")
    record = json.loads((tmp_path / "auto" / "run.json").read_text())
    assert record["backend"]["models_run_by"].keys() == {"levels", "grader", "cord"}
    if not has_bfloat16(this_machine().features):
        assert "bf16" not in content["choices"]
        return
    assert content["choices"]["bf16"]["gate"]["passed"]
    assert record["backend"]["backend"] == "openvino"
    grades = [
        [row.split(",")[3] for row in (tmp_path / name / "results.csv").read_text().splitlines()[1:]]
        for name in ("auto", "fp32")
    ]
    assert grades[0] == grades[1]
    again = ["grade", tmp_path / "studies", "--out", tmp_path / "auto", "--device", "cpu", "--resume"]
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run(*again, "--precision", "fp32")
    assert refused.value.returncode == 2
    assert "were made with another" in refused.value.stderr
