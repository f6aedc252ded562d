"""Processor time of the machine, and of this process with its descendants.

/proc/stat counts the time that each core was busy, /proc/PID/stat that of each process.
/proc/PID/task/TID/schedstat counts, for each thread, how long it ran, how long it waited for a core, and how
often it got one (Linux, sched-stats.rst); kernels without scheduler statistics lack it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

# Columns of a line of /proc/stat after its name (proc(5)).
_IDLE, _IOWAIT, _STEAL, _COLUMNS = 3, 4, 7, 8
# Fields of /proc/PID/stat after the name of the command: parent, and utime to cstime.
_PARENT, _UTIME, _CSTIME = 1, 11, 14

ThreadTimes = Mapping[tuple[int, int], tuple[int, int, int]]
"""(process, thread): nanoseconds that it ran, and that it waited for a core; times that it got one."""


@dataclass(frozen=True)
class Waiting:
    """How long threads ran and waited for a core, in seconds, and how often they got one."""

    ran: float
    waited: float
    turns: int


@dataclass(frozen=True)
class ProcessorTime:
    """Processor time since the machine started, in seconds.

    Attributes:
        wall: `time.monotonic()`.
        busy: of all processes on the cores that this process may use, without `stolen`.
        stolen: taken by the hypervisor.
        own: of this process and its descendants, with those that have ended.
        threads: of each thread of them that is alive; empty if the kernel does not count.
    """

    wall: float
    busy: float
    stolen: float
    own: float
    threads: ThreadTimes


def processor_time(proc: Path = PROC) -> ProcessorTime:
    """Read the counters now.

    Raises:
        OSError: there is no /proc/stat.
    """
    usable = os.sched_getaffinity(0)
    busy = stolen = 0
    for line in (proc / "stat").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(" ")
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in usable:
            times = list(map(int, rest.split()[:_COLUMNS]))
            stolen += times[_STEAL]
            busy += sum(times) - times[_IDLE] - times[_IOWAIT] - times[_STEAL]
    ticks = _own_ticks(proc)
    return ProcessorTime(
        time.monotonic(),
        busy / _TICKS_A_SECOND,
        stolen / _TICKS_A_SECOND,
        sum(ticks.values()) / _TICKS_A_SECOND,
        dict(_thread_times(proc, ticks)),
    )


def waiting(old: ProcessorTime, new: ProcessorTime) -> Waiting:
    """Return how long the threads of this run waited between two readings; all zero if it is not counted.

    What a thread did after the first reading is lost if it has ended by the second one.
    """
    pairs = [(old.threads.get(thread, (0, 0, 0)), counts) for thread, counts in new.threads.items()]
    ran, waited, turns = (sum(max(0, after[k] - before[k]) for before, after in pairs) for k in range(3))
    return Waiting(ran / 1e9, waited / 1e9, turns)


def _own_ticks(proc: Path) -> dict[int, int]:
    """Return the ticks of this process and each of its descendants."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in os.scandir(proc):
        if not entry.name.isdecimal():
            continue
        try:
            with open(f"{entry.path}/stat", "rb") as stream:
                # The command, in parentheses, may hold anything.
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            # It ended since the folder was listed.
            continue
        pid = int(entry.name)
        parents[pid] = int(fields[_PARENT])
        ticks[pid] = sum(map(int, fields[_UTIME : _CSTIME + 1]))
    me = os.getpid()
    return {pid: count for pid, count in ticks.items() if _descends(pid, me, parents)}


def _thread_times(
    proc: Path, processes: Mapping[int, int]
) -> Iterator[tuple[tuple[int, int], tuple[int, int, int]]]:
    for pid in processes:
        # A process or thread may have ended, and a kernel may lack these statistics.
        with suppress(OSError):
            for entry in os.scandir(proc / str(pid) / "task"):
                with open(f"{entry.path}/schedstat", "rb") as stream:
                    run, wait, turns = stream.read().split()[:3]
                yield (pid, int(entry.name)), (int(run), int(wait), int(turns))


def _descends(pid: int, ancestor: int, parents: Mapping[int, int]) -> bool:
    seen = 0
    while pid in parents and seen <= len(parents):
        if pid == ancestor:
            return True
        pid, seen = parents[pid], seen + 1
    return False
