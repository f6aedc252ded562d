"""TensorRT's commands: what they print is read, and what goes wrong is said. The commands are stand-ins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.peers import command_peers
from stenosis_trt.bench.peers.peer import PeerAbsent, Workload

TRTEXEC = """[I] === Performance summary ===
[I] Throughput: 812.2 qps
[I] Latency: min = 1.3 ms, max = 2.6 ms, mean = 1.45 ms, median = 1.41 ms, percentile(90%) = 1.6 ms
[I] GPU Compute Time: min = 1.1 ms, max = 2.2 ms, mean = 1.22 ms, median = 1.2 ms, percentile(90%) = 1.3 ms
"""
POLYGRAPHY = "[I] trt-runner | Completed 100 iteration(s) in 237.1 ms | Average inference time: 2.371 ms.\n"


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> Path:
    """Put a command on PATH that writes its arguments to a file."""
    log = folder / "arguments.txt"
    command = folder / name
    command.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{script}\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    pack = write_tiny_pack(tmp_path / "tiny")
    model = pack.models["grader"]
    return Workload(pack.path / model.file, np.zeros((6, *model.input_shape), np.float32))


def test_printed_times_are_read() -> None:
    assert command_peers.trtexec_seconds(TRTEXEC) == pytest.approx(0.0012)
    assert command_peers.polygraphy_seconds(POLYGRAPHY) == pytest.approx(0.002371)
    with pytest.raises(PeerAbsent, match="trtexec printed no time"):
        command_peers.trtexec_seconds("nothing")


def test_trtexec_builds_an_engine_once_and_runs_it_for_each_time(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "printed").write_text(TRTEXEC, encoding="utf-8")
    log = _install(tmp_path, monkeypatch, "trtexec", f"cat {tmp_path / 'printed'}")
    timer = command_peers.open_trtexec(workload, tmp_path)
    assert [timer(), timer()] == [pytest.approx(0.0012)] * 2
    built, *runs = log.read_text(encoding="utf-8").splitlines()
    assert f"--onnx={workload.model}" in built
    assert "--shapes=image:6x3x64x64" in built
    assert len(runs) == 2
    assert all("--loadEngine=" in run for run in runs)


def test_polygraphy_converts_once_and_runs_the_engine(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "printed").write_text(POLYGRAPHY, encoding="utf-8")
    log = _install(tmp_path, monkeypatch, "polygraphy", f"cat {tmp_path / 'printed'}")
    timer = command_peers.open_polygraphy(workload, tmp_path)
    assert timer() == pytest.approx(0.002371)
    built, run = log.read_text(encoding="utf-8").splitlines()
    assert built.startswith(f"convert {workload.model} --convert-to trt")
    assert run.startswith("run ")
    assert "image:[6,3,64,64]" in run


def test_a_command_that_fails_gives_its_last_line(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, "trtexec", "echo 'no GPU here.' >&2; exit 1")
    with pytest.raises(PeerAbsent, match="trtexec failed: no GPU here"):
        command_peers.open_trtexec(workload, tmp_path)


def test_a_command_that_is_missing_is_said(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(command_peers, "_MORE_FOLDERS", str(tmp_path))
    assert command_peers.find("trtexec") is None
    with pytest.raises(PeerAbsent, match="The command trtexec was not found"):
        command_peers.open_trtexec(workload, tmp_path)
