"""LoadGen against fast systems under test: its verdicts, and how a run ends."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from time_limits import time_limit

from stenosis_trt.bench.load import running
from stenosis_trt.bench.load.loadgen import QUERY
from stenosis_trt.bench.load.running import run_scenario
from stenosis_trt.bench.load.settings import ScenarioSettings
from stenosis_trt.engine.errors import NotWritten, StenosisError

_SECONDS = 0.3
_SINGLE = ScenarioSettings("SingleStream", 5, 0.001, _SECONDS, 64)


def _slow(seconds: float) -> running.Serve:
    """A system that takes so long for a sample."""

    def serve(indices: Sequence[int]) -> Iterator[Sequence[int]]:
        for position in range(len(indices)):
            time.sleep(seconds)
            yield (position,)

    return serve


def _at_once(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    yield range(len(indices))


def test_single_stream_is_valid_and_its_percentile_is_that_of_the_latencies(tmp_path: Path) -> None:
    run = run_scenario(_SINGLE, _slow(0.002), tmp_path)
    assert run.summary.valid
    assert set(run.summary.conditions.values()) == {True}
    assert run.summary.errors == 0
    ninety = run.summary.figure("90.0th percentile latency") / 1e9
    assert ninety >= 0.002
    assert ninety == pytest.approx(np.percentile(run.latencies, 90), rel=0.25)
    assert run.summary.early_stopping_ns
    record = run.record()
    assert (record["verdict"], record["settings"]["min_queries"]) == ("VALID", 64)
    assert len(record["latencies_ms"]) == len(run.latencies) >= 64
    assert (tmp_path / "mlperf_log_detail.txt").is_file()


def test_a_query_of_multi_stream_has_every_sample_of_the_library(tmp_path: Path) -> None:
    queries = []

    def serve(indices: Sequence[int]) -> Iterator[Sequence[int]]:
        queries.append(sorted(indices))
        yield range(len(indices))

    settings = ScenarioSettings("MultiStream", 7, 0.0001, _SECONDS, 662, 0.99, samples_per_query=7)
    run = run_scenario(settings, serve, tmp_path)
    assert run.summary.valid
    assert len(run.latencies) == len(queries) >= 662
    assert all(query == list(range(7)) for query in queries)


def test_offline_gives_the_throughput_of_all_samples(tmp_path: Path) -> None:
    run = run_scenario(ScenarioSettings("Offline", 5, 0.001, _SECONDS, 1), _slow(0.001), tmp_path)
    assert run.summary.valid
    rate = run.summary.figure("Samples per second")
    assert rate == pytest.approx(len(run.latencies) / max(run.latencies), rel=0.1)


def test_server_is_valid_below_the_capacity_and_invalid_above(tmp_path: Path) -> None:
    settings = ScenarioSettings(
        "Server", 5, 0.001, _SECONDS, 459, 0.99, target_qps=600.0, bound_seconds=time_limit(0.5)
    )
    assert run_scenario(settings, _at_once, tmp_path / "fast").summary.valid
    slow = ScenarioSettings("Server", 5, 0.001, _SECONDS, 459, 0.99, target_qps=600.0, bound_seconds=0.01)
    run = run_scenario(slow, _slow(0.003), tmp_path / "slow")
    assert not run.summary.valid
    assert "Performance constraints satisfied" in run.summary.broken_rules()
    assert run.record()["verdict"] == "INVALID"


def test_too_few_queries_are_invalid(tmp_path: Path) -> None:
    run = run_scenario(ScenarioSettings("SingleStream", 5, 0.01, 0.01, 10), _slow(0.005), tmp_path)
    assert not run.summary.valid
    assert run.summary.broken_rules() == ("Early stopping satisfied",)


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Offline", "Server"])
@pytest.mark.parametrize("error", [ValueError("The network failed."), KeyboardInterrupt()])
def test_an_exception_in_the_system_ends_the_run(
    scenario: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though LoadGen would go on for ten minutes, it is gone at once."""
    started = []
    popen = subprocess.Popen

    def starting(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(running.subprocess, "Popen", starting)

    def serve(indices: Sequence[int]) -> Iterator[Sequence[int]]:
        raise error
        yield indices

    settings = ScenarioSettings(
        scenario, 4, 1.0, 600.0, 600, 0.99, 4 if scenario == "MultiStream" else 1, 1.0, 1.0
    )  # type: ignore[arg-type]
    begin = time.monotonic()
    with pytest.raises(type(error)) as caught:
        run_scenario(settings, serve, tmp_path)
    assert caught.value is error
    assert time.monotonic() - begin < time_limit(20)
    assert started[0].poll() is not None


def test_a_system_that_leaves_samples_out_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="0 of 1 samples"):
        run_scenario(_SINGLE, lambda _: (), tmp_path)


def test_a_loadgen_that_dies_is_an_error_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_MODULE", "stenosis_trt.bench.load.absent")
    with pytest.raises(StenosisError, match=r"exit status 1.*No module named .*absent"):
        run_scenario(_SINGLE, _at_once, tmp_path)


def test_a_missing_loadgen_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        StenosisError, match=r"not installed\. Install it: pip install 'stenosis-trt\[bench\]'"
    ):
        run_scenario(_SINGLE, _at_once, tmp_path)


def test_logs_that_cannot_be_written_are_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotWritten, match="LoadGen's logs cannot be written"):
        run_scenario(_SINGLE, _at_once, tmp_path / "file")


def test_a_summary_that_loadgen_could_not_write_is_an_output_error(tmp_path: Path) -> None:
    """On a full disk its file is empty, or missing; LoadGen says nothing."""
    with pytest.raises(NotWritten, match=r"could not write its summary .*No such file"):
        running._read_summary(tmp_path)
    (tmp_path / "mlperf_log_summary.txt").write_text("")
    with pytest.raises(NotWritten, match="the file is empty"):
        running._read_summary(tmp_path)


def test_loadgen_ends_with_the_benchmark(tmp_path: Path) -> None:
    """Nobody would complete its queries."""
    ours, theirs = socket.socketpair()
    program = [sys.executable, "-m", "stenosis_trt.bench.load.loadgen", str(theirs.fileno())]
    with subprocess.Popen(program, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        with Connection(ours.detach()) as connection:
            connection.send((_SINGLE, str(tmp_path)))
            assert connection.recv()[0] == QUERY
        assert process.wait(time_limit(20)) == 1
