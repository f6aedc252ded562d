"""`bench choose`: devices and machines against a demand, and files that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from time_limits import time_limit

from stenosis_trt.bench.choose import (
    Candidate,
    Demand,
    choice_lines,
    computed_candidates,
    measured_candidates,
)
from stenosis_trt.bench.choose_records import MeasuredMachine, read_machines
from stenosis_trt.bench.record.files import write_record
from stenosis_trt.bench.record.record import BenchRecord, Figure, Section
from stenosis_trt.bench.speed.devices import GPU_SPECS, PRECISIONS
from stenosis_trt.bench.speed.roofline import LayerWork, ModelWork, StudyWork
from stenosis_trt.engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "bench" / "results" / "kernels-nvidia-h200.json"

LAYER = LayerWork("a", "Conv", 10**12, 0, 10**6, 10**6)
WORK = StudyWork("made up 1", (ModelWork("levels", 1, 1, 1, (LAYER,)),), dict.fromkeys(PRECISIONS, 0))
"""2e12 operations: 1.56 s in FP32 on an Orin Nano at 15 W, and 16.5 ms in FP16 on an L4."""


def _candidate(name: str, demand: Demand, precision: str = "fp32") -> Candidate:
    (found,) = [item for item in computed_candidates(WORK, precision, demand) if item.device == name]
    return found


def test_every_device_states_its_power_or_why_it_is_unknown() -> None:
    for device in GPU_SPECS:
        assert device.power_source
        assert device.watts is None or 5.0 <= device.watts <= 1000.0


def test_a_device_that_is_too_slow_at_its_peak_is_refused() -> None:
    found = _candidate("Jetson Orin Nano 8GB, 15 W", Demand(3000.0))
    assert found.verdict == "no"
    assert found.p99_ms is None
    assert "faster than" in found.reason
    late = _candidate("Jetson Orin Nano 8GB, 15 W", Demand(1.0, p99_seconds=1.0))
    assert late.verdict == "no"


def test_a_device_is_accepted_once_the_time_to_read_is_known() -> None:
    open_question = _candidate("L4", Demand(60.0, p99_seconds=1.0), "fp16")
    assert (open_question.verdict, open_question.study_ms.source) == ("if", "computed")
    room = int(open_question.reason.split("less than ")[1].split(" ms")[0])
    answered = _candidate("L4", Demand(60.0, p99_seconds=1.0, host_ms=room - 5.0), "fp16")
    assert answered.verdict == "yes"
    assert answered.study_ms.low == pytest.approx(open_question.study_ms.low + room - 5.0)
    assert _candidate("L4", Demand(60.0, 1.0, host_ms=room + 5.0), "fp16").verdict != "yes"


def test_energy_is_the_power_budget_over_the_time_of_a_study() -> None:
    found = _candidate("L4", Demand(60.0, host_ms=500.0), "fp16")
    assert found.joules is not None
    # Reading on the host is not at the card's power.
    assert found.joules.low == pytest.approx(72.0 * (found.study_ms.low - 500.0) / 1e3)
    assert _candidate("L4", Demand(60.0, joules=0.1, host_ms=1.0), "fp16").verdict == "unknown"
    unstated = _candidate("Jetson Orin NX 16GB, MAXN", Demand(1.0, joules=100.0))
    assert unstated.joules is None
    assert "not known" in unstated.reason


def _machine(**fields: object) -> MeasuredMachine:
    return MeasuredMachine("A machine", Path("a.json"), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "demand", "verdict"),
    [
        (_machine(whole_ms=400.0), Demand(60.0), "yes"),
        (_machine(whole_ms=400.0), Demand(60.0, p99_seconds=0.3), "no"),
        (_machine(whole_ms=400.0), Demand(10_000.0), "no"),
        (_machine(whole_ms=400.0, studies_a_second=4.0), Demand(10_000.0), "unknown"),
        (_machine(whole_ms=400.0, tail_ms=2000.0), Demand(60.0, p99_seconds=1.0), "no"),
        (_machine(whole_ms=400.0), Demand(60.0, joules=10.0), "unknown"),
        (_machine(whole_ms=400.0, joules=20.0), Demand(60.0, joules=10.0), "no"),
        (_machine(whole_ms=400.0, joules=5.0), Demand(60.0, joules=10.0), "yes"),
        (_machine(whole_ms=400.0, stood_in=True), Demand(60.0), "unknown"),
    ],
)
def test_a_measured_machine_is_judged_by_its_record(
    machine: MeasuredMachine, demand: Demand, verdict: str
) -> None:
    (found,) = measured_candidates([machine], demand)
    assert found.verdict == verdict
    assert found.study_ms.source == "measured"


def test_a_machine_whose_whole_study_was_not_measured_is_no_candidate() -> None:
    assert list(measured_candidates([_machine(preprocessing_ms=0.1)], Demand(1.0))) == []


def test_the_table_marks_what_is_measured_and_what_is_computed() -> None:
    demand = Demand(60.0)
    candidates = [
        *measured_candidates([_machine(whole_ms=412.0, joules=5.0)], demand),
        *computed_candidates(WORK, "fp16", demand),
    ]
    lines = choice_lines(candidates)
    assert max(map(len, lines)) <= 110
    row = next(line for line in lines if line.startswith("A machine"))
    assert "412 m" in row
    assert "5 m" in row
    assert " c " in next(line for line in lines if line.startswith("L4, FP16"))
    assert lines[-2].startswith("m: measured")


def _record(path: Path, figures: tuple[Figure, ...]) -> Path:
    machine = {"processor": "AMD EPYC", "cores": 2, "gpus": ["NVIDIA L4, 24 GB"]}
    section = Section("load", "Load", figures)
    product = {"backend": "onnxruntime"}
    write_record(path, BenchRecord("bench all", "2026-01-01", machine, {}, product, {}, {}, (section,)))
    return path


def test_records_of_all_three_commands_are_read(tmp_path: Path) -> None:
    record = _record(
        tmp_path / "2026-cpu.json",
        (
            Figure("load.single_stream.whole.p50", "a", 300.0, "ms"),
            Figure("load.single_stream.whole.p90", "b", 350.0, "ms"),
            Figure("load.offline.whole.throughput", "c", 4.0, "studies/s"),
            Figure("energy.study.whole", "d", 12.0, "J"),
        ),
    )
    suite = {
        "gpu": {"name": "NVIDIA L4"},
        "stand_in": True,
        "scenarios": {
            "files": {"figures": [{"name": "one study, files to ratios", "value": 40.0, "p99": 50.0}]},
            "sustained": {"figures": [{"name": "4 reading processes, sustained", "value": 60.0}]},
        },
    }
    (tmp_path / "suite.json").write_text(json.dumps(suite), encoding="utf-8")
    (tmp_path / "unrelated.json").write_text("[1, 2]", encoding="utf-8")
    cpu, gpu = read_machines([tmp_path])
    assert (cpu.name, cpu.whole_ms, cpu.tail_ms) == ("AMD EPYC, 2 cores", 300.0, 350.0)
    assert (cpu.studies_a_second, cpu.joules, cpu.path) == (4.0, 12.0, record)
    assert (gpu.name, gpu.whole_ms, gpu.tail_ms) == ("NVIDIA L4", 40.0, 50.0)
    assert (gpu.studies_a_second, gpu.stood_in) == (60.0, True)
    (kernels,) = read_machines([KERNELS])
    assert kernels.name == "NVIDIA H200"
    assert kernels.preprocessing_ms == pytest.approx(0.1, abs=0.1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "is no record of a benchmark"),
        ('{"scenarios": 3, "gpu": {}}', "is damaged"),
        ('{"figures": [{}], "machine": {"gpu": "x"}}', "is damaged"),
        ('{"sections": [], "machine": {}, "product": {}}', "no benchmark record"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=reason):
        read_machines([path])


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no record"):
        read_machines([tmp_path])
    with pytest.raises(InputError, match="cannot be read"):
        read_machines([tmp_path / "missing"])


def _call(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = "from stenosis_trt.engine.cli.app import main; main()"
    command = [sys.executable, "-c", script, "bench", "choose", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit(120))


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    out = tmp_path / "choice.json"
    answer = _call(KERNELS, "--studies-per-hour", 60, "--p99", 1, "--json", out)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("60 studies an hour, p99 within 1 s; pack reference")
    assert "Measured: preprocessing of a study" in answer.stdout
    content = json.loads(out.read_text(encoding="utf-8"))
    assert {item["device"] for item in content["candidates"]} == {device.name for device in GPU_SPECS}
    assert {item["study_ms"]["source"] for item in content["candidates"]} == {"computed"}
    assert content["demand"]["p99_seconds"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--studies-per-hour", 0), "--studies-per-hour 0 is not allowed"),
        (("--p99", "nan"), "--p99 nan is not allowed"),
        (("--precision", "fp8"), "There is no precision 'fp8'"),
        (("--device", "Xavier"), "No device is called Xavier"),
        (("missing.json",), "missing.json cannot be read (No such file"),
        (("--pack", "missing"), "missing"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_exit_code_2(arguments: tuple[object, ...], reason: str) -> None:
    answer = _call(*arguments)
    assert answer.returncode == 2
    assert reason in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stderr.count("\n") == 1
