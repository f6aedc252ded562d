"""Sensors of power and energy: NVML, the INA3221 monitors of a Jetson, and RAPL of a processor.

A sensor is either a counter of energy or a gauge of power. `find_sensors` looks for all of them, and says of
each kind that is missing what it looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stenosis_trt.bench.energy.nvml import open_nvml

Part = Literal["gpu", "module", "processor"]
"""What a sensor covers: a graphics card, a whole Jetson module, or the packages of a processor with their
memory."""


@dataclass(frozen=True)
class Sensor:
    """One sensor; it reads either energy or power.

    Attributes:
        part: what it covers.
        name: where its values come from, in words.
        joules: reads a counter of energy that never falls, in J; None for a gauge.
        watts: reads the present power in W; None for a counter.
        rails: reads the power of each rail in W, by name; None without rails.
    """

    part: Part
    name: str
    joules: Callable[[], float] | None = None
    watts: Callable[[], float] | None = None
    rails: Callable[[], dict[str, float]] | None = None


@dataclass(frozen=True)
class FoundSensors:
    """The sensors of a machine, and why others are not there; each reason is a phrase."""

    sensors: tuple[Sensor, ...]
    missing: tuple[str, ...]

    @property
    def reason(self) -> str:
        """One sentence that says what was looked for."""
        return f"No power sensor can be read here: {'; '.join(self.missing)}."


def find_sensors(root: Path = Path("/"), gpu: bool = True, nvml: Sequence[str] = ()) -> FoundSensors:
    """Find the sensors that can be read.

    Args:
        root: folder that holds `sys`; replaced in tests.
        gpu: whether the product runs on a GPU, so that its power is of interest.
        nvml: libraries of NVML and of the driver; empty for those of the system.
    """
    found = (
        open_nvml(*nvml) if gpu else "NVML was not asked, since the product runs on the CPU",
        _ina3221(root / "sys"),
        _rapl(root / "sys"),
    )
    sensors = []
    for item in found:
        if isinstance(item, Sensor):
            sensors.append(item)
        elif not isinstance(item, str):
            sensors.append(Sensor("gpu", item.name, item.joules, item.watts))
    return FoundSensors(tuple(sensors), tuple(item for item in found if isinstance(item, str)))


_TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that are the input of the whole module; the others are parts of it."""
_NO_RAILS = ("", "NC")
"""Names of channels that nothing is connected to."""


@dataclass(frozen=True)
class _Rail:
    """One channel of an INA3221: volts and amperes in mV and mA, or power in mW."""

    name: str
    millivolts: Path | None
    milliamperes: Path | None
    milliwatts: Path | None

    def watts(self) -> float:
        if self.milliwatts is not None:
            return _number(self.milliwatts) / 1e3
        assert self.millivolts is not None
        assert self.milliamperes is not None
        return _number(self.millivolts) * _number(self.milliamperes) / 1e6


def _ina3221(sys: Path) -> Sensor | str:
    """The monitors of a Jetson: hwmon from JetPack 5 on, iio before."""
    rails = [*_hwmon_rails(sys), *_iio_rails(sys)]
    if not rails:
        return f"no INA3221 lies below {sys}/class/hwmon or {sys}/bus/iio/devices"
    total = [rail for rail in rails if rail.name in _TOTAL_RAILS]
    counted = total[:1] or rails
    try:
        for rail in rails:
            rail.watts()
    except (OSError, ValueError) as error:
        return f"the INA3221 of this board cannot be read ({_brief(error)})"
    names = " + ".join(rail.name for rail in counted)

    def watts() -> float:
        return sum(rail.watts() for rail in counted)

    def each() -> dict[str, float]:
        return {rail.name: rail.watts() for rail in rails}

    return Sensor("module", f"INA3221, {names}", watts=watts, rails=each)


def _hwmon_rails(sys: Path) -> list[_Rail]:
    rails = []
    for monitor in sorted((sys / "class/hwmon").glob("hwmon*")):
        if _text(monitor / "name") != "ina3221":
            continue
        for label in sorted(monitor.glob("in*_label")):
            number = label.name.removeprefix("in").removesuffix("_label")
            volts, amperes = monitor / f"in{number}_input", monitor / f"curr{number}_input"
            # Channels from 4 on are shunt voltages, which have no current of their own.
            if volts.exists() and amperes.exists() and _text(label) not in _NO_RAILS:
                rails.append(_Rail(_text(label), volts, amperes, None))
    return rails


def _iio_rails(sys: Path) -> list[_Rail]:
    rails = []
    for monitor in sorted((sys / "bus/iio/devices").glob("iio:device*")):
        for label in sorted(monitor.glob("rail_name_*")):
            power = monitor / f"in_power{label.name.removeprefix('rail_name_')}_input"
            if power.exists() and _text(label) not in _NO_RAILS:
                rails.append(_Rail(_text(label), None, None, power))
    return rails


class RaplCounter:
    """Sum of the energy counters of RAPL zones, in J.

    A counter starts again at 0 after `max_energy_range_uj`: it has to be read more often than that takes,
    which is a minute at the least.

    Args:
        zones: folders of the zones.

    Raises:
        OSError, ValueError: a zone cannot be read.
    """

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = tuple(zones)
        self._ranges = [int(_number(zone / "max_energy_range_uj")) for zone in zones]
        self._last = [int(_number(zone / "energy_uj")) for zone in zones]
        self._total = 0

    def joules(self) -> float:
        """Return the energy since the counter was opened."""
        for index, zone in enumerate(self._zones):
            value = int(_number(zone / "energy_uj"))
            step = value - self._last[index]
            if step < 0:
                # From the last value to the end of the range, and on from 0.
                step += self._ranges[index] + 1
            self._total += step
            self._last[index] = value
        return self._total / 1e6


def _rapl(sys: Path) -> Sensor | str:
    """The packages of the processor and the memory at them; `core` and `uncore` are parts of a package."""
    folder = sys / "class/powercap"
    zones = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        name = _text(zone / "name")
        if name.startswith("package") or name == "dram":
            zones.append(zone)
    if not zones:
        return f"no RAPL counter of a processor lies below {folder}"
    try:
        counter = RaplCounter(zones)
    except PermissionError:
        return f"RAPL's counters below {folder} are readable by root alone"
    except (OSError, ValueError) as error:
        return f"RAPL's counters below {folder} cannot be read ({_brief(error)})"
    names = ", ".join(_text(zone / "name") for zone in zones)
    return Sensor("processor", f"RAPL, {names}", joules=counter.joules)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float:
    return float(path.read_text(encoding="ascii").strip())


def _brief(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
