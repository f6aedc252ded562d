"""The command line as its users call it: real processes, exit codes, what is printed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dicom_factory import series
from dying import default_signals
from pydicom import dcmread
from pydicom.dataset import Dataset
from stand_in import write_studies
from terminal import Terminal
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.phantom import TRANSFER_SYNTAXES


def _call(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = "from stenosis_trt.engine.cli.app import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=time_limit(120))


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
        "from stenosis_trt.engine.cli.app import main\n"
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
    assert "1 could not be graded, 1 problem in " in answer.stderr
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
        (["--read-limit", "max_size=3"], "Give one of max_file_bytes"),
        (["--read-limit", "max_frames=-3"], "positive"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    series(tmp_path / "in", 3)
    answer = _call("grade", tmp_path / "in", "--out", tmp_path / "out", *arguments)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", [["grade", "--out", "OUT"], ["inspect"]])
def test_paths_of_which_none_exists_are_wrong_usage(command: list[str], tmp_path: Path) -> None:
    arguments = [str(tmp_path / "out") if word == "OUT" else word for word in command]
    answer = _call(*arguments, "/no/such", "/nor/this")
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert "nothing at /no/such, /nor/this" in line
    assert not (tmp_path / "out").exists()


def test_an_output_folder_in_use_is_named(tmp_path: Path, pack: Path) -> None:
    series(tmp_path / "in", 3)
    arguments = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--pack", pack)
    _call(*arguments)
    answer = _call(*arguments)
    assert answer.returncode == 2
    assert "--resume" in answer.stderr


def test_a_folder_without_a_study_is_said_to_be_one(tmp_path: Path, pack: Path) -> None:
    (tmp_path / "in").mkdir()
    answer = _call("grade", tmp_path / "in", "--out", tmp_path / "out", "--pack", pack)
    assert answer.returncode == 1
    assert "No study was found" in answer.stderr


def test_resuming_with_another_pack_is_refused_in_one_line(tmp_path: Path, pack: Path) -> None:
    series(tmp_path / "in", 7)
    arguments = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--resume", "--pack")
    assert _call(*arguments, pack).returncode == 1
    other = write_tiny_pack(tmp_path / "other").path
    content = (other / "pack.json").read_text()
    (other / "pack.json").write_text(content.replace('"tests only"', '"other tests"'))
    answer = _call(*arguments, other)
    assert answer.returncode == 2
    (line,) = answer.stderr.strip().splitlines()
    assert "made with another pack" in line


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(tmp_path: Path, pack: Path) -> None:
    write_studies(tmp_path / "in", 60)
    script = "from stenosis_trt.engine.cli.app import main; main()"
    arguments = ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--pack", str(pack)]
    command = [sys.executable, "-c", script, *arguments]
    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": default_signals}
    with subprocess.Popen(command, **options) as process:
        deadline = time.monotonic() + 60
        while not [*(tmp_path / "out" / "studies").glob("*.failed.json")] and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=time_limit(60))
    assert process.returncode == 130
    assert messages.strip().splitlines()[-1].endswith("--resume goes on from there.")
    assert "Traceback" not in messages


def test_a_description_is_shown_as_it_is_whatever_brackets_it_has(tmp_path: Path) -> None:
    def change(content: Dataset, index: int) -> None:
        content.SeriesDescription = "t2 [/red] [bold]"

    series(tmp_path / "in", 7, change)
    assert "[/red]" in _call("inspect", tmp_path / "in").stdout
    script = "from stenosis_trt.engine.cli.app import main; main()"
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160"}
    command = [sys.executable, "-c", script, "inspect", str(tmp_path / "in")]
    with Terminal() as terminal:
        process = subprocess.Popen(command, stdout=terminal.device, env=environment)
        seen = terminal.read_all()
        assert process.wait(60) == 0
    assert b"[/red] [bold]" in seen


def test_inspect_shows_roles_and_reasons_and_no_identifier(tmp_path: Path) -> None:
    series(tmp_path / "in", 7)
    answer = _call("inspect", tmp_path / "in")
    assert answer.returncode == 0
    assert "sagittal T2" in answer.stdout
    assert "SECRET" not in answer.stdout + answer.stderr


def test_what_is_over_a_limit_can_be_read_once_the_advice_is_followed(tmp_path: Path, pack: Path) -> None:
    series(tmp_path / "in", 7)
    limit = "max_file_bytes=1KiB"
    answer = _call("inspect", tmp_path / "in", "--read-limit", limit)
    assert answer.returncode == 1
    advice = answer.stderr.split("Raise it with ")[1].splitlines()[0].removesuffix(".").split()
    assert _call("inspect", tmp_path / "in", "--read-limit", limit, *advice).returncode == 0
    answer = _call(
        "grade", tmp_path / "in", "--out", tmp_path / "o", "--pack", pack, "--read-limit", limit, *advice
    )
    assert "1 could not be graded" in answer.stderr
    assert json.loads((tmp_path / "o" / "run.json").read_text())["options"]["limits"]["max_file_bytes"] > 1024


def test_inspect_shows_what_is_in_a_path_and_obeys_nothing_of_it(tmp_path: Path) -> None:
    series(tmp_path / "in", 7)
    folder = os.fsencode(tmp_path / "in")
    for name in (b"M\xfcller.txt", b"a\nb\x1b[31mred.txt"):
        with open(folder + b"/" + name, "wb") as stream:
            stream.write(b"hello")
    (tmp_path / "in" / "link").symlink_to("/nowhere")
    answer = _call("inspect", tmp_path / "in")
    assert "\x1b" not in answer.stderr
    of_paths = [line for line in answer.stderr.splitlines() if line.startswith("/")]
    lines = {line.split(": ")[0].rsplit("/", 1)[1]: line for line in of_paths}
    assert set(lines) == {"M\\udcfcller.txt", "a\\nb\\x1b[31mred.txt", "link"}
    assert "The link is broken." in lines["link"]


def test_inspecting_a_folder_without_a_study_says_so(tmp_path: Path) -> None:
    answer = _call("inspect", tmp_path)
    assert (answer.returncode, answer.stderr) == (1, "No study was found.\n")


def test_phantom_names_the_syntaxes_it_knows(tmp_path: Path) -> None:
    answer = _call("phantom", tmp_path, "--studies", 1, "--transfer-syntax", "zip")
    assert answer.returncode == 2
    shown = _call("phantom", "--help").stdout
    for name in TRANSFER_SYNTAXES:
        assert name in answer.stderr
        assert name in shown


def test_phantoms_are_not_mixed_with_what_a_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("mine")
    answer = _call("phantom", tmp_path, "--studies", 1)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert "(Directory not empty). Give another folder." in line
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def _has_rows(table: Path) -> bool:
    return table.exists() and len(table.read_text().splitlines()) > 1


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_phantoms_leave_the_truth_of_the_studies_that_are_there(
    workers: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script = "from stenosis_trt.engine.cli.app import main; main()"
    arguments = ["phantom", str(out), "--studies", "30", "--workers", str(workers)]
    command = [sys.executable, "-c", script, *arguments]
    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": default_signals}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        deadline = time.monotonic() + 100
        while not _has_rows(out / "truth.csv") and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        # As a terminal does it: to the processes that share the work as well.
        os.killpg(process.pid, signal.SIGINT)
        _, messages = process.communicate(timeout=time_limit(100))
    assert process.returncode == 130
    assert messages.splitlines()[-1].startswith("Interrupted. The studies that were finished are in ")
    assert "Traceback" not in messages
    with (out / "truth.csv").open(newline="") as stream:
        known = {row["study_uid"] for row in csv.DictReader(stream)}
    there = [path for path in out.iterdir() if path.is_dir()]
    found = {str(dcmread(next(folder.rglob("*.dcm"))).StudyInstanceUID) for folder in there}
    assert found == known
    assert 1 <= len(there) == len(known) < 30


def test_phantoms_interrupted_while_their_processes_start_print_no_traceback(tmp_path: Path) -> None:
    """A process that starts does not ignore interrupts yet; importing takes it longer than the wait here."""
    script = "from stenosis_trt.engine.cli.app import main; main()"
    command = [sys.executable, "-c", script, "phantom", str(tmp_path / "out"), "--workers", "2"]
    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": default_signals}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        _, rest = process.communicate(timeout=time_limit(100))
    assert process.returncode == 130
    assert first.startswith("Making phantoms: 0 of 3")
    assert [line for line in rest.splitlines() if not line.startswith("Making")] == [
        f"Interrupted. The studies that were finished are in {tmp_path / 'out'}, with their truth; "
        "--resume goes on."
    ]


def test_killed_phantoms_leave_no_worker_behind_and_go_on_with_resume(tmp_path: Path) -> None:
    script = "from stenosis_trt.engine.cli.app import main; main()"
    out = tmp_path / "out"
    options = ["--studies", "4", "--seed", "11", "--workers", "2"]
    command = [sys.executable, "-c", script, "phantom", str(out), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        while not _has_rows(out / "truth.csv") and time.monotonic() < deadline:
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    assert len(children) >= 2
    deadline = time.monotonic() + 2
    while any(Path("/proc", child, "exe").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [child for child in children if Path("/proc", child, "exe").exists()]

    assert _call("phantom", out, *options).returncode == 2
    other = _call("phantom", out, "--studies", 4, "--seed", 12, "--resume")
    assert other.returncode == 2
    assert "is of another seed, grade, anatomy or condition." in other.stderr
    answer = _call("phantom", out, *options, "--resume")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.startswith(("Making phantoms: 0 of 2", "Making phantoms: 0 of 3"))
    names = [f"study_{number:04d}" for number in range(1, 5)]
    assert sorted(path.name for path in out.iterdir()) == [*names, "truth.csv"]
    assert len((out / "truth.csv").read_text().splitlines()) == 1 + 4 * 6


def test_demo_names_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        answer = _call("demo", "--out", out)
        assert answer.returncode == 2
        (line,) = answer.stderr.splitlines()
        assert f"{out} cannot be written" in line


def test_a_second_demo_says_where_the_first_ones_results_are(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.csv").write_text("")
    answer = _call("demo", "--out", tmp_path)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert str(tmp_path / "results" / "results.csv") in line
    assert line.endswith("Give demo a new or empty folder with --out.")
    assert not (tmp_path / "studies").exists()


def test_phantoms_are_not_written_where_they_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = _call("phantom", tmp_path / "file", "--studies", 1)
    assert answer.returncode == 2
    assert len(answer.stderr.strip().splitlines()) == 1


def test_verify_finds_a_changed_file(tmp_path: Path) -> None:
    folder = write_tiny_pack(tmp_path / "pack").path
    assert _call("verify", folder).returncode == 0
    (folder / "cord.onnx").write_bytes(b"changed")
    answer = _call("verify", folder)
    assert answer.returncode == 2
    assert "cord.onnx" in answer.stderr


def test_verify_finds_a_model_that_is_not_what_the_pack_says(tmp_path: Path) -> None:
    folder = write_tiny_pack(tmp_path / "pack").path
    content = json.loads((folder / "pack.json").read_text())
    content["models"]["cord"]["output"]["stride"] = 4
    (folder / "pack.json").write_text(json.dumps(content))
    answer = _call("verify", folder)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert "cord.onnx cannot be used as the model cord: its output is" in line


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


def test_doctor_reports_a_broken_pack_instead_of_failing(tmp_path: Path) -> None:
    answer = _call("doctor", "--pack", tmp_path)
    assert answer.returncode == 0
    assert "cannot be read" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--pack", "/nowhere"], "no pack at /nowhere"), (["--device", "tpu"], "no device 'tpu'")],
)
def test_doctor_refuses_what_is_not_there_to_examine(arguments: list[str], words: str) -> None:
    answer = _call("doctor", *arguments)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert words in line


def test_a_terminal_that_lacks_a_character_is_shown_its_code() -> None:
    script = "from stenosis_trt.engine.cli.app import main; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-c", script, "doctor", "--device", "gpu"]
    answer = subprocess.run(command, capture_output=True, env=environment, timeout=time_limit(120))
    assert answer.returncode == 0
    assert rb"\u2192" in answer.stdout
