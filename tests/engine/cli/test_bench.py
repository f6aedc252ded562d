"""`bench all` and `bench compare`: exit codes, and one sentence for what cannot be done."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from bench_records import figure, quiet, record
from bench_sections import quiet_section, replace_sections
from shared_phantoms import small_phantoms
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner, Result

from stenosis_trt.bench import benchmark_options
from stenosis_trt.bench.record.files import read_record, write_record
from stenosis_trt.bench.record.record import BenchRecord, Section
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.engine.cli.app import app

SECONDS = 60
_SUPPORT = Path(__file__).parents[2] / "support"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def _is_one_line(text: str) -> bool:
    """One line of the program: a sentence that says what is wrong, and one that says what to do."""
    lines = text.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("stenosis-trt: ") and lines[0].count(". ") <= 1


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_tiny_pack(tmp_path / "pack")
    return tmp_path / "pack"


@pytest.fixture
def arguments(pack: Path, tmp_path: Path) -> list[object]:
    studies = small_phantoms(1, 71, 8)
    return ["all", "--out", tmp_path / "out", "--pack", pack, "--device", "cpu", "--studies", studies]


def _records(tmp_path: Path, *records: BenchRecord) -> list[Path]:
    paths = [tmp_path / f"{letter}.json" for letter, _ in zip("abc", records, strict=False)]
    for path, one in zip(paths, records, strict=True):
        write_record(path, one)
    return paths


def test_all_prints_the_table_and_says_where_the_record_is(
    arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_sections(monkeypatch)
    done = _run(*arguments, "--only", "energy", "--only", "load", "--quick")
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "out").glob("*.json")
    assert str(path) in done.stderr
    assert "Text of load.a" in done.stdout
    made = read_record(path)
    assert [section.name for section in made.sections] == ["load", "energy"]
    assert made.settings["quick"] is True
    assert made.settings["seconds"] == {"load": 70.0, "energy": 10.0}


def test_a_section_that_fails_gives_exit_code_1(
    arguments: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(context: BenchContext) -> Section:
        raise RuntimeError("no luck")

    replace_sections(monkeypatch, load=fail)
    done = _run(*arguments)
    assert done.exit_code == 1
    assert "load failed: RuntimeError: no luck" in done.stdout


def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_sections(monkeypatch, load=lambda context: pytest.fail("it was measured"))
    (tmp_path / "empty").mkdir()
    find = importlib.util.find_spec
    for options, said in (
        (["--studies", tmp_path / "empty"], "holds no studies"),
        (["--studies", "0"], "leaves nothing to measure"),
        (["--precision", "fp16"], "no fp16 models that passed the gate"),
        (["--only", "speed"], "There is no section 'speed'"),
        (["--device", "abacus"], "There is no device 'abacus'"),
        (["--device", "gpu"], "GPU"),
        (["--pack", tmp_path / "none"], "none"),
        (["--require-peer", "trtexec"], "Peer trtexec is missing"),
        (["--out", tmp_path / "pack" / "pack.json" / "out"], "cannot be written"),
    ):
        done = _run(*arguments, *options)
        assert done.exit_code == 2, (options, done.output)
        last = done.stderr.strip().splitlines()[-1]
        assert _is_one_line(last), done.stderr
        assert said in last
        assert "Traceback" not in done.output
    monkeypatch.setattr(
        benchmark_options.importlib.util,
        "find_spec",
        lambda name: None if name == "mlperf_loadgen" else find(name),
    )
    done = _run(*arguments)
    assert done.exit_code == 2
    assert _is_one_line(done.stderr)
    assert "mlcommons-loadgen" in done.stderr
    assert "--only peers --only energy" in done.stderr


def _limited(mebibytes: float, command: list[str]) -> list[str]:
    """Return the command with a limit on the size of a file: writing more fails as on a full disk."""
    blocks = int(mebibytes * 2048)
    return ["sh", "-c", f'ulimit -f {blocks}; trap "" XFSZ; exec "$@"', "sh", *command]


def test_a_disk_without_room_is_found_before_anything_is_measured(
    arguments: list[object], tmp_path: Path
) -> None:
    program = "from stenosis_trt.engine.cli.app import main; main()"
    command = [sys.executable, "-c", program, "bench", *map(str, arguments)]
    done = subprocess.run(_limited(4, command), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2, done.stderr
    assert _is_one_line(done.stderr)
    assert f"{tmp_path / 'out'} cannot be written (File too large)" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_fills_at_the_end_leaves_the_figures_on_the_terminal(
    arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def fill(context: BenchContext) -> Section:
        shutil.rmtree(out)
        return quiet_section("scaling")(context)

    replace_sections(monkeypatch, scaling=fill)
    done = _run(*arguments)
    assert done.exit_code == 2
    last = done.stderr.strip().splitlines()[-1]
    assert _is_one_line(last)
    assert "what was measured of scaling is lost" in last
    assert "Text of scaling.a" in done.stdout


_INTERRUPTED = """
import sys, time
sys.path[:0] = {paths!r}
import pytest
from bench_sections import replace_sections
from stenosis_trt.engine.cli.app import main

def wait(context):
    print("waiting", flush=True)
    time.sleep({seconds})

replace_sections(pytest.MonkeyPatch(), peers=wait)
main()
"""


def test_ctrl_c_leaves_what_was_measured(arguments: list[object], tmp_path: Path) -> None:
    script = _INTERRUPTED.format(paths=[str(_SUPPORT), str(_SUPPORT.parent)], seconds=SECONDS)
    with subprocess.Popen(
        [sys.executable, "-c", script, "bench", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=SECONDS)
    assert program.returncode == 130, said
    assert f"Interrupted. What was measured is in {tmp_path / 'out'}." in said
    (path,) = (tmp_path / "out").glob("*.json")
    assert [section.name for section in read_record(path).sections] == ["load"]


def test_a_record_compared_with_itself_has_not_moved(tmp_path: Path) -> None:
    (path,) = _records(tmp_path, record(figure("load.a", 3.0)))
    done = _run("compare", path, path)
    assert done.exit_code == 0
    assert "Nothing moved beyond the noise, of 1 figures." in done.stdout


def test_what_got_worse_gives_exit_code_1_and_what_got_better_does_not(tmp_path: Path) -> None:
    slow, fast = _records(tmp_path, record(figure("load.a", 3.0)), record(figure("load.a", 2.0)))
    done = _run("compare", slow, fast)
    assert (done.exit_code, "50 % faster" in done.stdout) == (0, True)
    done = _run("compare", fast, slow)
    assert (done.exit_code, "50 % slower" in done.stdout) == (1, True)
    assert _run("compare", fast, slow, "--minimum-effect", "60").exit_code == 0


def test_a_record_of_another_machine_or_a_busy_one_is_compared_and_labelled(tmp_path: Path) -> None:
    here = record(figure("load.a", 3.0))
    busy = {**quiet(0.4), "sentence": "The machine was busy."}
    there = replace(here, machine={**here.machine, "processor": "Other"}, busy=busy)
    done = _run("compare", *_records(tmp_path, here, there))
    assert done.exit_code == 0
    assert "A and B are of different machines" in done.stdout
    assert "processor: AMD EPYC -> Other" in done.stdout
    assert "The machine was busy." in done.stdout


def test_a_file_that_is_no_record_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (path,) = _records(tmp_path, record())
    other = tmp_path / "other.json"
    for content in ("", "{}", json.dumps({"schema": 99, "sections": []})):
        other.write_text(content)
        for pair in ((path, other), (other, path)):
            done = _run("compare", *pair)
            assert done.exit_code == 2
            assert _is_one_line(done.stderr)
            assert str(other) in done.stderr
    done = _run("compare", path, tmp_path / "missing.json")
    assert done.exit_code == 2
    assert _is_one_line(done.stderr)
