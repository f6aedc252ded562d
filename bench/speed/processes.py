"""Processor time and memory of running processes, from /proc and the clocks of Linux."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PROC = Path("/proc")


def child_processes(parent: int | None = None) -> list[int]:
    """Return the process ids of the children of a process, by default of this one."""
    wanted = os.getpid() if parent is None else parent
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
    return sorted(pid for pid in pids if _parent(pid) == wanted)


def processor_seconds(pid: int) -> float:
    """Return the processor time of all threads of a running process.

    Raises:
        OSError: there is no such process.
    """
    # The clock id of clock_getcpuclockid(3) on Linux.
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a running process; 0 if it has ended."""
    return _status_bytes(pid, "VmRSS:")


def _status_bytes(pid: int, name: str) -> int:
    try:
        lines = (_PROC / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def _parent(pid: int) -> int | None:
    try:
        data = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        # It ended since /proc was listed.
        return None
    # The command, in parentheses, may hold anything.
    return int(data.rpartition(b")")[2].split()[1])
