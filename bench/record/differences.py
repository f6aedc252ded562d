"""What two benchmark records have different besides their figures: machine, versions, product, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stenosis_trt.bench.record.record import BenchRecord

MACHINE_IDENTITY = ("processor", "cores", "memory_gb", "gpus", "board")
"""Entries of `machine` that say which machine it is. The others are its state and its software."""

_STATE = ("clocks_mhz", "temperatures_c", "throttled", "load_average")
"""Entries of `machine` that differ between any two runs."""


@dataclass(frozen=True)
class Difference:
    """One entry that differs.

    Attributes:
        group: "machine", "versions", "product", "studies", "settings" or "valid".
        name: of the entry, with dots for entries in entries.
        before, after: the two values as text; "absent" where there is none.
    """

    group: str
    name: str
    before: str
    after: str


def record_differences(before: BenchRecord, after: BenchRecord) -> tuple[Difference, ...]:
    """Return what differs, the machine first."""
    found: list[Difference] = []
    for group in ("machine", "product", "versions", "settings", "studies"):
        old = dict(_flat(getattr(before, group)))
        new = dict(_flat(getattr(after, group)))
        for name in dict.fromkeys((*old, *new)):
            if group == "machine" and name.split(".")[0] in _STATE:
                continue
            if old.get(name) != new.get(name) or (name in old) != (name in new):
                found.append(Difference(group, name, _text(old, name), _text(new, name)))
    verdicts = [{section.name: section.valid for section in record.sections} for record in (before, after)]
    found += [
        Difference("valid", name, _text(verdicts[0], name), _text(verdicts[1], name))
        for name in verdicts[1]
        if name in verdicts[0] and verdicts[0][name] != verdicts[1][name]
    ]
    return tuple(found)


def other_machine(before: BenchRecord, after: BenchRecord) -> bool:
    """Return True if the runs are of different machines, judged by `MACHINE_IDENTITY`."""
    return any(before.machine.get(name) != after.machine.get(name) for name in MACHINE_IDENTITY)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    value = values[name]
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
