"""Watch what other processes take of the processor while a benchmark runs.

/proc/stat counts the time that each core was busy; /proc/PID/stat that of this process and of its
descendants, which are subtracted. What is left is other processes, and the time that a hypervisor took
("steal").
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from stenosis_trt.bench.systems.machine import machine_state

BUSY_SHARE = 0.05
"""Share of the cores that others may take, on average over a section, before the run counts as disturbed."""
BUSY_SHARE_HIGH = 0.25
"""The same of the 90th percentile over the samples of a section: short disturbances move tails of latency."""
_SAMPLE_SECONDS = 5.0
"""A sample reads one small file for each process of the machine: 3 ms with a hundred of them."""
_BEFORE_SECONDS = 1.0
_PROC = Path("/proc")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

# Columns of a line of /proc/stat after its name (proc(5)).
_IDLE, _IOWAIT, _STEAL, _COLUMNS = 3, 4, 7, 8
# Fields of /proc/PID/stat after the name of the command: parent, and utime to cstime.
_PARENT, _UTIME, _CSTIME = 1, 11, 14


@dataclass(frozen=True)
class ProcessorTime:
    """Processor time since the machine started, in seconds.

    Attributes:
        wall: `time.monotonic()`.
        busy: of all processes on the cores that this process may use, without `stolen`.
        stolen: taken by the hypervisor.
        own: of this process and its descendants, with those that have ended.
    """

    wall: float
    busy: float
    stolen: float
    own: float


def processor_time(proc: Path = _PROC) -> ProcessorTime:
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
    return ProcessorTime(
        time.monotonic(), busy / _TICKS_A_SECOND, stolen / _TICKS_A_SECOND, _own_seconds(proc)
    )


def _own_seconds(proc: Path) -> float:
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
    return sum(ticks[pid] for pid in ticks if _descends(pid, me, parents)) / _TICKS_A_SECOND


def _descends(pid: int, ancestor: int, parents: Mapping[int, int]) -> bool:
    seen = 0
    while pid in parents and seen <= len(parents):
        if pid == ancestor:
            return True
        pid, seen = parents[pid], seen + 1
    return False


@dataclass(frozen=True)
class Load:
    """Processor use between two readings, in cores.

    Attributes:
        others: cores in use by other processes and the hypervisor, on average.
        stolen: the part of `others` that the hypervisor took.
        own: cores in use by this run.
        others_high: 90th percentile of `others` over the samples.
        seconds: duration.
        cores: cores that this process may use.
    """

    others: float
    stolen: float
    own: float
    others_high: float
    seconds: float
    cores: int

    @property
    def disturbed(self) -> bool:
        """True if others took more than `BUSY_SHARE` of the cores, or for a while `BUSY_SHARE_HIGH`."""
        return self.others > BUSY_SHARE * self.cores or self.others_high > BUSY_SHARE_HIGH * self.cores

    def as_json(self) -> dict[str, float]:
        """Return it for the record; shares are of all usable cores."""
        return {
            "others_cores": round(self.others, 3),
            "stolen_cores": round(self.stolen, 3),
            "own_cores": round(self.own, 3),
            "others_share": round(self.others / self.cores, 4),
            "others_share_high": round(self.others_high / self.cores, 4),
            "seconds": round(self.seconds, 2),
        }


def load_between(readings: list[ProcessorTime]) -> Load:
    """Return the load between the first and the last of two or more readings."""
    first, last = readings[0], readings[-1]
    seconds = max(last.wall - first.wall, 1e-9)
    # Ticks of 10 ms are counted differently for cores and processes: over a short time own may exceed busy.
    samples = [
        max(0.0, (new.busy + new.stolen - old.busy - old.stolen) - (new.own - old.own))
        / (new.wall - old.wall)
        for old, new in pairwise(readings)
        if new.wall > old.wall
    ]
    own = max(0.0, last.own - first.own)
    busy = last.busy + last.stolen - first.busy - first.stolen
    others = max(0.0, busy - own) / seconds
    return Load(
        others,
        (last.stolen - first.stolen) / seconds,
        own / seconds,
        statistics.quantiles(samples, n=10)[-1] if len(samples) > 1 else others,
        seconds,
        len(os.sched_getaffinity(0)),
    )


class BusyWatch:
    """Watches other processes before and during the sections of a run.

    Attributes:
        before: load before the run; None until `watch_before`.
        during: load during each section.
    """

    def __init__(self) -> None:
        self.before: Load | None = None
        self.during: dict[str, Load] = {}
        self._state = machine_state()
        self._load_average = os.getloadavg()

    def watch_before(self, seconds: float = _BEFORE_SECONDS) -> None:
        """Watch for a while, in which this run does nothing."""
        start = processor_time()
        time.sleep(seconds)
        self.before = load_between([start, processor_time()])

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Watch while the context is entered."""
        readings = [processor_time()]
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(_SAMPLE_SECONDS):
                readings.append(processor_time())

        thread = threading.Thread(target=sample, name="busy-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            now = processor_time()
            # A last piece of less than half a sample would count as a whole one.
            if len(readings) > 1 and now.wall - readings[-1].wall < _SAMPLE_SECONDS / 2:
                readings.pop()
            self.during[name] = load_between([*readings, now])

    def as_json(self, measured: Collection[str]) -> dict[str, Any]:
        """Return what was seen, as `BenchRecord.busy`. Its sentence is about the sections `measured`."""
        state = machine_state()
        during = {name: load for name, load in self.during.items() if name in measured}
        throttled = (
            None if state["throttled"] is None else state["throttled"] - (self._state["throttled"] or 0)
        )
        return {
            "load_average_before": [round(load, 2) for load in self._load_average],
            "before": None if self.before is None else self.before.as_json(),
            "during": {name: load.as_json() for name, load in self.during.items()},
            "throttled": throttled,
            "clocks_mhz": [self._state["clocks_mhz"], state["clocks_mhz"]],
            "temperatures_c": [self._state["temperatures_c"], state["temperatures_c"]],
            "sentence": " ".join(filter(None, (_others(during), _throttling(throttled)))),
        }


def _others(during: Mapping[str, Load]) -> str:
    disturbed = {name: load for name, load in during.items() if load.disturbed}
    if not disturbed:
        return ""
    name, worst = max(disturbed.items(), key=lambda item: item[1].others)
    sections = ", ".join(disturbed)
    stolen = f" ({worst.stolen:.2f} of them the hypervisor)" if worst.stolen > 0.01 else ""
    return (
        f"The machine was busy: other processes took up to {worst.others:.2f} of {worst.cores} cores{stolen} "
        f"during {name}, on average, and figures of {sections} are worse than on a quiet machine."
    )


def _throttling(count: int | None) -> str:
    if not count:
        return ""
    return f"The processor was throttled {count} times because of its temperature."
