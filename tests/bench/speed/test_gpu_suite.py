"""The complete `stenosis-trt bench gpu-suite` with a simulated GPU; its record is labelled as simulated."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documented import ROOT, calls_in, code_in, trouble_with
from fake_gpu import environment, kernels
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.phantom.dicom_files import write_study
from stenosis_trt.bench.phantom.scan.acquisition import plan_axial, plan_sagittal
from stenosis_trt.bench.phantom.study import PhantomStudy, sample_study
from stenosis_trt.bench.speed.gpu_suite import SCENARIOS

_DOCUMENT = (ROOT / "docs" / "gpu-suite.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def stand_ins() -> dict[str, str]:
    """Environment of a process for which there is a GPU."""
    return environment(FAKE_CUDA_KERNELS=str(kernels()), FAKE_CUDA_CAPABILITY="90")


def _small_study() -> PhantomStudy:
    """Seven sagittal and eight axial slices: what a stand-in has to compute counts."""
    study, rng = sample_study(515, 0), np.random.default_rng(515)
    sagittal = replace(study.sagittal.protocol, slices=7)
    axial = study.axial.protocol
    planned = tuple(plan_sagittal(study.anatomy, sagittal, rng))
    across = tuple(plan_axial(study.anatomy, axial, rng))[::3][:8]
    return replace(
        study,
        sagittal=replace(study.sagittal, protocol=sagittal, poses=planned),
        axial=replace(study.axial, poses=across),
    )


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_study(_small_study(), folder / "study_0001", "explicit")
    return folder


def _suite(
    process: dict[str, str], phantoms: Path, out: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    script = "from stenosis_trt.engine.cli.app import main; main()"
    options = ["--existing-studies", str(phantoms), "--single-study", str(phantoms / "study_0001"), "--quick"]
    options += [
        "--flavour",
        "tensorrt",
        "--batch",
        "6,8",
        "--workers",
        "1",
        "--idle-seconds",
        "0",
        *(() if "--precision" in arguments else ("--precision", "fp32")),
        *arguments,
    ]
    command = [sys.executable, "-c", script, "bench", "gpu-suite", "--out", str(out), *options]
    return subprocess.run(command, env=process, capture_output=True, text=True, timeout=time_limit(600))


def _record(out: Path) -> dict[str, Any]:
    (file,) = out.glob("gpu-suite-*.json")
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _names(record: dict[str, Any], scenario: str) -> list[str]:
    return [figure["name"] for figure in record["scenarios"][scenario]["figures"]]


@pytest.mark.slow
def test_one_command_measures_everything_and_labels_what_a_stand_in_gave(
    stand_ins: dict[str, str], phantoms: Path, tmp_path: Path
) -> None:
    done = _suite(stand_ins, phantoms, tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    record = _record(tmp_path)
    assert record["finished"]
    assert record["passed"]
    assert list(record["scenarios"]) == list(SCENARIOS)
    assert {item["status"] for item in record["scenarios"].values()} == {"measured"}, record["scenarios"]

    assert record["stand_in"]
    assert record["gpu"]["name"] == "stand-in for a GPU"
    assert "The GPU was simulated in software" in done.stdout
    assert "bench gpu-suite" in record["command"]
    assert record["versions"]["tensorrt"] == "10.3.0"

    for name, scenario in record["scenarios"].items():
        for figure in scenario["figures"]:
            assert figure["value"] is not None
            assert figure["clock"] in (None, "CUDA events", "wall")
            assert figure["passed"] in ((True, None) if name == "answers" else (None,))
    judged = [item for item in record["scenarios"]["answers"]["figures"] if item["limit"]]
    assert len(judged) == 5
    assert all(item["passed"] for item in judged)
    (ratios,) = (item["runs"] for item in judged if "ratio difference" in item["name"])
    assert ratios >= 2

    assert "fp32, CUDA graphs: study on the device, preprocess to ratios" in _names(record, "device")
    assert "fp32, launched one by one: grader, 6 regions" in _names(record, "device")
    assert "share of reading" in _names(record, "files")
    assert "1 reading process, sustained" in _names(record, "sustained")
    assert record["scenarios"]["sustained"]["details"]["studies"] == 3
    assert "no utilisation of the GPU" in " ".join(record["scenarios"]["sustained"]["notes"])
    assert _names(record, "cold-start")[0] == "process start to first result"
    assert {"left to rest: study after 0 s", "kept warm: study after 0 s"} <= set(_names(record, "idle"))
    assert "fp32, batch 6: in the pipe, of the plan alone" in _names(record, "grader")
    assert "No peer" in " ".join(record["scenarios"]["grader"]["notes"])

    (summary,) = tmp_path.glob("gpu-suite-*.md")
    text = summary.read_text(encoding="utf-8")
    assert all(f"## {name}" in text for name in SCENARIOS)
    assert "The GPU was simulated in software" in text
    assert not list((tmp_path / "work").glob("copies-*"))


def test_scenarios_that_fail_are_recorded_and_those_picked_still_run(
    stand_ins: dict[str, str], phantoms: Path, tmp_path: Path
) -> None:
    small = {**stand_ins, "FAKE_CUDA_MEMORY": str(100 << 20)}
    picked = ["--scenario", "cold-start", "--scenario", "plans", "--scenario", "idle"]
    done = _suite(small, phantoms, tmp_path, *picked)
    assert done.returncode == 1, done.stderr
    scenarios = _record(tmp_path)["scenarios"]
    assert {name: item["status"] for name, item in scenarios.items()} == {
        "plans": "measured",
        "cold-start": "failed",
        "idle": "failed",
    }
    assert "emory" in scenarios["cold-start"]["reason"]
    assert "emory" in scenarios["idle"]["reason"]
    assert "failed" in done.stdout


def test_without_a_gpu_it_is_refused_before_anything_is_made(phantoms: Path, tmp_path: Path) -> None:
    done = _suite(environment(FAKE_CUDA_FAIL="cuInit=100"), phantoms, tmp_path / "out")
    assert done.returncode == 2
    assert "There is no GPU to measure" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_precision_that_the_pack_does_not_have_is_refused_with_what_makes_it(
    stand_ins: dict[str, str], phantoms: Path, tmp_path: Path
) -> None:
    tiny = write_tiny_pack(tmp_path / "tiny")
    done = _suite(stand_ins, phantoms, tmp_path / "out", "--precision", "fp16", "--pack", str(tiny.path))
    assert done.returncode == 2
    assert "has no fp16 models" in done.stderr
    assert "stenosis-trt quantise" in done.stderr


def test_the_document_calls_what_there_is_and_names_every_scenario() -> None:
    calls = list(calls_in(code_in(_DOCUMENT)))
    assert len(calls) >= 5
    assert [trouble for call in calls if (trouble := trouble_with(call))] == []
    assert all(f"| `{name}` |" in _DOCUMENT for name in SCENARIOS)
