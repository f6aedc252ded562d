"""Pool of worker processes that end with their parent, even if that is killed.

A thread of each worker waits for the end of a pipe whose write end only the parent has. The kernel closes it
when the parent is killed, and `worker_pool` when its context exits with an exception. The worker then exits
at once. Workers ignore SIGINT (Ctrl-C), which the parent handles.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_EXIT_WITHOUT_PARENT = 1
"""Exit code of a worker whose parent ended or left the pool's context early."""


class WorkerPool:
    """Runs calls in worker processes; see `worker_pool`."""

    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool, self._count = pool, count

    def submit(
        self, call: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Result]:
        """Run `call` in a worker. It must be importable, its arguments and its result picklable."""
        with _sigint_blocked():
            return self._pool.submit(call, *args, **kwargs)

    def map_in_order(self, call: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Yield the results of `call` for each item, in order; at most one call per worker is pending."""
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            if len(waiting) == self._count:
                yield waiting.popleft().result()
            waiting.append(self.submit(call, item))
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def worker_pool(count: int) -> Iterator[WorkerPool]:
    """Give a pool of up to `count` new Python processes, which start when they are needed.

    When the context exits, all submitted calls have finished. If it exits with an exception, such as
    KeyboardInterrupt, the workers are ended first, in the middle of their calls.

    Raises:
        BrokenProcessPool: (from a future's result) a worker died, for example for lack of memory.
    """
    watched, held = Pipe(duplex=False)
    try:
        with ProcessPoolExecutor(count, get_context("spawn"), _start_worker, (watched,)) as pool:
            try:
                yield WorkerPool(pool, count)
            except BaseException:
                held.close()
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        held.close()
        watched.close()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT, so that a worker that is starting, and does not ignore it yet, prints no traceback.

    The parent receives a blocked SIGINT when the context exits.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(watched: Connection) -> None:
    """Set up a worker: ignore SIGINT, and exit when the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, args=(watched,), name="end with parent", daemon=True).start()


def _end_with_parent(watched: Connection) -> None:
    # Nothing is sent: poll returns when the other end is closed.
    watched.poll(None)
    os._exit(_EXIT_WITHOUT_PARENT)
