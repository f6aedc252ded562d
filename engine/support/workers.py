"""Processes that share work and end with the process that started them, however that one ends.

Each worker waits, in a thread of its own, for the end of a pipe whose other end the parent alone holds: the
system closes it when the parent is killed, and the pool when it is left early. The worker then ends at once,
whatever it computes. Interrupts (Ctrl-C) are the parent's to act on.
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

_ABANDONED = 1
"""Exit code of a worker whose parent is gone or does not need it any more."""


class WorkerPool:
    """Hands calls to the processes of a pool; see `worker_pool`."""

    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool, self._count = pool, count

    def submit(
        self, call: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Result]:
        """Have a worker call `call`, which must be importable, as all arguments and the result must be
        picklable."""
        with _interrupts_held_back():
            return self._pool.submit(call, *args, **kwargs)

    def map_in_order(self, call: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Results of a call for each item, in the items' order; as many at a time as there are workers."""
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            if len(waiting) == self._count:
                yield waiting.popleft().result()
            waiting.append(self.submit(call, item))
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def worker_pool(count: int) -> Iterator[WorkerPool]:
    """`count` fresh Python processes, started as they are needed.

    Where the context ends well, they have finished all that was submitted. Where it ends with an exception,
    an interrupt included, they are ended in the middle of what they do, before the context is left.

    Raises:
        BrokenProcessPool: (from a future's result) a worker died, as for want of memory.
    """
    watched, held = Pipe(duplex=False)
    try:
        with ProcessPoolExecutor(count, get_context("spawn"), _begin, (watched,)) as pool:
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
def _interrupts_held_back() -> Iterator[None]:
    """Keep interrupts from the processes that start meanwhile: until they ignore them, each would print a
    traceback. Whoever holds them back gets them at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(watched: Connection) -> None:
    """First call in each worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, args=(watched,), name="end with parent", daemon=True).start()


def _end_with_parent(watched: Connection) -> None:
    # Nothing is ever sent: there is something to read once the other end is closed.
    watched.poll(None)
    os._exit(_ABANDONED)
