"""The meter, on sensors that follow a made clock, and the section that is made of its blocks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stenosis_trt.bench.energy import section as energy
from stenosis_trt.bench.energy.meter import Consumption, EnergyMeter
from stenosis_trt.bench.energy.section import Block, energy_section
from stenosis_trt.bench.energy.sensors import FoundSensors, Sensor
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.engine.packs.pack import Pack, reference_pack


class _Machine:
    """A machine of 10 W at rest, and of more by what it works."""

    def __init__(self) -> None:
        self.now, self.power, self.energy = 0.0, 10.0, 0.0

    def go_on(self, seconds: float, power: float) -> None:
        self.power = power
        self.energy += power * seconds
        self.now += seconds

    def clock(self) -> float:
        return self.now


def test_a_counter_and_a_gauge_agree_on_the_energy_of_work() -> None:
    machine = _Machine()
    sensors = (
        Sensor("processor", "counter", joules=lambda: machine.energy),
        Sensor("module", "gauge", watts=lambda: machine.power, rails=lambda: {"VDD_IN": machine.power}),
    )
    with EnergyMeter(sensors, sample_seconds=60.0, clock=machine.clock) as meter:

        def work() -> None:
            for step in range(100):
                machine.go_on(0.1, 10.0 + 0.2 * step)
                meter.read()

        used = meter.measure(work)
        assert meter.mean_rails()["VDD_IN"] == pytest.approx(20.0, rel=0.05)
    assert used["processor"].seconds == pytest.approx(10.0)
    assert used["processor"].joules == pytest.approx(199.0)
    assert used["processor"].watts == pytest.approx(19.9)
    assert used["module"].joules == pytest.approx(199.0, rel=0.01)


def test_the_thread_reads_while_work_goes_on() -> None:
    reads = []

    def watts() -> float:
        reads.append(time.perf_counter())
        return 5.0

    with EnergyMeter((Sensor("gpu", "gauge", watts=watts),), sample_seconds=0.005) as meter:
        used = meter.measure(lambda: time.sleep(0.2))
    assert len(reads) > 5
    assert used["gpu"].joules == pytest.approx(5.0 * used["gpu"].seconds, rel=0.05)
    meter.close()


def test_a_sensor_that_fails_is_an_error_of_the_measurement() -> None:
    values = iter([1.0, 2.0])

    def joules() -> float:
        try:
            return next(values)
        except StopIteration:
            raise OSError(5, "Input/output error") from None

    with (
        EnergyMeter((Sensor("gpu", "counter", joules=joules),), sample_seconds=0.005) as meter,
        pytest.raises(OSError, match="Input/output error"),
    ):
        meter.measure(lambda: time.sleep(0.1))


def _block(idle_watts: float, busy_watts: float, studies: int) -> Block:
    return Block(Consumption(idle_watts * 2, 2.0), Consumption(busy_watts * 4, 4.0), studies)


def test_idle_power_is_subtracted_from_the_energy_of_a_study() -> None:
    found = FoundSensors((Sensor("gpu", "NVML, energy counter of Made GPU"),), ("no RAPL here",))
    blocks = {"gpu": [_block(10.0, 30.0, 8), _block(12.0, 32.0, 10)]}
    section = energy_section(blocks, found, {}, 12.0)  # type: ignore[arg-type]
    figures = {figure.name: figure for figure in section.figures}
    joules = figures["energy.gpu.joules_a_study"]
    assert joules.value == pytest.approx((80 / 8 + 80 / 10) / 2)
    assert (joules.low, joules.high) == (pytest.approx(8.0), pytest.approx(10.0))
    assert (joules.unit, joules.text) == ("J", "Energy of a study without idle power, GPU")
    assert figures["energy.gpu.watts"].value == pytest.approx(31.0)
    assert figures["energy.gpu.idle_watts"].value == pytest.approx(11.0)
    assert "GPU: NVML, energy counter of Made GPU." in section.notes
    assert [absence.reason for absence in section.absences] == ["No RAPL here."]


class _Product:
    backend = "onnxruntime"

    def __init__(self, context: BenchContext) -> None:
        self.graded = 0

    def __enter__(self) -> _Product:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def whole(self, folder: Path) -> None:
        time.sleep(0.01)


def _context(tmp_path: Path, seconds: float) -> BenchContext:
    return BenchContext(
        Pack.load(reference_pack()), "cpu", "fp32", None, (tmp_path,), tmp_path, seconds, lambda _: None
    )


def test_blocks_of_idle_and_busy_fill_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "Product", _Product)
    monkeypatch.setattr(energy, "_MINIMUM_SECONDS", 0.05)
    sensor = Sensor("processor", "RAPL, package-0", joules=lambda: 25.0 * time.perf_counter())
    monkeypatch.setattr(energy, "find_sensors", lambda gpu: FoundSensors((sensor,), ()))
    section = energy.measure(_context(tmp_path, 1.0))
    assert section.name == "energy"
    figures = {figure.name: figure.value for figure in section.figures}
    assert figures["energy.processor.watts"] == pytest.approx(25.0, rel=0.1)
    assert figures["energy.processor.joules_a_study"] == pytest.approx(0.0, abs=0.05)
    blocks = section.details["blocks"]["processor"]
    assert len(blocks) == 5
    assert all(block["studies"] >= 1 for block in blocks)
    assert set(section.details["state"]) == {"idle", "busy"}


def test_a_machine_without_sensors_has_an_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "Product", _Product)
    monkeypatch.setattr(energy, "find_sensors", lambda gpu: FoundSensors((), ("no RAPL", "no NVML")))
    section = energy.measure(_context(tmp_path, 1.0))
    assert section.figures == ()
    assert [(item.name, item.reason) for item in section.absences] == [
        ("energy", "No power sensor can be read here: no RAPL; no NVML.")
    ]
