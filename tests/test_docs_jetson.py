"""docs/jetson.md and what lies beside it, held against the program: nothing is named that is not there."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import ROOT, calls_in, code_in, join_lines, trouble_with
from typer.testing import CliRunner

from stenosis_trt.bench.roofline.layer_work import model_work
from stenosis_trt.bench.speed.devices import GPU_SPECS
from stenosis_trt.bench.speed.roofline import StudyWork, kernel_bytes, time_lines, work_lines
from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.packs.pack import Pack, reference_pack

DOCUMENT = ROOT / "docs" / "jetson.md"
FOLDER = ROOT / "docs" / "jetson"
UNITS = FOLDER / "systemd"
CONTAINERFILES = ("Containerfile.jetpack6", "Containerfile.jetpack7")

_SERVICE = UNITS / "stenosis-trt.service"
_INSTRUCTIONS = {*("ARG", "FROM", "ENV", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "SHELL")}
_TARGETS = ("sysinit", "basic", "shutdown", "timers", "multi-user", "local-fs", "paths", "umount", "final")


def _document() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def _settings(unit: Path) -> Iterator[tuple[str, str]]:
    for line in join_lines(unit.read_text(encoding="utf-8")).splitlines():
        if line and line[0] not in "#[":
            name, value = line.split("=", 1)
            yield name, value


def _instructions(name: str) -> list[tuple[str, str]]:
    """Of a Containerfile: each instruction and what follows it."""
    lines = [line for line in (FOLDER / name).read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    text = join_lines("\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line]


def test_every_call_in_the_document_is_one_that_the_program_takes() -> None:
    calls = list(calls_in(code_in(_document())))
    names = {call[0] for call in calls}
    assert {"doctor", "build", "grade", "verify", "quantise", "bench"} <= names
    assert {" ".join(call): trouble_with(call) for call in calls if trouble_with(call)} == {}


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ("stenosis-trt grade A --out B --resume", ""),
        ("/opt/stenosis-trt/venv/bin/stenosis-trt grade A --ouput B", "grade has no --ouput"),
        ("docker run --rm stenosis-trt:jetpack6 bild", "there is no command 'bild'"),
        ("stenosis-trt bench roofline --gpu x", "roofline has no --gpu"),
        ("stenosis-trt bench --compare-with x", "bench has no --compare-with"),
    ],
)
def test_a_call_that_the_program_does_not_take_is_found(line: str, trouble: str) -> None:
    assert [trouble_with(call) for call in calls_in(line)] == [trouble]


def test_names_that_contain_the_programs_are_no_calls() -> None:
    for line in (
        "systemctl start stenosis-trt.timer",
        "docker build -t stenosis-trt:jetpack6 .",
        "pip install 'stenosis-trt[gpu]'",
    ):
        assert list(calls_in(line)) == []


def test_options_that_stand_alone_in_the_document_are_somebodys() -> None:
    """`--workspace 1GiB` behind a command's name, or alone: one of the commands named here has it."""
    spans = [span for span in code_in(_document()).splitlines() if re.match(r"(build|grade|doctor|--)", span)]
    commands = ("build", "grade", "doctor", "verify", "bench roofline", "bench kernels", "bench choose")
    for span in spans:
        words = span.split()
        if words[0].startswith("--"):
            tried = [[*command.split(), words[0]] for command in commands]
            foreign = words[0] in ("--system-site-packages", "--runtime", "--gpus")
            assert foreign or any(not trouble_with(call) for call in tried), span
        elif words[0] in commands and len(words) > 1:
            assert trouble_with(words) == "", span


def test_every_file_of_the_checkout_that_the_document_names_is_there() -> None:
    named = set(re.findall(r"(?<![\w/])((?:docs|bench|\.ci)/[\w./-]*\w)", _document()))
    assert {"docs/jetson/wheels.sh", "docs/jetson/systemd", "docs/jetson/Containerfile.jetpack6"} <= named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_file_beside_the_document_is_named_in_it() -> None:
    files = {path.name for path in FOLDER.rglob("*") if path.is_file()}
    assert {name for name in files if name.removesuffix(".dockerignore") not in _document()} == set()


def test_what_the_document_expects_is_what_the_command_computes() -> None:
    """When this fails: stenosis-trt bench roofline --device jetson, and put its first two tables there."""
    pack = Pack.load(reference_pack())
    batches = {"levels": 15, "grader": 6, "cord": 30}
    models = tuple(model_work(pack, name, batch) for name, batch in batches.items())
    study = StudyWork("", models, kernel_bytes(pack, batches))
    jetsons = [device for device in GPU_SPECS if "Jetson" in device.name]
    table = "\n".join([*work_lines(study), "", *time_lines(study, jetsons)])
    assert table in _document()
    assert "Computed, not measured" in _document()


def test_the_document_says_that_no_jetson_was_at_hand() -> None:
    assert "No Jetson was at hand" in _document()


def test_the_messages_that_are_explained_are_messages_of_the_program() -> None:
    table = _document().split("## What messages mean")[1].split("| message of others")[0]
    messages = [
        message
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for message in re.findall(r"`([^`]+)`", row)
    ]
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("engine", "kernels")
        for path in (ROOT / folder).rglob("*.py")
    )
    assert len(messages) >= 10
    assert [message for message in messages if message not in source] == []


def test_the_service_calls_what_the_program_takes() -> None:
    (start,) = [value for name, value in _settings(_SERVICE) if name == "ExecStart"]
    (call,) = calls_in(start)
    assert call[0] == "grade"
    assert {"--out", "--resume", "--pack", "--device", "--precision", "--workers"} <= set(call)
    assert trouble_with(call) == ""


def test_the_services_variables_have_values_and_the_settings_file_names_no_others() -> None:
    settings = list(_settings(_SERVICE))
    (start,) = [value for name, value in settings if name == "ExecStart"]
    used = set(re.findall(r"\$\{?([A-Z]+)\}?", start))
    first = next(value for name, value in settings if name == "Environment")
    given = {item.split("=")[0] for item in first.split()}
    lines = (UNITS / "grade.env").read_text(encoding="utf-8").splitlines()
    overruled = {line.split("=")[0] for line in lines if line and line[0] != "#"}
    assert used == given == overruled


def test_the_service_can_change_its_results_and_its_cache_alone() -> None:
    settings = list(_settings(_SERVICE))
    values = dict(settings)
    assert values["ProtectSystem"] == "strict"
    assert values["ReadWritePaths"] == "/var/lib/stenosis-trt/results"
    assert f"--out {values['ReadWritePaths']} " in values["ExecStart"]
    assert values["User"] == "stenosis"
    assert values["DevicePolicy"] == "closed"
    assert values["PrivateNetwork"] == values["NoNewPrivileges"] == "yes"
    assert values["CapabilityBoundingSet"] == ""
    made = (UNITS / "stenosis-trt.tmpfiles.conf").read_text(encoding="utf-8")
    for path in (values["ReadWritePaths"], values.get("ReadOnlyPaths", "").split()[-1]):
        assert f"d {path} " in made
    users = (UNITS / "stenosis-trt.sysusers.conf").read_text(encoding="utf-8")
    for group in values["SupplementaryGroups"].split():
        assert f"m stenosis {group}" in users


def test_a_study_that_cannot_be_graded_does_not_fail_the_unit_and_a_bad_pack_does() -> None:
    from stenosis_trt.engine.cli.errors import EXIT_INCOMPLETE, EXIT_USAGE

    values = dict(_settings(_SERVICE))
    # 143: stopped by systemd, with the results of what was graded.
    assert values["SuccessExitStatus"].split() == [str(EXIT_INCOMPLETE), "143"]
    assert EXIT_USAGE != EXIT_INCOMPLETE


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for path in UNITS.iterdir():
        if path.suffix in (".service", ".path", ".timer"):
            shutil.copy(path, units)
    for target in _TARGETS:
        (units / f"{target}.target").write_text("[Unit]\nDescription=stand-in\n", encoding="utf-8")
    # What is called is looked for.
    for program in ("opt/stenosis-trt/venv/bin/stenosis-trt", "usr/bin/jetson_clocks"):
        (tmp_path / program).parent.mkdir(parents=True)
        (tmp_path / program).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / program).chmod(0o755)
    ours = [path.name for path in units.iterdir() if path.suffix != ".target"]
    answer = subprocess.run(
        [analyze, "verify", f"--root={tmp_path}", *ours], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_a_containerfile_builds_pycuda_and_takes_the_bases_tensorrt(name: str) -> None:
    instructions = _instructions(name)
    assert {word for word, _ in instructions} <= _INSTRUCTIONS
    text = "\n".join(rest for word, rest in instructions if word == "RUN")
    assert "pip wheel" in text
    assert ".[gpu]" in text
    assert "--system-site-packages" in text
    assert not re.search(r"\[(trt|rtx)\]|pip install[^&]* tensorrt\b", text)
    (base,) = [rest for word, rest in instructions if word == "ARG"]
    assert base.removeprefix("BASE=") in _document()


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_a_containers_program_runs_without_privileges(name: str) -> None:
    instructions = _instructions(name)
    last = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    final = dict(instructions[last:])
    assert final["USER"] == "10001"
    assert final["ENTRYPOINT"] == '["/opt/stenosis-trt/bin/stenosis-trt"]'
    assert trouble_with(re.findall(r'"([^"]+)"', final["CMD"])) == ""
    assert "uid=10001" in _document()


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_a_container_gets_every_package_and_nothing_is_kept_from_it(name: str) -> None:
    copied = [rest.split()[:-1] for word, rest in _instructions(name) if word == "COPY"]
    sources = {source for group in copied for source in group}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= sources
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    ignored = (FOLDER / f"{name}.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == sources


def test_the_script_for_wheels_refuses_a_python_that_no_jetpack_has() -> None:
    script = FOLDER / "wheels.sh"
    answer = subprocess.run([script, "3.11", "out"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == 2
    assert "JetPack 6 has Python 3.10" in answer.stderr
    assert not (ROOT / "out").exists()


def test_the_script_for_wheels_takes_the_pycuda_that_the_tests_take() -> None:
    def version(path: Path) -> str:
        (found,) = re.findall(r"^pycuda=(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        return str(found)

    assert version(FOLDER / "wheels.sh") == version(ROOT / ".ci" / "pycuda.sh")


@pytest.mark.parametrize("missing", ["wheel", "setuptools"])
def test_the_script_for_wheels_says_what_its_python_lacks_before_anything_is_downloaded(
    tmp_path: Path, missing: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1 $2" != "-c import {missing}" ] || exit 1\n[ "$1" = -c ] || exit 9\n')
    python.chmod(0o755)
    out = tmp_path / "wheels"
    answer = subprocess.run(
        [FOLDER / "wheels.sh", "3.10", out],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert answer.returncode == 2
    assert f"has no {missing}. Make an environment with it" in answer.stderr
    assert "pip install pip setuptools wheel" in answer.stderr
    assert not out.exists()


def test_the_first_test_gives_the_result_that_the_document_shows(tmp_path: Path) -> None:
    section = _document().split("### A first test with a known result")[1].split("\n## ")[0]
    calls, printed = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    for call in list(calls_in(calls)):
        answer = CliRunner().invoke(app, [str(tmp_path / item) if "TRY" in item else item for item in call])
        assert answer.exit_code == 0, answer.output
    with (tmp_path / "TRY-CPU" / "results.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    (columns,) = re.findall(r"-f([\d,]+) ", calls)
    picked = [int(column) - 1 for column in columns.split(",")]
    assert "\n".join(",".join(row[k] for k in picked) for row in rows) == printed.strip()


def test_the_debian_packages_are_the_same_with_and_without_internet() -> None:
    lines = [line for line in code_in(_document()).splitlines() if "apt-get install" in line]
    named = [set(re.findall(r"(?:nvidia-jetpack|python3-\w+|g\+\+)", line)) for line in lines]
    online = set().union(*named[:2])
    assert {"nvidia-jetpack", "python3-libnvinfer", "g++", "python3-dev", "python3-venv"} == online
    assert [packages for packages in named[2:] if packages] == [online, online]
