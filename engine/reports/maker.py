"""Makes reports in worker processes while the next studies are graded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from stenosis_trt.engine.errors import NotWritten, OutputError
from stenosis_trt.engine.reports.formats import missing_package
from stenosis_trt.engine.reports.making import (
    MadeFormat,
    MadeReports,
    ReportTask,
    make_reports,
    write_reports,
)
from stenosis_trt.engine.support.closeable import Closeable
from stenosis_trt.engine.support.workers import WorkerPool, worker_pool

_PENDING_PER_WORKER = 4
"""Studies that wait for a worker before `submit` waits: their results are in memory."""
_START_SECONDS = 60.0
"""Extra time for the first study of a worker, which imports its libraries first."""
_ADVICE = "Check the files of the study, then run `stenosis-trt report`."

Done = Callable[[ReportTask, MadeReports], None]


@dataclass
class _Pending:
    task: ReportTask
    future: Future[MadeReports]


@contextmanager
def _write_errors() -> Iterator[None]:
    """Turn an OSError into NotWritten, but not the timeout of a future, which is one from Python 3.11 on."""
    try:
        yield
    except FutureTimeoutError:
        raise
    except OSError as error:
        raise NotWritten(
            f"A report cannot be written ({error.strerror or type(error).__name__}).",
            "Make room, and run `stenosis-trt report`.",
        ) from error


class ReportMaker(Closeable):
    """Makes the reports of studies in worker processes. Use it as a context manager.

    A study on which a worker dies or takes too long gets no reports, with that as the reason; other studies
    are not affected.

    Args:
        workers: number of worker processes.
        done: called in this thread with each task and what was made of it.
        make: makes the reports of one study; replaced in tests.
    """

    def __init__(
        self, workers: int, done: Done, make: Callable[[ReportTask], MadeReports] = make_reports
    ) -> None:
        self._workers, self._done, self._make = workers, done, make
        self._stack = ExitStack()
        self._pool: WorkerPool | None = None
        self._pending: deque[_Pending] = deque()

    def submit(self, task: ReportTask) -> None:
        """Have the reports of a study made. Waits while too many are pending.

        Raises:
            OutputError: the output folder cannot be written, or no worker can be started.
        """
        self._pending.append(_Pending(task, self._start(task)))
        while len(self._pending) > _PENDING_PER_WORKER * self._workers:
            self._take()
        while self._pending and self._pending[0].future.done():
            self._take()

    def finish(self) -> None:
        """Wait for all reports.

        Raises:
            OutputError: the output folder cannot be written, or no worker can be started.
        """
        while self._pending:
            self._take()

    def close(self) -> None:
        """End the workers, in the middle of what they do."""
        self._pending.clear()
        self._end_pool()

    def _start(self, task: ReportTask) -> Future[MadeReports]:
        try:
            if self._pool is None:
                self._pool = self._stack.enter_context(worker_pool(self._workers))
            return self._pool.submit(self._make, task)
        except BrokenProcessPool:
            # A worker died since the last call; its study is found when it is waited for.
            broken: Future[MadeReports] = Future()
            broken.set_exception(BrokenProcessPool())
            return broken
        except OSError as error:
            raise OutputError(
                f"The process that makes reports cannot be started ({error.strerror}).",
                "Close other programs, or allow this user more processes and memory.",
            ) from error

    def _take(self) -> None:
        """Wait for the oldest task and report what was made."""
        pending = self._pending.popleft()
        try:
            made = self._result(pending.task, pending.future)
        except (FutureTimeoutError, BrokenProcessPool):
            made = self._alone(pending)
        self._done(pending.task, made)

    def _alone(self, first: _Pending) -> MadeReports:
        """Restart the workers and repeat a task alone: any of those that were pending may have ended them."""
        waiting = [item.task for item in self._pending]
        self._pending.clear()
        self._end_pool()
        try:
            made = self._result(first.task, self._start(first.task))
        except (FutureTimeoutError, BrokenProcessPool) as error:
            self._end_pool()
            what = "took too long" if isinstance(error, FutureTimeoutError) else "ended the process"
            reason = MadeFormat((), f"Making the reports {what}.", _ADVICE)
            made = MadeReports(first.task.stamp, dict.fromkeys(first.task.formats, reason))
            with _write_errors():
                write_reports(first.task.place, {}, made)
        self._pending.extend(_Pending(task, self._start(task)) for task in waiting)
        return made

    def _result(self, task: ReportTask, future: Future[MadeReports]) -> MadeReports:
        try:
            with _write_errors():
                return future.result(task.limits.timeout_seconds + _START_SECONDS)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("stenosis_trt"):
                raise
            raise missing_package(str(error.name)) from error

    def _end_pool(self) -> None:
        """End the workers. Leaving the context of `worker_pool` with an exception does not wait for them."""
        stack, self._stack, self._pool = self._stack, ExitStack(), None
        ended = KeyboardInterrupt()
        stack.__exit__(type(ended), ended, None)
