"""A process that runs MLPerf's LoadGen, and sends its queries to the system under test.

LoadGen calls back from its own threads, cannot be interrupted, and ends its process where a callback raises:
in a process of its own, the benchmark can stop it at any time.

    python -m stenosis_trt.bench.load.loadgen DESCRIPTOR

DESCRIPTOR is one end of a socket pair. Messages are pickled tuples; see `QUERY`, `DONE`. This is the only
module that imports `mlperf_loadgen`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from stenosis_trt.bench.load.settings import SEED, ScenarioSettings

QUERY = "query"
"""To the system under test: (QUERY, ids, indices of samples). It answers with lists of ids, until all are
complete."""
DONE = "done"
"""To the system under test: (DONE, for each query the latency of each of its samples in seconds)."""

DETAIL_LOG, SUMMARY_LOG = "mlperf_log_detail.txt", "mlperf_log_summary.txt"
"""Files that LoadGen writes."""

_NANOSECONDS = 1_000_000_000


def run(connection: Connection, settings: ScenarioSettings, folder: str) -> list[list[float]]:
    """Run a scenario against the other end of the connection.

    Returns, for each query, the seconds from its issue to the completion of each of its samples.

    Args:
        connection: to the system under test.
        settings: of the run.
        folder: for LoadGen's logs.
    """
    import mlperf_loadgen

    queries: list[tuple[float, list[int]]] = []
    completed: dict[int, float] = {}

    def issue(samples: Sequence[Any]) -> None:
        ids = [sample.id for sample in samples]
        queries.append((time.perf_counter(), ids))
        connection.send((QUERY, ids, [sample.index for sample in samples]))

    def complete() -> None:
        while True:
            try:
                ids: list[int] = connection.recv()
            except (EOFError, OSError):
                # The benchmark has ended: nobody will complete the queries.
                os._exit(1)
            now = time.perf_counter()
            completed.update(dict.fromkeys(ids, now))
            mlperf_loadgen.QuerySamplesComplete(
                [mlperf_loadgen.QuerySampleResponse(number, 0, 0) for number in ids]
            )

    threading.Thread(target=complete, name="complete", daemon=True).start()
    log = mlperf_loadgen.LogSettings()
    log.log_output.outdir = folder
    log.log_output.copy_summary_to_stdout = False
    log.enable_trace = False
    system = mlperf_loadgen.ConstructSUT(issue, _nothing)
    library = mlperf_loadgen.ConstructQSL(settings.samples, settings.samples, _nothing, _nothing)
    mlperf_loadgen.StartTestWithLogSettings(system, library, _test_settings(settings), log, "")
    return [[completed[number] - issued for number in ids] for issued, ids in queries]


def _nothing(*_: object) -> None:
    """The samples are in memory before the run, and no query is held back."""


def _test_settings(settings: ScenarioSettings) -> Any:
    import mlperf_loadgen

    test = mlperf_loadgen.TestSettings()
    test.scenario = getattr(mlperf_loadgen.TestScenario, settings.scenario)
    test.mode = mlperf_loadgen.TestMode.PerformanceOnly
    test.qsl_rng_seed = test.sample_index_rng_seed = test.schedule_rng_seed = SEED
    test.min_duration_ms = round(1e3 * settings.min_seconds)
    test.min_query_count = settings.min_queries
    expected = max(1, round(_NANOSECONDS * settings.prepared_seconds))
    if settings.scenario == "SingleStream":
        test.single_stream_expected_latency_ns = expected
        test.single_stream_target_latency_percentile = settings.percentile
    elif settings.scenario == "MultiStream":
        test.multi_stream_expected_latency_ns = expected
        test.multi_stream_target_latency_percentile = settings.percentile
        test.multi_stream_samples_per_query = settings.samples_per_query
    elif settings.scenario == "Offline":
        test.offline_expected_qps = 1.0 / settings.prepared_seconds
    else:
        test.server_target_qps = settings.target_qps
        test.server_target_latency_ns = round(_NANOSECONDS * settings.bound_seconds)
        test.server_target_latency_percentile = settings.percentile
    return test


def main() -> None:
    """Receive settings and folder, run, and send the latencies."""
    # Ctrl-C goes to all processes of a terminal; the benchmark ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    settings, folder = connection.recv()
    connection.send((DONE, run(connection, settings, folder)))
    # LoadGen's threads and the one that waits for answers need no end.
    os._exit(0)


if __name__ == "__main__":
    main()
