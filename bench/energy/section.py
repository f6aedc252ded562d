"""The section `energy` of a benchmark run: joules a study and watts, with the idle power subtracted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.bench.energy.meter import Consumption, EnergyMeter
from stenosis_trt.bench.energy.nvml import open_nvml
from stenosis_trt.bench.energy.power_state import power_state
from stenosis_trt.bench.energy.sensors import FoundSensors, Part, find_sensors
from stenosis_trt.bench.record.record import Absence, Figure, Section
from stenosis_trt.bench.statistics.blocks import block_interval
from stenosis_trt.bench.statistics.bootstrap import FloatArray
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product

_TITLE = "Energy"
_BLOCKS = 5
"""Pairs of an idle and a busy interval."""
_IDLE_SHARE = 0.4
"""Share of the time in which the machine is idle."""
_MINIMUM_SECONDS = 1.0
"""Shortest interval: the counters of a GPU move ten times a second."""
_PARTS = {"gpu": "GPU", "module": "Jetson module", "processor": "processor and its memory"}


@dataclass(frozen=True)
class Block:
    """An idle interval and the busy one after it.

    Attributes:
        idle, busy: energy of each, on one sensor.
        studies: studies that were graded in the busy one.
    """

    idle: Consumption
    busy: Consumption
    studies: int

    @property
    def joules_a_study(self) -> float:
        """Energy of a study beyond what the machine takes when it is idle."""
        return (self.busy.joules - self.idle.watts * self.busy.seconds) / self.studies


def measure(context: BenchContext) -> Section:
    """Measure the energy of whole studies, files to results and SR, by every sensor of the machine.

    Raises:
        StenosisError: the product cannot be opened, or a study cannot be graded.
    """
    start = time.monotonic()
    found = find_sensors(gpu=context.device != "cpu")
    if not found.sensors:
        absent = Absence("energy", found.reason)
        return Section(_TITLE.lower(), _TITLE, (), (absent,), seconds=_since(start))
    with Product(context) as product:
        blocks, details = _measure_blocks(context, product, found, start)
    return energy_section(blocks, found, details, _since(start))


def energy_section(
    blocks: Mapping[Part, Sequence[Block]], found: FoundSensors, details: Mapping[str, Any], seconds: float
) -> Section:
    """Return the section of some blocks by sensor."""
    figures = [figure for part, measured in blocks.items() for figure in _figures(part, measured)]
    sources = {sensor.part: sensor.name for sensor in found.sensors}
    notes = [f"{_PARTS[part]}: {name}." for part, name in sources.items()]
    notes.append(
        "Joules a study are what it takes beyond the idle machine, which is measured before each interval "
        "of studies. Watts are the mean while studies are graded one after the other, idle power included."
    )
    if any(sensor.rails is not None for sensor in found.sensors):
        notes.append("Where a board has no sensor at its input, the rails are added up.")
    return Section(
        _TITLE.lower(),
        _TITLE,
        tuple(figures),
        tuple(Absence("energy", f"{reason[:1].upper()}{reason[1:]}.") for reason in found.missing),
        tuple(notes),
        details={"sensors": sources, **details},
        seconds=seconds,
    )


def _measure_blocks(
    context: BenchContext, product: Product, found: FoundSensors, start: float
) -> tuple[dict[Part, list[Block]], dict[str, Any]]:
    for folder in context.studies[:2]:
        product.whole(folder)
    left = context.seconds - (time.monotonic() - start)
    idle_seconds = max(_MINIMUM_SECONDS, left * _IDLE_SHARE / _BLOCKS)
    busy_seconds = max(_MINIMUM_SECONDS, left * (1.0 - _IDLE_SHARE) / _BLOCKS)
    context.say(f"energy: {_BLOCKS} times {idle_seconds:.0f} s idle and {busy_seconds:.0f} s of studies")
    blocks: dict[Part, list[Block]] = {sensor.part: [] for sensor in found.sensors}
    folders = itertools.cycle(context.studies)
    states: dict[str, Any] = {}
    with EnergyMeter(found.sensors) as meter:
        for _ in range(_BLOCKS):
            states["idle"] = _state(product)
            idle = meter.measure(lambda: time.sleep(idle_seconds))
            work = _Studies(product, busy_seconds)
            busy = meter.measure(lambda work=work: work.run(folders))  # type: ignore[misc]
            states["busy"] = _state(product)
            for part in blocks:
                blocks[part].append(Block(idle[part], busy[part], work.graded))
        rails = meter.mean_rails()
    details: dict[str, Any] = {
        "state": states,
        "blocks": {
            part: [
                {
                    "idle_joules": block.idle.joules,
                    "idle_seconds": block.idle.seconds,
                    "busy_joules": block.busy.joules,
                    "busy_seconds": block.busy.seconds,
                    "studies": block.studies,
                }
                for block in measured
            ]
            for part, measured in blocks.items()
        },
    }
    if rails:
        details["mean_watts_of_rails"] = rails
    return blocks, details


class _Studies:
    """Grades studies for some time; `graded` is how many."""

    def __init__(self, product: Product, seconds: float) -> None:
        self._product, self._seconds, self.graded = product, seconds, 0

    def run(self, folders: itertools.cycle[Path]) -> None:
        end = time.monotonic() + self._seconds
        while self.graded == 0 or time.monotonic() < end:
            self._product.whole(next(folders))
            self.graded += 1


def _figures(part: Part, blocks: Sequence[Block]) -> tuple[Figure, ...]:
    name, text = f"energy.{part}", _PARTS[part]
    return (
        _figure(
            f"{name}.joules_a_study",
            f"Energy of a study without idle power, {text}",
            [b.joules_a_study for b in blocks],
            "J",
        ),
        _figure(
            f"{name}.watts", f"Power while studies are graded, {text}", [b.busy.watts for b in blocks], "W"
        ),
        _figure(f"{name}.idle_watts", f"Idle power, {text}", [b.idle.watts for b in blocks], "W"),
    )


def _figure(name: str, text: str, values: Sequence[float], unit: str) -> Figure:
    low, high = block_interval(values, _means) or (None, None)
    return Figure(name, text, float(np.mean(values)), unit, "lower", "measured", low, high, len(values))


def _means(rows: FloatArray) -> FloatArray:
    means: FloatArray = rows.mean(axis=1)
    return means


def _state(product: Product) -> dict[str, Any]:
    state = power_state()
    if product.backend == "tensorrt":
        gpu = open_nvml()
        if not isinstance(gpu, str):
            state["gpu"] = gpu.state()
    return state


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)
