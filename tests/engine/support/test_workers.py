"""Processes that share work end with the one that started them, and whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dying import default_signals
from time_limits import time_limit

from stenosis_trt.engine.support.workers import worker_pool

_WITHIN_SECONDS = time_limit(2.0)
_STARTS_WITHIN_SECONDS = time_limit(60.0)

_POOL = """
import os, signal, sys, time
from pathlib import Path
from stenosis_trt.engine.support.workers import worker_pool

if __name__ == "__main__":
    from slow import sleep
    with worker_pool(2) as workers:
        list(workers.map_in_order(sleep, [sys.argv[1]] * 2))
"""
_SLOW = """
import os, time
from pathlib import Path

def sleep(folder):
    (Path(folder) / f"{os.getpid()}.pid").touch()
    # In steps: a long computation returns to the interpreter now and then.
    for _ in range(6000):
        time.sleep(0.01)
"""


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait(seconds: float, what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _pids(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


@contextmanager
def _busy_pool(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process whose two workers compute, and their process numbers."""
    (tmp_path / "pool.py").write_text(_POOL)
    (tmp_path / "slow.py").write_text(_SLOW)
    command = [sys.executable, str(tmp_path / "pool.py"), str(tmp_path)]
    pids: list[int] = []
    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": default_signals}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            _wait(_STARTS_WITHIN_SECONDS, lambda: len(_pids(tmp_path)) == 2 or process.poll() is not None)
            pids += _pids(tmp_path)
            assert len(pids) == 2
            assert all(_alive(pid) for pid in pids)
            yield process, pids
        finally:
            if process.poll() is None:
                process.kill()
            for pid in pids:
                if _alive(pid):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_workers_end_with_a_parent_that_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    with _busy_pool(tmp_path) as (process, pids):
        process.send_signal(number)
        assert _wait(_WITHIN_SECONDS, lambda: not any(_alive(pid) for pid in pids))
        assert process.wait(10) == -number


def test_an_interrupt_ends_workers_in_the_middle_of_their_work_and_only_the_parent_reports_it(
    tmp_path: Path,
) -> None:
    with _busy_pool(tmp_path) as (process, pids):
        os.killpg(process.pid, signal.SIGINT)
        _, messages = process.communicate(timeout=_WITHIN_SECONDS)
        assert not any(_alive(pid) for pid in pids)
    assert messages.count("Traceback") == 1
    assert messages.rstrip().endswith("KeyboardInterrupt")


def test_a_pool_that_is_left_with_an_error_does_not_wait_for_its_workers(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"), worker_pool(2) as workers:  # noqa: PT012
        running = [workers.submit(time.sleep, 60) for _ in range(2)]
        assert _wait(_STARTS_WITHIN_SECONDS, lambda: all(future.running() for future in running))
        began = time.monotonic()
        raise RuntimeError("enough")
    assert time.monotonic() - began < _WITHIN_SECONDS


def test_results_come_in_the_order_of_the_items_and_no_more_is_handed_out_than_can_be_worked_on() -> None:
    handed: list[int] = []

    def items() -> Iterator[int]:
        for number in (-5, 3, -1, 4, 2):
            handed.append(number)
            yield number

    with worker_pool(2) as workers:
        results = workers.map_in_order(abs, items())
        assert next(results) == 5
        assert len(handed) == 3
        assert list(results) == [3, 1, 4, 2]
