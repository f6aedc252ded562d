"""The command line as its users call it: real processes, exit codes, what is printed."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from dicom_factory import series
from tiny_pack import write_tiny_pack


def _call(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = "from stenosis_trt.engine.cli import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


def test_help_names_every_command() -> None:
    answer = _call("--help")
    assert answer.returncode == 0
    for command in ("grade", "inspect", "phantom", "demo", "verify", "doctor"):
        assert command in answer.stdout


def test_help_imports_nothing_heavy() -> None:
    """What makes a start slow is imports: none of the large ones may happen for --help."""
    script = (
        "import sys\n"
        "from stenosis_trt.engine.cli import main\n"
        "sys.argv = ['stenosis-trt', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n"
        "    heavy = {'numpy', 'onnxruntime', 'pydicom', 'scipy', 'torch'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in answer.stdout


def test_version_is_printed() -> None:
    assert _call("--version").stdout.strip().count(".") == 2


def test_a_folder_that_cannot_be_graded_ends_with_1_and_says_why(tmp_path: Path, pack: Path) -> None:
    series(tmp_path / "in", 7)
    answer = _call("grade", tmp_path / "in", "--out", tmp_path / "out", "--pack", pack)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "1 could not be graded" in answer.stderr
    with (tmp_path / "out" / "errors.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["stage"] == "levels"
    assert row["reason"].startswith("cannot grade: ")


def test_the_gpu_is_never_replaced_by_the_cpu(tmp_path: Path, pack: Path) -> None:
    series(tmp_path / "in", 7)
    answer = _call("grade", tmp_path / "in", "--out", tmp_path / "out", "--pack", pack, "--device", "gpu")
    assert answer.returncode == 2
    assert "--device" in answer.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "tpu"], "no device 'tpu'"),
        (["--pack", "/nowhere"], "cannot be read"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    series(tmp_path / "in", 3)
    answer = _call("grade", tmp_path / "in", "--out", tmp_path / "out", *arguments)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_an_output_folder_in_use_is_named(tmp_path: Path, pack: Path) -> None:
    series(tmp_path / "in", 3)
    arguments = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--pack", pack)
    _call(*arguments)
    answer = _call(*arguments)
    assert answer.returncode == 2
    assert "--resume" in answer.stderr


def test_inspect_shows_roles_and_reasons_and_no_identifier(tmp_path: Path) -> None:
    series(tmp_path / "in", 7)
    answer = _call("inspect", tmp_path / "in")
    assert answer.returncode == 0
    assert "sagittal T2" in answer.stdout
    assert "SECRET" not in answer.stdout + answer.stderr


def test_phantom_names_the_syntaxes_it_knows(tmp_path: Path) -> None:
    answer = _call("phantom", tmp_path, "--studies", 1, "--syntax", "zip")
    assert answer.returncode == 2
    assert "jpeg-ls" in answer.stderr


def test_verify_finds_a_changed_file(tmp_path: Path) -> None:
    folder = write_tiny_pack(tmp_path / "pack").path
    assert _call("verify", folder).returncode == 0
    (folder / "cord.onnx").write_bytes(b"changed")
    answer = _call("verify", folder)
    assert answer.returncode == 2
    assert "cord.onnx" in answer.stderr


def test_doctor_says_what_would_run_and_what_to_install(pack: Path) -> None:
    answer = _call("doctor", "--pack", pack)
    assert answer.returncode == 0
    for word in (
        "CPU",
        "GPU",
        "TensorRT",
        "ONNX Runtime",
        "tiny 1",
        "grade would take",
        "onnxruntime, because",
    ):
        assert word in answer.stdout


def test_doctor_reports_a_broken_pack_instead_of_failing() -> None:
    answer = _call("doctor", "--pack", "/nowhere")
    assert answer.returncode == 0
    assert "cannot be read" in answer.stdout
