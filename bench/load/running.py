"""Runs a LoadGen scenario against a system under test in this process."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stenosis_trt.bench.load.loadgen import DONE, SUMMARY_LOG
from stenosis_trt.bench.load.settings import ScenarioSettings
from stenosis_trt.bench.load.summary import LoadGenSummary, parse_summary
from stenosis_trt.engine.errors import NotWritten, StenosisError

Serve = Callable[[Sequence[int]], Iterable[Sequence[int]]]
"""System under test: takes the sample indices of a query, and yields positions in it as they complete."""

_MODULE = "stenosis_trt.bench.load.loadgen"
_SILENCE_SECONDS = 120.0
"""Longest time without a message beyond what a run is estimated to take."""
_ERROR_BYTES = 300


@dataclass(frozen=True)
class ScenarioRun:
    """A finished run.

    Attributes:
        settings: of the run.
        summary: LoadGen's verdict and figures.
        text: its summary, as it wrote it.
        latencies: seconds from the issue of each query to its completion, in order, as seen beside LoadGen;
            of each sample of the one query in Offline.
        seconds: duration, with the start of LoadGen.
    """

    settings: ScenarioSettings
    summary: LoadGenSummary
    text: str
    latencies: tuple[float, ...]
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return settings, verdict and latencies as JSON values."""
        return {
            "settings": asdict(self.settings),
            "verdict": "VALID" if self.summary.valid else "INVALID",
            "rules": dict(self.summary.conditions),
            "errors": self.summary.errors,
            "loadgen_summary": self.text.splitlines(),
            "latencies_ms": [round(1e3 * value, 3) for value in self.latencies],
            "seconds": round(self.seconds, 1),
        }


def check_loadgen() -> None:
    """Check that LoadGen is installed.

    Raises:
        StenosisError: it is not.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise StenosisError(
            "The load scenarios need MLPerf's LoadGen (mlcommons-loadgen), which is not installed.",
            "Install it: pip install 'stenosis-trt[bench]'.",
        )


def run_scenario(settings: ScenarioSettings, serve: Serve, folder: Path) -> ScenarioRun:
    """Run a scenario; `serve` is called in this thread, with one query after the other.

    If it raises, LoadGen is ended and the exception passed on.

    Args:
        settings: of the run.
        serve: the system under test.
        folder: for LoadGen's logs, created if missing.

    Raises:
        StenosisError: LoadGen is not installed, or ended early.
        NotWritten: the logs cannot be written.
    """
    check_loadgen()
    start = time.perf_counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        errors = (folder / "stderr.txt").open("w+b")
    except OSError as error:
        raise NotWritten(
            f"LoadGen's logs cannot be written to {folder} ({error.strerror or error}).", "Make room."
        ) from error
    ours, theirs = socket.socketpair()
    with errors, ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
        try:
            theirs.close()
            with closing(Connection(ours.detach())) as connection:
                latencies = _serve_queries(connection, settings, serve, folder, process)
            process.wait()
        except (EOFError, ConnectionError) as error:
            raise _ended_early(process.wait(), errors) from error
        finally:
            process.kill()
            process.wait()
    text = _read_summary(folder)
    return ScenarioRun(settings, parse_summary(text), text, latencies, time.perf_counter() - start)


def _latencies(queries: Sequence[Sequence[float]], settings: ScenarioSettings) -> tuple[float, ...]:
    if settings.scenario == "Offline":
        return tuple(latency for query in queries for latency in query)
    return tuple(max(query) for query in queries)


def _serve_queries(
    connection: Connection,
    settings: ScenarioSettings,
    serve: Serve,
    folder: Path,
    process: subprocess.Popen[bytes],
) -> tuple[float, ...]:
    """Answer queries until LoadGen has enough of them; return the latencies."""
    connection.send((settings, str(folder)))
    patience = settings.estimated_seconds + _SILENCE_SECONDS
    while True:
        if not connection.poll(patience):
            raise StenosisError(
                f"LoadGen asked for nothing for {patience:.0f} s.", "Run it again on a machine at rest."
            )
        kind, *content = connection.recv()
        if kind == DONE:
            return _latencies(content[0], settings)
        ids, indices = content
        served = 0
        for positions in serve(indices):
            connection.send([ids[position] for position in positions])
            served += len(positions)
        if served != len(ids):
            raise RuntimeError(f"{served} of {len(ids)} samples of a query were completed.")


def _ended_early(status: int, errors: Any) -> StenosisError:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    said = f": {lines[-1][:_ERROR_BYTES]}" if lines else ""
    return StenosisError(
        f"LoadGen ended in the middle of a run (exit status {status}{said}).",
        "Check that mlcommons-loadgen works: python -c 'import mlperf_loadgen'.",
    )


def _read_summary(folder: Path) -> str:
    """Return LoadGen's summary. LoadGen itself does not say where it cannot write."""
    path, reason = folder / SUMMARY_LOG, "the file is empty"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        text, reason = "", error.strerror or type(error).__name__
    if not text.strip():
        raise NotWritten(f"LoadGen could not write its summary to {folder} ({reason}).", "Make room.")
    return text
