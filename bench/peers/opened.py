"""Opened peers: networks are loaded under keys, and timed by them.

Peers that may take too long, or end their process, run in a process of their own, which can be ended. Times
are taken in that process: they hold no exchange of messages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TypeVar

from stenosis_trt.bench.peers.pairing import Timer
from stenosis_trt.bench.peers.peer import (
    AnyPeer,
    CommandPeer,
    Load,
    Loaded,
    Peer,
    PeerAbsent,
    Workload,
    load_or_absent,
)
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.support.workers import worker_pool

_T = TypeVar("_T")

_LONGEST_RUN = 60.0
"""Seconds after which a run of a loaded network counts as hung."""


class OpenedPeer(Protocol):
    """A peer with the networks that it has loaded."""

    @property
    def end_reason(self) -> str:
        """Why nothing of it can be run any more; "" if it can."""
        ...

    def load(self, key: str, workload: Workload, seconds: float) -> Float32Array | None:
        """Load a network under a key, within so many seconds if it can be limited.

        Returns:
            Its outputs; None if the peer does not give them.

        Raises:
            PeerAbsent: it cannot be loaded or run.
        """
        ...

    def time(self, keys: Sequence[str]) -> float:
        """Run networks one after the other, and return the seconds that they took together.

        Raises:
            PeerAbsent: it cannot be run any more.
        """
        ...

    def close(self) -> None:
        """Release what was loaded. Further calls do nothing."""
        ...


def open_peer(peer: AnyPeer, folder: Path) -> OpenedPeer:
    """Open a peer; `folder` is for its temporary files."""
    if isinstance(peer, CommandPeer):
        return _Command(peer, folder)
    return _Isolated(peer.load) if peer.isolated else _InProcess(peer)


class _InProcess:
    """A peer in this process."""

    end_reason = ""

    def __init__(self, peer: Peer) -> None:
        self._load = peer.load
        self._loaded: dict[str, Loaded] = {}

    def load(self, key: str, workload: Workload, seconds: float) -> Float32Array:
        self._loaded[key], output = load_or_absent(self._load, workload)
        return output

    def time(self, keys: Sequence[str]) -> float:
        runs = [self._loaded[key].run for key in keys]
        start = time.perf_counter()
        for run in runs:
            run()
        return time.perf_counter() - start

    def close(self) -> None:
        self._loaded.clear()


class _Command:
    """A peer that is a command."""

    end_reason = ""

    def __init__(self, peer: CommandPeer, folder: Path) -> None:
        self._peer, self._folder = peer, folder
        self._timers: dict[str, Timer] = {}

    def load(self, key: str, workload: Workload, seconds: float) -> None:
        self._timers[key] = self._peer.open(workload, self._folder)

    def time(self, keys: Sequence[str]) -> float:
        return sum(self._timers[key]() for key in keys)

    def close(self) -> None:
        self._timers.clear()


class _Ended(Exception):
    """Ends the process of a peer in the middle of a call."""


class _Isolated:
    """A peer in a process of its own, which starts with the first network."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._stack = ExitStack()
        self._pool = self._stack.enter_context(worker_pool(1))
        self._open = True
        self.end_reason = ""

    def load(self, key: str, workload: Workload, seconds: float) -> Float32Array:
        self._check()
        if seconds <= 0.0:
            raise PeerAbsent("There was no time left to load it.")
        limit = f"Loading and a first run took longer than the {seconds:.0f} s that were left."
        return self._wait(self._pool.submit(_load_here, key, self._load, workload), seconds, limit)

    def time(self, keys: Sequence[str]) -> float:
        self._check()
        hangs = f"A run did not end within {_LONGEST_RUN:.0f} s."
        return self._wait(self._pool.submit(_time_here, tuple(keys)), _LONGEST_RUN, hangs)

    def close(self) -> None:
        # In the middle of a call too: an interrupted benchmark does not wait for a compiler.
        self._end(self.end_reason)

    def _check(self) -> None:
        if self.end_reason:
            raise PeerAbsent(self.end_reason)

    def _wait(self, future: Future[_T], seconds: float, limit: str) -> _T:
        try:
            return future.result(timeout=max(seconds, 0.0))
        except TimeoutError as error:
            self._end("Its process was ended, because another network took too long.")
            raise PeerAbsent(limit) from error
        except BrokenProcessPool as error:
            reason = "Its process ended by itself, as one does without memory."
            self._end(reason)
            raise PeerAbsent(reason) from error

    def _end(self, reason: str) -> None:
        self.end_reason = reason
        if self._open:
            self._open = False
            ended = _Ended()
            self._stack.__exit__(type(ended), ended, None)


_loaded: dict[str, Loaded] = {}
"""In the process of an isolated peer: the networks that are loaded."""


def _load_here(key: str, load: Load, workload: Workload) -> Float32Array:
    _loaded[key], output = load_or_absent(load, workload)
    return output


def _time_here(keys: Sequence[str]) -> float:
    runs = [_loaded[key].run for key in keys]
    start = time.perf_counter()
    for run in runs:
        run()
    return time.perf_counter() - start
