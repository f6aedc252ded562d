"""Watch what other processes take of the processor during a benchmark, and how long it waits for a core."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stenosis_trt.bench.systems.machine import machine_state
from stenosis_trt.bench.systems.processor_time import ProcessorTime, processor_time, waiting

BUSY_SHARE = 0.05
"""Share of the cores that others may take, on average over a section, before the run counts as disturbed."""
BUSY_SHARE_HIGH = 0.25
"""The same of the most disturbed sample of a section: scenarios last about as long as one."""
_SAMPLE_SECONDS = 5.0
"""A sample reads one small file for each process of the machine: 3 ms with a hundred of them."""
_BEFORE_SECONDS = 1.0
_LEAST_RUN_SECONDS = 0.05
"""Processor time of the run below which a sample says nothing about its waiting."""


@dataclass(frozen=True)
class Load:
    """Processor use between two readings, in cores.

    Attributes:
        others: cores in use by other processes and the hypervisor, on average.
        stolen: the part of `others` that the hypervisor took.
        own: cores in use by this run.
        others_high: largest `others` of a sample.
        seconds: duration.
        cores: cores that this process may use.
        waited: seconds that threads of this run waited for a core, for each second that they ran; None if the
            kernel does not count it.
        waited_high: largest `waited` of a sample.
        turn_seconds: how long a thread waited each time, on average; the largest of a sample.
    """

    others: float
    stolen: float
    own: float
    others_high: float
    seconds: float
    cores: int
    waited: float | None = None
    waited_high: float | None = None
    turn_seconds: float | None = None

    @property
    def disturbed(self) -> bool:
        """True if others took more than `BUSY_SHARE` of the cores, or for a while `BUSY_SHARE_HIGH`."""
        return self.others > BUSY_SHARE * self.cores or self.others_high > BUSY_SHARE_HIGH * self.cores

    def as_json(self) -> dict[str, float | bool | None]:
        """Return it for the record; shares are of all usable cores."""
        return {
            "others_cores": round(self.others, 3),
            "stolen_cores": round(self.stolen, 3),
            "own_cores": round(self.own, 3),
            "others_share": round(self.others / self.cores, 4),
            "others_share_high": round(self.others_high / self.cores, 4),
            "disturbed": self.disturbed,
            "waited": None if self.waited is None else round(self.waited, 4),
            "waited_high": None if self.waited_high is None else round(self.waited_high, 4),
            "turn_ms": None if self.turn_seconds is None else round(self.turn_seconds * 1e3, 4),
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
    waits = [waiting(old, new) for old, new in pairwise(readings)]
    ran = sum(wait.ran for wait in waits)
    told = [wait for wait in waits if wait.ran >= _LEAST_RUN_SECONDS]
    return Load(
        others,
        (last.stolen - first.stolen) / seconds,
        own / seconds,
        max(samples, default=others),
        seconds,
        len(os.sched_getaffinity(0)),
        sum(wait.waited for wait in waits) / ran if told else None,
        max([wait.waited / wait.ran for wait in told]) if told else None,
        max([wait.waited / max(wait.turns, 1) for wait in told]) if told else None,
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
